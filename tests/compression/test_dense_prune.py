"""Pruning of detectors and segmenters: the backbone loses channels, and the decoder reads those that are left."""

import dataclasses

import numpy as np
import pytest
import torch
from annotated_sets import write_coins, write_terrain
from decoders import NETWORKS, settled, small
from dense_bundles import write_detector, write_segmenter
from procedures import UNTIMED

import effnet
from effnet.arch.catalog import get_spec
from effnet.arch.channels import _kept_decoder, keep_all, keep_from, kept_spec, kept_widths, tied_widths, width_channels
from effnet.arch.cost import cost
from effnet.arch.decoders.record import Segmenter
from effnet.arch.layers import backbone_taps, layer_widths, named_layers
from effnet.bundle.config import read_config
from effnet.bundle.weights import load_arrays_, load_module, state_arrays
from effnet.compression.importance import taylor_importance
from effnet.compression.prune import prune
from effnet.compression.reconstruct import reconstructed
from effnet.errors import BudgetError, InputError, SpecError
from effnet.nn.dense import build_dense
from effnet.training.losses import Batch
from effnet.weights.morph import transfer
from effnet.weights.schemes.smp import unet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["points", "unet", "anchors", "smp"])
def network(request):
    """A small network whose decoder shares weights, fuses with learnt ones, joins maps, or has wide kernels."""
    return settled(dataclasses.replace(small(NETWORKS[request.param]), resolution=64, height=0))


