"""A new kind of block is one record: two depthwise branches that are added, from the spec to the runtimes."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from masked import random_keep
from strategies import build_trained, state_arrays

from effnet.arch import blocks
from effnet.arch.blocks import BlockKind, find_kind, kind_names, register
from effnet.arch.channels import kept_spec, tied_widths
from effnet.arch.codec import spec_from_dict, spec_to_dict, stage_to_string
from effnet.arch.cost import cost
from effnet.arch.describe import describe
from effnet.arch.layers import Body, named_layers
from effnet.arch.lineage import Lineage
from effnet.arch.scale import scale, with_expand_ratio
from effnet.arch.spec import ArchSpec, StemSpec, stage
from effnet.compression.equalize import equalize
from effnet.compression.fake_quant import calibrate_, round_
from effnet.compression.importance import taylor_importance, weight_importance
from effnet.compression.prune import prune
from effnet.errors import SpecError, WeightsError
from effnet.nn.kernels.blocks import block_fits
from effnet.nn.network import build
from effnet.runtimes.onnxruntime.graph import to_onnx, write_onnx
from effnet.runtimes.onnxruntime.int8_calibrate import calibrate
from effnet.runtimes.onnxruntime.int8_graph import to_qdq
from effnet.runtimes.registry import open_engine
from effnet.training.losses import Batch, cross_entropy
from effnet.training.memory.graph import step_graph, supported_blocks
from effnet.weights.folding import fold_norms, unfold_norms
from effnet.weights.morph import transfer
from effnet.weights.schemes import COMPOSED, SCHEMES, foreign_names

SIDE = 27
PIXELS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

pytestmark = pytest.mark.usefixtures("one_thread", "two_scales")


def _layers(body: Body, x: str) -> str:
    stride = body.block.stride
    y = body.unit("expand", x, "mid")
    small = body.unit("small", y, "mid", kernel_size=3, stride=stride, depthwise=True, act=False)
    large = body.unit("large", y, "mid", kernel_size=body.block.kernel_size, stride=stride, depthwise=True, act=False)
    y = body.attention(body.act(body.add("sum", small, large), "mixed"))
    y = body.unit("project", y, "out", act=False)
    return body.shortcut(y, x)


def _preactivated(body: Body, x: str) -> str:
    """Two maps that are read both before and after their activation, a convolution's and a sum."""
    y = body.unit("expand", x, "mid", kernel_size=body.block.kernel_size, stride=body.block.stride, act=False)
    y = body.add("first", y, body.act(y, "first_act"))
    y = body.add("second", y, body.act(y, "second_act"))
    return body.shortcut(body.unit("project", y, "out", act=False), x)


KIND = BlockKind(name="two_scales", layers=_layers, squeezes=True, depthwise=True)
PREACTIVATED = BlockKind(name="preactivated", layers=_preactivated)


@pytest.fixture
def two_scales(monkeypatch):
    """Register the kinds for one test."""
    monkeypatch.setattr(blocks, "_KINDS", dict(blocks._KINDS))
    register(KIND)
    register(PREACTIVATED)


def make_spec(kind="two_scales", **changes):
    rows = {"kernel_size": 5, "expand_ratio": 3, "in_channels": 8, "se_ratio": 0.25 if kind == "two_scales" else 0.0}
    return dataclasses.replace(
        ArchSpec(
            lineage=Lineage(base="two scales"),
            num_classes=5,
            resolution=SIDE,
            stem=StemSpec(channels=8),
            stages=(
                stage(kind, repeats=2, out_channels=8, **rows),
                stage(kind, repeats=2, out_channels=16, stride=2, **rows),
            ),
            head_channels=32,
        ),
        **changes,
    )


def draw_images(count):
    return np.random.default_rng(7).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def to_tensor(images):
    x = (images / 255.0 - np.array(PIXELS["mean"])) / np.array(PIXELS["std"])
    return torch.from_numpy(x).float().permute(0, 3, 1, 2)


@torch.no_grad()
def probabilities(network, images):
    return network.eval()(to_tensor(images)).softmax(1).numpy()


def make_batch(count=8):
    return Batch(images=to_tensor(draw_images(count)), labels=torch.arange(count) % 5)


def test_the_cost_counts_the_modules_that_are_built_and_a_step_reaches_all_of_them():
    network = build(make_spec(), seed=0).train()
    assert sum(p.numel() for p in network.parameters()) == cost(network.spec).params
    assert "stages.1.0.large.conv.weight" in network.state_dict()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    cross_entropy()(network, make_batch()).backward()
    optimizer.step()
    assert [name for name, p in network.named_parameters() if torch.equal(p, before[name])] == []


