import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from strategies import build_trained, specs
from torch import nn

from effnet.arch.catalog import get_spec
from effnet.arch.scale import scale
from effnet.arch.spec import ArchSpec, StemSpec, stage
from effnet.errors import SpecError
from effnet.nn.layers import DropPath
from effnet.nn.network import Block, FeatureMaps, build

# Every block kind of EfficientNets, a stage without shortcuts, and one block wide enough for statistics.
SMALL = ArchSpec(
    num_classes=10,
    resolution=32,
    stem=StemSpec(channels=16),
    stages=(
        stage("mbconv", repeats=2, in_channels=16, out_channels=16, se_ratio=0.25),
        stage("fused_mbconv", repeats=2, expand_ratio=4, stride=2, in_channels=16, out_channels=24),
        stage("mbconv", repeats=3, kernel_size=5, expand_ratio=6, stride=2, in_channels=24, out_channels=32,
              se_ratio=0.25),
        stage("mbconv", repeats=1, expand_ratio=4, in_channels=32, out_channels=32, skip=False),
    ),
    head_channels=64,
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


def draw(spec: ArchSpec, *, batch: int = 2, side: int | None = None) -> torch.Tensor:
    side = side or spec.resolution
    return torch.randn(batch, spec.in_channels, side, side, generator=torch.Generator().manual_seed(5))


def test_convolutions_are_drawn_with_the_fan_out_of_the_original_code():
    network = build(get_spec("b0"), seed=0)
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 2000:
            kernel = module.kernel_size[0]
            # A depthwise kernel's fan-out is k * k, not k * k * channels.
            expected = (2 / (kernel**2 * (module.out_channels if module.groups == 1 else 1))) ** 0.5
            error = 1 / (2 * module.weight.numel()) ** 0.5
            assert abs(module.weight.std().item() / expected - 1) < 5 * error, name
            assert abs(module.weight.mean().item()) < 5 * expected / module.weight.numel() ** 0.5, name


def test_the_classifier_is_drawn_uniformly_and_biases_and_norms_start_neutral():
    network = build(get_spec("b0", num_classes=100), seed=0)
    weight = network.classifier.weight
    assert 0.0999 < weight.abs().max() <= 0.1
    assert abs(weight.std().item() - 0.1 / 3**0.5) < 1e-3
    for name, parameter in network.named_parameters():
        if name.endswith(".bias"):
            assert not parameter.any(), name
        elif name.endswith("norm.weight"):
            assert (parameter == 1).all(), name


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = (build(SMALL, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["stem.conv.weight"], other["stem.conv.weight"])
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_a_seed_leaves_the_values_drawn_for_it_alone_and_without_one_torchs_own_counts():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = build(SMALL).state_dict()
        torch.manual_seed(0)
        again = build(SMALL).state_dict()
        torch.manual_seed(1)
        other = build(SMALL).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["stem.conv.weight"], other["stem.conv.weight"])


@pytest.mark.parametrize("name", ["b0", "edgetpu_m", "v2_b0", "resnet18"])
def test_drop_path_rises_over_all_blocks_and_acts_only_around_shortcuts(name):
    spec = get_spec(name)
    with torch.device("meta"):
        network = build(spec, drop_path=0.2)
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    assert len(blocks) == len(spec.blocks)
    for index, (module, block) in enumerate(zip(blocks, spec.blocks, strict=True)):
        expected = 0.2 * index / len(blocks) if block.residual != "none" else 0.0
        assert module.drop_path.rate == pytest.approx(expected)
    assert sum(isinstance(module, DropPath) for module in network.modules()) == len(blocks)


def test_a_dropped_branch_leaves_the_shortcut_untouched():
    spec = dataclasses.replace(SMALL, stages=SMALL.stages[:1])
    network = build(spec, drop_path=0.2, seed=0).train()
    block = network.stages[0][1]
    block.drop_path.rate = 0.5
    x = torch.randn(64, 16, 4, 4)
    torch.manual_seed(0)
    y = block(x)
    untouched = (y == x).flatten(1).all(1)
    assert 10 < untouched.sum() < 54
    block.drop_path.rate = 0.0
    torch.testing.assert_close((y - x)[~untouched], 2 * (block(x) - x)[~untouched], rtol=1e-4, atol=1e-5)


def test_evaluation_is_deterministic_and_training_with_dropout_is_not():
    network = build(SMALL, dropout=0.5, drop_path=0.5, seed=0)
    x = draw(SMALL)
    network.eval()
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))


def test_each_image_is_judged_alone_in_evaluation():
    network = build_trained(SMALL, resolution=32)
    x = draw(SMALL, batch=3)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-4, atol=1e-5)


