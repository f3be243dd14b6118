import copy
import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import specs
from torch import nn
from torch.nn import functional

from effnet.arch.catalog import get_spec
from effnet.arch.scale import scale
from effnet.nn.kernels import library
from effnet.nn.kernels.functions import ACTS, depthwise, norm_act, norm_act_pool, normed, scale_project
from effnet.nn.layers import SameConv2d
from effnet.nn.network import build, fuse_

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(library.load_kernels() is None, reason="no C compiler with OpenMP"),
]

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9))


def random_map(sizes, seed, *, spread=2.0, mean=3.0):
    x = torch.randn(sizes, generator=torch.Generator().manual_seed(seed)) * spread + mean
    return x.to(memory_format=torch.channels_last)


def assert_close(found, wanted, *, tolerance=2e-5):
    """Compare with an fp64 reference, relative to its largest value."""
    size = max(1e-3, wanted.abs().max().item())
    assert (found.double() - wanted).abs().max().item() <= tolerance * size


def doubled(*tensors):
    return [None if t is None else t.detach().double().requires_grad_(t.is_floating_point()) for t in tensors]


@settings(max_examples=60, deadline=None)
@given(SIZES, st.sampled_from([None, *ACTS]), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 9))
def test_norm_activation_and_sum_are_those_of_torch(sizes, act, frozen, dropped, pooled, seed):
    if not frozen and sizes[0] * sizes[2] * sizes[3] < 2:
        sizes = (2, *sizes[1:])  # one value has no variance
    generator = torch.Generator().manual_seed(seed)
    norm = nn.BatchNorm2d(sizes[1], eps=1e-3, momentum=0.1)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.bias.normal_(generator=generator)
        norm.running_var.uniform_(0.5, 2.0, generator=generator)
    norm.train(not frozen)
    reference = copy.deepcopy(norm).double()
    function = act() if act else nn.Identity()
    x, shortcut = random_map(sizes, seed), random_map(sizes, seed + 1)
    keep = (torch.rand(sizes[0], generator=generator) > 0.5) / 0.5 if dropped else None
    x64, shortcut64 = doubled(x, shortcut)
    x.requires_grad_()
    shortcut.requires_grad_()
    wanted = function(reference(x64))
    value = normed(x, norm, function if act else None)
    if pooled:
        found, pool = norm_act_pool(value)
        means = wanted.mean((2, 3))
        assert_close(pool, means)
        weights = torch.arange(1, sizes[1] + 1)
        loss, loss64 = found.square().sum() + (pool * weights).sum(), wanted.square().sum() + (means * weights).sum()
    else:
        found = norm_act(value, keep=keep, shortcut=shortcut)
        wanted = (wanted if keep is None else wanted * keep.double()[:, None, None, None]) + shortcut64
        loss, loss64 = found.square().sum(), wanted.square().sum()
    assert_close(found, wanted)
    loss.backward()
    loss64.backward()
    pairs = [(x.grad, x64.grad), (norm.weight.grad, reference.weight.grad), (norm.bias.grad, reference.bias.grad)]
    if not pooled:
        pairs.append((shortcut.grad, shortcut64.grad))
    scale = max(b.abs().max().item() for _, b in pairs)
    for a, b in pairs:  # a rounded value may be on either side of a kink
        assert (a.double() - b).abs().max().item() <= (1e-2 if act in (nn.ReLU, nn.ReLU6) else 2e-4) * scale
    assert_close(norm.running_mean, reference.running_mean)
    assert_close(norm.running_var, reference.running_var)
    assert norm.num_batches_tracked == reference.num_batches_tracked


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(2, 70), st.integers(1, 11), st.integers(1, 11)),
    st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 2]), st.booleans(), st.booleans(), st.integers(0, 9),
)  # fmt: skip
def test_a_depthwise_convolution_is_that_of_torch(sizes, kernel, stride, same, behind, seed):
    channels = sizes[1]
    same = same and stride > 1
    conv = (SameConv2d if same else nn.Conv2d)(
        channels, channels, kernel, stride=stride, padding=0 if same else kernel // 2, groups=channels, bias=False
    )
    x = random_map(sizes, seed)
    reference = copy.deepcopy(conv).double()
    (x64,) = doubled(x)
    x.requires_grad_()
    norm = nn.BatchNorm2d(channels).eval()  # batch statistics are tested above
    before = nn.Sequential(copy.deepcopy(norm).double(), nn.SiLU()) if behind else nn.Identity()
    value = normed(x, norm, nn.SiLU()) if behind else x
    wanted, found = reference(before(x64)), depthwise(value, conv.weight, stride=stride, same=same)
    assert found.shape == wanted.shape
    assert_close(found, wanted)
    found.square().sum().backward()
    wanted.square().sum().backward()
    assert_close(x.grad, x64.grad, tolerance=1e-4)
    assert_close(conv.weight.grad, reference.weight.grad, tolerance=1e-4)