def halves(spec, seed=0):
    """Return a keep of random halves of all channels that need not stay together."""
    rng, widths = np.random.default_rng(seed), {}
    for tie in tied_widths(spec):
        kept = rng.permutation(tie.channels)[: max(1, tie.channels // 2)]
        widths |= dict.fromkeys(tie.widths, tuple(sorted(kept.tolist())))
    return keep_from(spec, widths)


def network_of(spec, state):
    found = build_dense(spec)
    load_arrays_(found, state, where="the test")
    return found.eval()


@torch.no_grad()
def without_channels(network, keep):
    """Return the network whose other channels are zero: their BatchNorms, or their own weights, give zero."""
    spec = network.spec
    same, layers = network_of(spec, state_arrays(network)), dict(named_layers(spec))
    kept, widths = kept_widths(spec, keep), layer_widths(spec)
    normed = {layer.inputs[0]: name for name, layer in layers.items() if layer.op == "norm"}
    for name, layer in layers.items():
        if layer.op != "conv" or not name.startswith(("stem.", "stages.")):
            continue
        gone = sorted(set(range(layer.out_channels)) - set(kept[widths[name][1]]))
        module = same.get_submodule(normed.get(name, name))
        module.weight[gone] = 0
        if module.bias is not None:
            module.bias[gone] = 0
    return same


def largest_difference(one, other):
    return max(float((one[name] - other[name]).abs().max() / one[name].abs().max()) for name in one)


@torch.no_grad()
def test_a_pruned_network_computes_what_the_original_does_without_the_channels(network):
    spec, images = network.spec, torch.randn(2, 3, 64, 64)
    keep = halves(spec)
    target = kept_spec(spec, keep)
    pruned = network_of(target, transfer(state_arrays(network), source=spec, target=target, keep=keep))
    expected = without_channels(network, keep)(images)
    assert largest_difference(expected, pruned(images)) < 1e-4
    assert largest_difference(expected, network(images)) > 0.05


def test_the_decoder_keeps_its_widths_and_reads_those_that_are_left(network):
    spec, keep = network.spec, halves(network.spec)
    target = kept_spec(spec, keep)
    kept, widths, prunable = kept_widths(spec, keep), layer_widths(spec), width_channels(spec)
    before, after = dict(named_layers(spec)), dict(named_layers(target))
    assert list(after) == list(before)
    for name, layer in after.items():
        if name.startswith(("stem.", "stages.")):
            continue
        reads, writes = widths[name]
        assert layer.in_channels == len(kept[reads])
        if writes not in prunable and "+" not in writes:
            assert layer.out_channels == before[name].out_channels
    for level, name in backbone_taps(target).items():
        assert after[name].out_channels <= before[backbone_taps(spec)[level]].out_channels


def decoder_part(arrays):
    return {name for name in arrays if not name.startswith(("stem.", "stages."))}


@torch.no_grad()
def test_channels_that_others_repeat_are_not_missed_by_the_decoder():
    """The last feature map with each channel twice: half of them are enough once what reads them is re-fitted."""
    network = settled(dataclasses.replace(small(NETWORKS["anchors"]), resolution=64, height=0))
    spec = network.spec
    last, half = network.stages[-1][-1].project, spec.stages[-1][-1].out_channels // 2
    for tensor in (last.conv.weight, *last.norm.state_dict().values()):
        if tensor.ndim:
            tensor[half:] = tensor[:half]
    every = {name: tuple(range(count)) for name, count in width_channels(spec).items()}
    keep = keep_from(spec, every | {f"stages.{len(spec.stages) - 1}.0.out": tuple(range(half))})
    target, state = kept_spec(spec, keep), state_arrays(network)
    moved = transfer(state, source=spec, target=target, keep=keep)
    images = [torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(n)) for n in range(8)]
    found = reconstructed(network, network_of(target, moved), keep, images)
    changed = {name for name in decoder_part(found) if not np.array_equal(found[name], moved[name])}
    taps = set(network.tapped.values())
    readers = [name for name, layer in network.graph if layer.inputs[0] in taps and layer.op == "conv"]
    # Their biases too, which these convolutions have; none of the heads, which levels share.
    assert changed == {f"{name}.{part}" for name in readers for part in ("weight", "bias")}
    expected = network(images[0])
    assert largest_difference(expected, network_of(target, moved)(images[0])) > 0.2
    assert largest_difference(expected, network_of(target, found)(images[0])) < 0.04


@torch.no_grad()
def test_refitting_changes_nothing_if_all_channels_stay_and_no_layer_between_levels(network):
    spec, state = network.spec, state_arrays(network)
    images = [torch.randn(4, 3, 64, 64)]
    whole = reconstructed(network, network_of(spec, state), keep_all(spec), images)
    for name, array in state.items():
        np.testing.assert_allclose(whole[name], array, atol=1e-3, rtol=1e-2, err_msg=name)
    keep = halves(spec)
    target = kept_spec(spec, keep)
    moved = transfer(state, source=spec, target=target, keep=keep)
    found = reconstructed(network, network_of(target, moved), keep, images)
    changed = {name for name in decoder_part(found) if not np.array_equal(found[name], moved[name])}
    assert all(name.startswith("neck.") for name in changed)


def test_importance_is_that_of_the_backbones_channels_for_the_outputs(network):
    spec = network.spec
    dead = without_channels(network, halves(spec))

    def loss(model, batch):
        return sum(output.square().mean() for output in model(batch.images).values())

    batch = Batch(images=torch.randn(2, 3, 64, 64), labels=torch.zeros(2))
    found, kept = taylor_importance(dead, [batch], loss), kept_widths(spec, halves(spec))
    assert set(found.channels) == {tie.name for tie in tied_widths(spec)}
    for name, values in found.channels.items():
        gone = np.setdiff1d(np.arange(len(values)), kept[name])
        assert not values[gone].any()
        assert np.delete(values, gone).max() > 0


def test_the_threshold_weighs_what_the_decoder_computes_of_a_channel_and_meets_the_limit(network):
    spec = network.spec
    batch = Batch(images=torch.randn(2, 3, 64, 64), labels=torch.zeros(2))
    importance = taylor_importance(
        network, [batch], lambda model, one: sum(o.sum() for o in model(one.images).values())
    )
    limit = 0.8 * cost(spec).macs
    found = prune(spec, importance=importance, limit=limit, round_to=2)
    assert 0.9 * limit < cost(found.spec).macs <= limit
    assert found.spec.decoder == spec.decoder
    with pytest.raises(BudgetError, match="the smallest network"):  # the decoder stays
        prune(spec, importance=importance, limit=1000, round_to=2)


def test_a_unet_reads_the_same_block_early_after_others_are_removed():
    spec = unet(get_spec("b0"), scheme="smp", num_classes=1)
    widths = {name: tuple(range(count)) for name, count in width_channels(spec).items()}
    (level, block), *_ = spec.decoder.decoder.early
    numbers = [f"stages.{i}.{j}" for i, row in enumerate(spec.stages) for j in range(len(row))]
    keep = keep_from(spec, widths, dropped=["stages.1.1", "stages.3.2"])
    small_one = kept_spec(spec, keep)
    assert small_one.decoder.decoder.early[0] == (level, block - 2)
    left = [name for name in numbers if name not in ("stages.1.1", "stages.3.2")]
    assert left[block - 2] == numbers[block]
    assert isinstance(small_one.decoder, Segmenter)
    named_layers(small_one)  # the block has a map of this level
    first = dataclasses.replace(spec, decoder=Segmenter(decoder=dataclasses.replace(spec.decoder.decoder, early=())))
    assert kept_spec(first, keep).decoder == first.decoder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a detector, a segmenter, and the data of both."""
    folder = tmp_path_factory.mktemp("dense-prune")
    write_detector(folder / "detector")
    write_segmenter(folder / "segmenter")
    write_coins(folder / "coins", images=16)
    write_terrain(folder / "terrain", images=15)
    return folder


@pytest.mark.parametrize(
    ("model", "data", "figure", "tag"),
    [("detector", "coins", "AP", "object-detection"), ("segmenter", "terrain", "mIoU", "image-segmentation")],
)
def test_a_pruned_detector_or_segmenter_is_an_ordinary_bundle(place, tmp_path, model, data, figure, tag):
    found = effnet.prune(
        place / model, place / data, out=tmp_path / "out", macs=0.8, steps=1, epochs=1, round_to=4, procedure=UNTIMED
    )
    before, after = read_config(place / model), read_config(found.folder)
    assert found.report["after"]["macs"] == cost(after.arch).macs <= 0.8 * cost(before.arch).macs
    assert after.arch.decoder == before.arch.decoder
    assert found.report["check"]["max_difference"] < 1e-3
    assert f"test_{figure.lower()}" in found.report["after"]
    card = (found.folder / "README.md").read_text()
    assert f"pipeline_tag: {tag}" in card
    assert f"| test {figure} |" in card
    assert "and training with the annotations on" in card
    assert load_module(found.folder).spec == after.arch
    assert (after.threshold is not None) == (model == "detector")
    image = next((place / data / "images").iterdir())
    assert effnet.load(found.folder).predict(image)


def test_a_teacher_is_for_classifiers(place, tmp_path):
    with pytest.raises(InputError, match="a teacher must be left out for detection"):
        effnet.prune(place / "detector", place / "coins", out=tmp_path / "out", teacher=place / "detector")
    assert not (tmp_path / "out").exists()


def test_a_first_block_that_is_read_early_must_stay():
    spec = unet(get_spec("b0"), scheme="smp", num_classes=1)
    early = dataclasses.replace(spec.decoder.decoder, early=((1, 0),))
    spec = dataclasses.replace(spec, decoder=Segmenter(decoder=early))
    widths = {name: tuple(range(count)) for name, count in width_channels(spec).items()}
    with pytest.raises(SpecError, match=r"the first block must stay in .*, whose decoder reads it"):
        _kept_decoder(spec, keep_from(spec, widths, dropped=["stages.0.0"]))