def test_dropout_acts_on_the_pooled_features_only():
    network = build(SMALL, dropout=0.4)
    assert [module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)] == [0.4]
    assert network.dropout.p == 0.4
    assert {m.momentum for m in build(SMALL, norm_momentum=0.01).modules() if isinstance(m, torch.nn.BatchNorm2d)} == {
        0.01
    }


@pytest.mark.parametrize("name", ["b0", "v2_b0", "edgetpu_s", "resnet18", "resnet50"])
def test_the_gradient_reaches_every_parameter_of_a_named_family(name):
    spec = scale(get_spec(name, num_classes=4), phi=-4.0)
    check_gradients(spec)


def test_the_gradient_reaches_every_parameter():
    check_gradients(SMALL)


def check_gradients(spec: ArchSpec) -> None:
    network = build(spec, drop_path=0.1, seed=1).train()
    torch.manual_seed(0)
    network(draw(spec, batch=8, side=64)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_stage_outputs_and_features_have_the_shapes_that_the_spec_says():
    network = build(SMALL, seed=0).eval()
    x = draw(SMALL, side=33)
    with torch.no_grad():
        shapes = [tuple(output.shape) for output in network.stage_outputs(x)]
        assert shapes == [(2, 16, 17, 17), (2, 24, 9, 9), (2, 32, 5, 5), (2, 32, 5, 5)]
        assert network.forward_head(network.forward_features(x), pre_logits=True).shape == (2, 64)
        assert network(x).shape == (2, 10)
        torch.testing.assert_close(network.forward_head(network.forward_features(x)), network(x))


def test_without_classes_the_network_returns_its_features():
    headless = dataclasses.replace(SMALL, num_classes=0)
    network, whole = build(headless, seed=0).eval(), build(SMALL, seed=0).eval()
    x = draw(SMALL)
    with torch.no_grad():
        assert network(x).shape == (2, headless.feature_channels)
        pooled = whole.forward_head(whole.forward_features(x), pre_logits=True)
        torch.testing.assert_close(network(x), pooled)
    assert not any(key.startswith("classifier") for key in network.state_dict())


def test_feature_info_describes_the_maps_of_a_network_for_a_pyramid():
    network = build(SMALL, seed=0).eval()
    maps = FeatureMaps(network)
    x = draw(SMALL, side=64)
    with torch.no_grad():
        found, every = maps(x), network.stage_outputs(x)
    assert [info.reduction for info in network.feature_info] == sorted({64 // output.shape[-1] for output in every})
    for info, output in zip(maps.feature_info, found, strict=True):
        assert tuple(output.shape) == (2, info.channels, 64 // info.reduction, 64 // info.reduction)
        assert torch.equal(output, every[int(info.name.removeprefix("stages."))])
    assert set(maps.state_dict()) <= set(network.state_dict())
    assert all(name.startswith(("stem.", "stages.")) for name, _ in maps.named_parameters())


def test_a_classifier_can_be_replaced_and_left_out():
    network = build(SMALL, seed=0).eval()
    x = draw(SMALL)
    network.reset_classifier(3)
    assert network.get_classifier() is network.classifier
    assert network.classifier.weight.abs().max() > 0
    with torch.no_grad():
        assert network(x).shape == (2, 3)
        network.reset_classifier(0)
        assert network(x).shape == (2, network.num_features)
    assert sorted(network.state_dict()) == sorted(build(network.spec).state_dict())
    network = network.to(torch.float64).train()
    network.reset_classifier(2)
    assert (network.classifier.weight.dtype, network.classifier.training) == (torch.float64, True)
    with pytest.raises(SpecError, match="num_classes"):
        network.reset_classifier(-1)
    assert network.spec.num_classes == 2


def test_frozen_norms_stay_in_evaluation_mode():
    network = build(SMALL, seed=0)
    network.frozen_norms = True
    norms = [module for module in network.train().modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert network.training
    assert network.dropout.training


def test_without_a_head_the_last_stage_is_pooled():
    spec = dataclasses.replace(SMALL, head_channels=0)
    network = build(spec, seed=0).eval()
    with torch.no_grad():
        last = network.stage_outputs(draw(spec))[-1]
        assert torch.equal(network.forward_features(draw(spec)), last)
        torch.testing.assert_close(network.forward_head(last, pre_logits=True), last.mean((2, 3)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(specs(min_classes=1))
def test_a_random_network_trains_one_step_and_survives_its_state_dict(spec):
    network = build(spec, seed=0, drop_path=0.1)
    network.train()(draw(spec, batch=4)).sum().backward()
    network.eval()
    other = build(spec, seed=1).eval()
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(other(draw(spec)), network(draw(spec)))
