"""Memory of training: predictions against torch's own counts, and the choice of micro-batches."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import specs
from tiny_runs import RECIPE, run, tiny_spec

from effnet import cost, get_spec
from effnet.errors import EffnetError, InputError
from effnet.nn.network import build, fuse_
from effnet.training.distributed.ranks import ALONE
from effnet.training.losses import Batch
from effnet.training.memory.batch_size import SHARE, fit_batch
from effnet.training.memory.graph import step_graph
from effnet.training.memory.predict import evaluation_batch, largest_part, training_memory
from effnet.training.memory.probe import cpu_attempt
from effnet.training.recipe.file import with_values
from effnet.training.recipe.progressive import recipe_at
from effnet.training.recipe.schema import Recipe
from effnet.training.step import num_parts, split_batch

WAYS = st.sampled_from([(False, "none"), (True, "none"), (False, "stages"), (True, "stages")])


def recipe_of(**values):
    return with_values(Recipe(), {f"train.{name}": value for name, value in values.items()})


def kept_bytes(spec, *, count, side, fused, recompute, half=False):
    """Return the bytes that autograd saves for the backward pass, every storage once, without weights."""
    network = build(spec, seed=0).to(memory_format=torch.channels_last).train()
    if fused and not fuse_(network):
        pytest.skip("no C compiler")
    network.recompute = recompute == "stages"
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    held = []

    def pack(tensor):
        held.append(tensor.untyped_storage())
        return tensor

    images = torch.randn(count, spec.in_channels, side, side).to(memory_format=torch.channels_last)
    keeping = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with keeping, torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = network(images)
    found = {storage.data_ptr(): storage.nbytes() for storage in held}
    assert out.requires_grad
    return sum(size for place, size in found.items() if place not in own)


@settings(max_examples=20, deadline=None)
@given(spec=specs(min_classes=1), side=st.integers(8, 24), count=st.integers(2, 4), way=WAYS)
def test_what_is_kept_for_the_backward_pass_is_what_autograd_keeps(spec, side, count, way):
    fused, recompute = way
    need = training_memory(spec, recipe_of(recompute=recompute, batch_size=count), resolution=side, fused=fused)
    found = kept_bytes(spec, count=count, side=side, fused=fused, recompute=recompute)
    statistics = 4 * cost(spec).buffers  # mean and spread of the batch, of every BatchNorm that saves its input
    assert count * need.activations <= found <= count * need.activations + statistics


@pytest.mark.parametrize("name", ["b0", "lite0", "v2_b0", "resnet18"])
@pytest.mark.parametrize("fused", [True, False])
def test_what_published_networks_keep_is_predicted_to_the_byte(name, fused):
    spec = get_spec(name)
    need = training_memory(spec, recipe_of(batch_size=2), resolution=64, fused=fused)
    found = kept_bytes(spec, count=2, side=64, fused=fused, recompute="none")
    assert 2 * need.activations + 4 * cost(spec).buffers == found


def test_half_the_bits_keep_half_the_bytes():
    spec = get_spec("lite0")
    need = training_memory(spec, recipe_of(batch_size=2), resolution=64, element_bytes=2)
    found = kept_bytes(spec, count=2, side=64, fused=False, recompute="none", half=True)
    assert found == pytest.approx(2 * need.activations + need.weights // 2, rel=0.05)  # casts of weights are saved, too
    with pytest.raises(InputError, match="element_bytes must be 2 or 4; got 8"):
        training_memory(spec, Recipe(), element_bytes=8)


@pytest.mark.parametrize("fused, recompute", [(True, "none"), (True, "stages"), (False, "stages")])
def test_the_fullest_moment_is_that_of_torch_s_allocations(fused, recompute):
    """Compare with torch's own record of allocations, in which gradients of weights are allocated one by one.

    Without fused kernels, oneDNN's depthwise convolutions need workspace of their own.
    """
    spec, count, side = get_spec("lite0", num_classes=10), 8, 128
    network = build(spec, seed=0).to(memory_format=torch.channels_last).train()
    if fused and not fuse_(network):
        pytest.skip("no C compiler")
    network.recompute = recompute == "stages"
    images = torch.randn(count, 3, side, side).to(memory_format=torch.channels_last)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        network(images).sum().backward()
    events = profile.profiler.kineto_results.events()
    changes = [event.nbytes() for event in sorted(events, key=lambda e: e.start_ns()) if event.name() == "[memory]"]
    found = max(itertools.accumulate(changes))
    graph = step_graph(spec, resolution=side, fused=fused, recompute=recompute == "stages")
    most = 4 * count * graph.training_peak(recompute=recompute == "stages").most
    assert 0.95 * most <= found <= 1.02 * most + 4 * cost(spec).params


@given(batch=st.integers(2, 70), micro=st.integers(0, 80), frozen=st.booleans())
def test_the_largest_part_is_the_one_that_a_step_makes(batch, micro, frozen):
    recipe = recipe_of(batch_size=batch, micro_batch=micro, frozen_norms=frozen)
    whole = Batch(images=torch.zeros(batch, 1), labels=torch.zeros(batch))
    parts = split_batch(whole, num_parts(ALONE.share(batch), recipe))
    assert largest_part(recipe) == max(len(part.labels) for part in parts)


def test_every_choice_moves_memory_the_way_that_it_should():
    spec = get_spec("b0")

    def total(spec=spec, *, resolution=128, fused=True, **values):
        return training_memory(spec, recipe_of(**values), resolution=resolution, fused=fused).total

    whole = total(batch_size=32)
    assert total(batch_size=32, micro_batch=8) < 0.5 * whole
    assert total(batch_size=32, recompute="stages") < whole < total(batch_size=32, fused=False)
    assert total(batch_size=32, resolution=64) < 0.5 * whole < whole < total(get_spec("b2"), batch_size=32)
    assert evaluation_batch(recipe_of(batch_size=8)) == 16
    assert evaluation_batch(recipe_of(batch_size=256)) == 64


PROGRESSIVE = with_values(
    Recipe(),
    {"train.batch_size": 64, "train.epochs": 4, "stages": [{"resolution": 64}, {"resolution": 128}, {}]},
)


@pytest.mark.parametrize("gigabytes", [0.6, 1.0, 2.0, 5.0, 50.0])
def test_the_largest_batch_that_fits_is_found_for_every_stage(gigabytes):
    spec, available = get_spec("b0"), int(gigabytes * 1e9)
    found = fit_batch(spec, PROGRESSIVE, available=available)
    assert found.recipe.train.batch_size == 64
    sizes = []
    for epoch, side in ((0, 64), (1, 128), (3, 224)):
        part = recipe_at(found.recipe, epoch)
        sizes.append(largest_part(part))
        assert training_memory(spec, part, resolution=side).total <= SHARE * available
        larger = next((n for n in range(sizes[-1] + 1, 65) if -(-64 // -(-64 // n)) > sizes[-1]), None)
        if larger and found.recipe.train.recompute == "none":
            part = with_values(part, {"train.micro_batch": larger})
            assert training_memory(spec, part, resolution=side).total > SHARE * available
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1] or gigabytes == 50.0
    assert all(f"{size} at {side} pixels" in found.sentence for size, side in zip(sizes, (64, 128, 224), strict=True))


def test_stages_are_recomputed_where_nothing_fits_otherwise_and_then_it_gives_up():
    spec, recipe = get_spec("b0"), recipe_of(batch_size=32)
    plain = training_memory(spec, recipe_of(batch_size=2), resolution=224).total
    again = training_memory(spec, recipe_of(batch_size=2, recompute="stages"), resolution=224).total
    found = fit_batch(spec, recipe, available=int((plain + again) / 2 / SHARE))
    assert (found.recipe.train.recompute, "recompute" in found.sentence) == ("stages", True)
    with pytest.raises(EffnetError, match=r"needs about .* MB of memory for 2 images of 224 x 224.*--resolution"):
        fit_batch(spec, recipe, available=int(0.9 * again / SHARE))


def test_a_device_that_runs_out_on_trial_is_given_half_at_the_most():
    tried = []

    def attempt(recipe, side):
        tried.append((largest_part(recipe), side))
        if largest_part(recipe) > 10:
            raise MemoryError

    found = fit_batch(get_spec("b0"), recipe_of(batch_size=64), available=10**12, attempt=attempt)
    assert tried == [(64, 224), (32, 224), (16, 224), (8, 224)]
    assert found.recipe.train.micro_batch == 8


def refused(model, batch):
    """Raise torch's error for a CPU without memory."""
    return model(batch.images).sum() * torch.empty(1 << 60, dtype=torch.uint8).sum()