def test_the_branches_read_the_same_map_and_are_added():
    network = build_trained(make_spec(), resolution=SIDE)
    block = network.stages[0][1]
    x = torch.randn(2, 8, 14, 14, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = block.expand(x)
        expected = block.project(block.se(block.mixed(block.small(y) + block.large(y)))) + x
        torch.testing.assert_close(block(x), expected)


def test_it_scales_and_survives_json():
    spec = make_spec()
    wider = scale(spec, width=2.0, depth=1.5)
    first = wider.stages[1][0]
    assert (len(wider.stages[0]), first.in_channels, first.mid_channels, first.out_channels) == (3, 16, 48, 32)
    assert with_expand_ratio(spec, 2).blocks[0].mid_channels == 16
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(wider)))) == wider
    assert "two_scales5, expand 3, se 0.25" in describe(spec)


@pytest.mark.parametrize("activation", ["silu", "relu", "relu6", "hard_swish"])
@pytest.mark.parametrize(
    "kind, padding", [("two_scales", "same"), ("two_scales", "symmetric"), ("preactivated", "same")]
)
def test_onnx_runtime_and_litert_compute_what_torch_does(tmp_path, kind, padding, activation):
    spec = make_spec(kind, activation=activation, padding=padding)
    network = build_trained(spec, resolution=SIDE)
    weights, images = fold_norms(spec, state_arrays(network)), draw_images(3)
    write_onnx(to_onnx(spec, weights, **PIXELS), tmp_path / "model.onnx")
    expected = probabilities(network, images)
    np.testing.assert_allclose(open_engine(tmp_path / "model.onnx").run(images), expected, rtol=0, atol=1e-4)
    pytest.importorskip("ai_edge_litert.interpreter")
    from effnet.runtimes.litert.writer import to_tflite

    (tmp_path / "model.tflite").write_bytes(to_tflite(spec, weights, **PIXELS))
    np.testing.assert_allclose(open_engine(tmp_path / "model.tflite").run(images), expected, rtol=0, atol=1e-4)


def test_a_pruned_network_computes_what_the_original_does_without_these_channels():
    spec = make_spec()
    network = build_trained(spec, resolution=SIDE)
    keep = random_keep(spec, seed=3)
    small = kept_spec(spec, keep)
    silent = copy.deepcopy(network)
    with torch.no_grad():
        for i, row in enumerate(keep.stages):
            for j, kept in enumerate(row):
                if kept is None:
                    silent.stages[i][j] = torch.nn.Identity()
                    continue
                block = silent.stages[i][j]
                widths = {"expand": kept.mid, "small": kept.mid, "large": kept.mid, "project": kept.out}
                for name, left in widths.items():
                    silence_(block.get_submodule(name).norm, left)
                silence_(block.se.reduce, kept.se)
        silence_(silent.stem.norm, keep.stem)
        silence_(silent.head.norm, keep.head)
    found = build(small)
    arrays = transfer(state_arrays(network), source=spec, target=small, keep=keep)
    found.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False)
    images = draw_images(4)
    np.testing.assert_allclose(probabilities(found, images), probabilities(silent, images), rtol=0, atol=1e-5)


def silence_(module, kept):
    """Zero the outputs of the channels that are not kept, in place; every activation here maps 0 to 0."""
    gone = [channel for channel in range(len(module.weight)) if channel not in kept]
    module.weight[gone] = 0
    module.bias[gone] = 0


def test_equalized_weights_compute_the_same():
    spec = make_spec(activation="relu")
    weights = fold_norms(spec, state_arrays(build_trained(spec, resolution=SIDE)))
    changed = equalize(spec, weights)
    assert not np.array_equal(changed["stages.0.1.large.conv.weight"], weights["stages.0.1.large.conv.weight"])
    model, same = build(spec), build(spec)
    for network, arrays in ((model, weights), (same, changed)):
        state = unfold_norms(spec, arrays)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=False)
    images = draw_images(3)
    np.testing.assert_allclose(probabilities(same, images), probabilities(model, images), rtol=0, atol=1e-5)


def test_importance_chooses_channels_to_prune():
    spec = make_spec()
    network = build_trained(spec, resolution=SIDE)
    tie = next(tie for tie in tied_widths(spec) if tie.name == "stages.1.0.mid")
    assert {name.rpartition(".")[0] for name in tie.writers} >= {
        f"stages.1.0.{unit}" for unit in ("expand", "small", "large")
    }
    for found in (
        weight_importance(spec, state_arrays(network)),
        taylor_importance(network, [make_batch()], cross_entropy()),
    ):
        limit = 0.6 * cost(spec).macs
        assert cost(prune(spec, importance=found, limit=limit, round_to=1).spec).macs <= limit