def test_a_gated_projection_is_that_of_torch():
    x, gate, weight = random_map((3, 21, 5, 4), 0), torch.rand(3, 21), torch.randn(7, 21, 1, 1)
    x64, gate64, weight64 = doubled(x, gate, weight)
    for tensor in (x, gate, weight):
        tensor.requires_grad_()
    found = scale_project(x, gate, weight)
    wanted = functional.conv2d(x64 * gate64[:, :, None, None], weight64)
    assert_close(found, wanted)
    found.square().sum().backward()
    wanted.square().sum().backward()
    for mine, theirs in ((x, x64), (gate, gate64), (weight, weight64)):
        assert_close(mine.grad, theirs.grad, tolerance=1e-4)


def gradients(model, x, *, seed=0):
    torch.manual_seed(seed)
    labels = torch.arange(len(x)) % model.spec.num_classes
    loss = functional.cross_entropy(model(x), labels)
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def as_double(model):
    return copy.deepcopy(model).double()


@pytest.mark.parametrize("name", ["b0", "lite0", "v2_s", "edgetpu_s"])
def test_a_step_is_as_close_to_the_truth_as_the_plain_one(name):
    spec = scale(get_spec(name, num_classes=5), phi=-9, resolution=64)
    plain = build(spec, seed=0).to(memory_format=torch.channels_last).train()
    fused = copy.deepcopy(plain)
    assert fuse_(fused)
    assert sum(block.fused for stage in fused.stages for block in stage) >= len(spec.blocks) - 2
    x = random_map((8, 3, 64, 64), 0, mean=0.0)
    truth = gradients(as_double(plain), x.double())
    errors = [((gradients(model, x).double() - truth).norm() / truth.norm()).item() for model in (plain, fused)]
    assert errors[1] <= 3 * errors[0] + 1e-5
    statistics = zip(plain.buffers(), fused.buffers(), strict=True)
    assert all(torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-4) for a, b in statistics)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs(min_classes=2))
def test_any_network_steps_alike(spec):
    # PyTorch 2.13's own backward pass of a strided 1x1 convolution ends the process on processors with AVX2 alone.
    stem = dataclasses.replace(spec.stem, kernel_size=3)
    spec = dataclasses.replace(spec, activation="silu", resolution=32, stem=stem)  # without kinks
    plain = build(spec, drop_path=0.4, seed=0).to(memory_format=torch.channels_last).train()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # over one or two pixels, batch statistics magnify rounding errors
    fused = copy.deepcopy(plain)
    fuse_(fused)
    x = torch.randn(4, spec.in_channels, 32, 32).to(memory_format=torch.channels_last)
    first, second = gradients(plain, x), gradients(fused, x)
    assert (first - second).norm() <= 1e-4 * first.norm() + 1e-6


def small_network():
    spec = scale(get_spec("b0", num_classes=3), phi=-12, resolution=32)
    model = build(spec, dropout=0.2, drop_path=0.2, seed=0).to(memory_format=torch.channels_last).train()
    fuse_(model)
    return model


def test_the_same_step_gives_the_same_bits():
    x = random_map((4, 3, 32, 32), 0)
    assert torch.equal(gradients(small_network(), x), gradients(small_network(), x))


def both():
    """Return the same network twice: for the plain modules and for the kernels."""
    plain, fused = small_network(), small_network()
    plain.fused = False
    for stage in plain.stages:
        for block in stage:
            block.fused = False
    return plain, fused


def test_what_the_kernels_do_not_do_goes_the_plain_way():
    x = random_map((4, 3, 32, 32), 0)
    first, second = (gradients(model, x) for model in both())
    assert not torch.equal(first, second)
    first, second = (gradients(model.double(), x.double()) for model in both())
    assert torch.equal(first, second)
    first, second = (model.eval()(x) for model in both())
    assert torch.equal(first, second)
    with torch.autocast("cpu", torch.bfloat16):
        first, second = (gradients(model, x) for model in both())
    assert torch.equal(first, second)


def test_without_a_compiler_networks_train_the_plain_way(monkeypatch):
    monkeypatch.setattr("effnet.nn.kernels.compile.shutil.which", lambda name: None)
    library.find_kernels.cache_clear()
    try:
        model = small_network()
        assert not model.fused
        gradients(model, random_map((4, 3, 32, 32), 0))
    finally:
        library.find_kernels.cache_clear()