def kernel_refused(model, batch):
    raise MemoryError("no memory is left for effnet_scale")


@pytest.mark.parametrize("loss_fn", [refused, kernel_refused])
def test_a_run_without_memory_names_the_sizes_and_what_to_do(tmp_path, loss_fn):
    recipe = with_values(RECIPE, {"train.micro_batch": 8})
    with pytest.raises(
        EffnetError, match=r"in epoch 1, with 8 images of 16 x 16 pixels.*--set fit.batch=auto.*--resolution"
    ):
        run(tmp_path, recipe=recipe, loss_fn=loss_fn)


def test_another_error_of_torch_stays_what_it_is(tmp_path):
    def broken(model, batch):
        return model(batch.images) @ torch.zeros(1000)

    with pytest.raises(RuntimeError, match="size mismatch"):
        run(tmp_path, loss_fn=broken)


def test_a_cpu_whose_small_step_takes_more_than_predicted_is_not_given_the_large_one(monkeypatch):
    spec, recipe = tiny_spec(), recipe_of(batch_size=16)
    available = 2 * training_memory(spec, recipe, resolution=16).total
    attempt = cpu_attempt(spec, fused=False, available=available)
    peaks = iter([100.0, 100.0, 100.0, 200.0])
    monkeypatch.setattr("effnet.training.memory.probe.peak_mb", lambda: next(peaks))
    attempt(recipe, 16)
    with pytest.raises(MemoryError):
        attempt(recipe, 16)