def test_a_deeper_network_starts_as_the_same_function():
    spec = make_spec()
    deeper = scale(spec, width=1.0, depth=2.0)
    network = build_trained(spec, resolution=SIDE)
    grown = build(deeper)
    arrays = transfer(state_arrays(network), source=spec, target=deeper)
    grown.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False)
    images = draw_images(2)
    np.testing.assert_allclose(probabilities(grown, images), probabilities(network, images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ["silu", "relu"])
@pytest.mark.parametrize("kind", ["two_scales", "preactivated"])
def test_int8_stays_close_in_onnx_runtime_and_in_fake_quantization(tmp_path, kind, activation):
    spec = make_spec(kind, activation=activation)
    network = build_trained(spec, resolution=SIDE)
    weights, images = fold_norms(spec, state_arrays(network)), draw_images(32)
    ranges = calibrate(spec, weights, images, **PIXELS)
    write_onnx(to_qdq(spec, weights, ranges, **PIXELS, weight_levels=63), tmp_path / "model.onnx")
    expected = probabilities(network, images)
    assert np.abs(open_engine(tmp_path / "model.onnx").run(images) - expected).mean() < 0.02
    round_(network)
    calibrate_(network, to_tensor(images))
    assert 0 < np.abs(probabilities(network, images) - expected).mean() < 0.02


def test_the_fused_kernels_leave_its_blocks_to_torch_and_memory_counts_them_so():
    spec = make_spec()
    network = build(spec, seed=0)
    assert not any(block_fits(block) for row in network.stages for block in row)
    assert supported_blocks(spec, named_layers(spec)) == {}
    names = {op.name for op in step_graph(spec, resolution=SIDE, fused=True).ops}
    assert {name for name, _ in named_layers(spec) if name.startswith("stages.")} <= names


def test_memory_knows_which_blocks_the_kernels_support():
    for name in kind_names():
        squeezed = 0.5 if find_kind(name).squeezes else 0.0
        for residual in ("identity", "none"):
            row = stage(name, repeats=1, expand_ratio=2, in_channels=8, out_channels=8, se_ratio=squeezed)
            spec = make_spec(stages=((dataclasses.replace(row[0], residual=residual),),))
            fits = block_fits(build(spec).stages[0][0])
            assert bool(supported_blocks(spec, named_layers(spec))) == fits, name


@pytest.mark.parametrize("scheme", [scheme for scheme in SCHEMES if scheme not in ("effnet", *COMPOSED)])
def test_a_foreign_naming_scheme_refuses_it_in_one_sentence(scheme):
    with pytest.raises(WeightsError, match=f"{scheme}' has no names for a two_scales block; save it under effnet's"):
        foreign_names(make_spec(), scheme)


def test_what_it_cannot_be_is_refused():
    with pytest.raises(SpecError, match="no TF block string"):
        stage_to_string(make_spec().stages[0])
    with pytest.raises(SpecError, match="two_scales is taken"):
        register(dataclasses.replace(KIND, squeezes=False))
    with pytest.raises(SpecError, match=r"did you mean 'two_scales'.*; register a kind of your own before"):
        stage("two_scale", repeats=1, in_channels=8, out_channels=8)


@pytest.mark.parametrize(
    "layers, said",
    [
        (lambda body, x: body.unit("expand", x, "mid"), "must write its width out at last; stages.0.0.expand"),
        (
            lambda body, x: body.unit("a", body.unit("a", x, "mid"), "out"),
            "must have its own name; stages.0.0 repeats one",
        ),
        (
            lambda body, x: body.unit("deep", x, "mid", depthwise=True),
            "must write as many channels as it reads",
        ),
        (lambda body, x: body.add("sum", body.unit("wide", x, "mid"), x), "sum must add feature maps of one width"),
        (lambda body, x: body.add("sum", x, x), "sum must add two feature maps; got stem.act twice"),
        (lambda body, x: body.unit("half", x, "out"), "attribute of torch's modules; got 'half'"),
        (lambda body, x: body.unit("drop_path", x, "out"), "attribute of torch's modules; got 'drop_path'"),
        (
            lambda body, x: body.unit("project", body.unit("expand", x, "mid").replace("act", "conv"), "out"),
            "project must read the last layer of a unit; it reads stages.0.0.expand.conv",
        ),
    ],
)
def test_layers_that_do_not_fit_together_are_refused(layers, said):
    register(BlockKind(name="broken", layers=layers))
    with pytest.raises(SpecError, match=said):
        build(make_spec("broken", stages=(stage("broken", repeats=1, expand_ratio=2, in_channels=8, out_channels=8),)))


def test_pruning_refuses_a_block_that_adds_no_norm_to_its_shortcut():
    register(BlockKind(name="sums", layers=_sums))
    spec = make_spec("sums", stages=(stage("sums", repeats=1, in_channels=8, out_channels=8),))
    with pytest.raises(SpecError, match=r"a sums block must add a BatchNorm's output to its shortcut; .*0.sum"):
        weight_importance(spec, state_arrays(build(spec)))


def _sums(body: Body, x: str) -> str:
    terms = [body.unit(name, x, "out", act=False) for name in ("left", "right")]
    return body.shortcut(body.add("sum", *terms), x)
