"""Detectors and U-Nets under the names of effdet, automl and segmentation_models_pytorch."""

import re

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from effnet.arch.catalog import get_spec
from effnet.bundle.weights import load_arrays_, state_arrays
from effnet.errors import WeightsError
from effnet.nn.dense import build_dense
from effnet.weights.identify import identify
from effnet.weights.known import known_names, known_networks
from effnet.weights.network_file import read_network
from effnet.weights.pretrained import load_backbone
from effnet.weights.schemes import SMP, foreign_names, foreign_shapes, from_effnet, to_effnet
from effnet.weights.schemes.smp import unet

pytestmark = pytest.mark.usefixtures("one_thread")

_NODE = "fpn_cells/cell_0/fnode0"
D0, LITE0 = (get_spec(f"efficientdet_{name}", num_classes=3) for name in ("d0", "lite0"))


def random_state(spec, seed=0):
    """Return a state with the shapes of the network, numbers at random, variances above 0."""
    rng = np.random.default_rng(seed)
    found = {
        name: rng.standard_normal(shape, dtype=np.float32) for name, shape in foreign_shapes(spec, "effnet").items()
    }
    return {name: np.abs(array) + 1e-3 if name.endswith("running_var") else array for name, array in found.items()}


@pytest.mark.parametrize(
    "spec", [D0, LITE0, unet(get_spec("b0"), scheme="smp", num_classes=2)], ids=["d0", "lite0", "unet"]
)
def test_effnets_own_names_and_shapes_are_those_of_the_module(spec):
    shapes = {key: array.shape for key, array in state_arrays(build_dense(spec)).items()}
    assert foreign_shapes(spec, "effnet") == shapes


# The names of effdet's modules, and of the variables of efficientdet_arch.py in google/automl.
@pytest.mark.parametrize(
    "scheme, own, foreign",
    [
        ("effdet", "stem.conv.weight", "backbone.conv_stem.weight"),
        ("effdet", "stages.1.0.depthwise.norm.running_var", "backbone.blocks.1.0.bn2.running_var"),
        ("effdet", "neck.p6.conv.bias", "fpn.resample.3.conv.conv.bias"),
        ("effdet", "neck.p6.norm.weight", "fpn.resample.3.conv.bn.weight"),
        ("effdet", "neck.cells.0.1.in0.conv.weight", "fpn.cell.0.fnode.1.combine.resample.2.conv.conv.weight"),
        ("effdet", "neck.cells.0.5.in0.norm.bias", "fpn.cell.0.fnode.5.combine.resample.2.conv.bn.bias"),
        ("effdet", "neck.cells.2.4.fuse.weight", "fpn.cell.2.fnode.4.combine.edge_weights"),
        ("effdet", "neck.cells.2.7.depthwise.weight", "fpn.cell.2.fnode.7.after_combine.conv.conv_dw.weight"),
        ("effdet", "neck.cells.2.7.pointwise.bias", "fpn.cell.2.fnode.7.after_combine.conv.conv_pw.bias"),
        ("effdet", "neck.cells.2.7.norm.bias", "fpn.cell.2.fnode.7.after_combine.conv.bn.bias"),
        ("effdet", "head.scores.0.depthwise.weight", "class_net.conv_rep.0.conv_dw.weight"),
        ("effdet", "head.boxes.2.norm.p7.running_mean", "box_net.bn_rep.2.4.bn.running_mean"),
        ("effdet", "head.boxes.last.pointwise.bias", "box_net.predict.conv_pw.bias"),
        ("tensorflow", "stages.0.0.depthwise.conv.weight", "efficientnet/blocks_0/depthwise_conv2d/depthwise_kernel"),
        ("tensorflow", "neck.p6.conv.weight", "resample_p6/conv2d/kernel"),
        ("tensorflow", "neck.p6.norm.running_var", "resample_p6/bn/moving_variance"),
        ("tensorflow", "neck.cells.0.5.in0.conv.weight", "fpn_cells/cell_0/fnode5/resample_0_2_10/conv2d/kernel"),
        ("tensorflow", "neck.cells.1.4.fuse.weight", "fpn_cells/cell_1/fnode4/WSM"),
        ("tensorflow", "neck.cells.0.0.depthwise.weight", f"{_NODE}/op_after_combine5/conv/depthwise_kernel"),
        ("tensorflow", "neck.cells.0.0.pointwise.weight", f"{_NODE}/op_after_combine5/conv/pointwise_kernel"),
        ("tensorflow", "neck.cells.0.0.norm.weight", f"{_NODE}/op_after_combine5/bn/gamma"),
        ("tensorflow", "head.scores.1.pointwise.bias", "class_net/class-1/bias"),
        ("tensorflow", "head.scores.1.norm.p3.bias", "class_net/class-1-bn-3/beta"),
        ("tensorflow", "head.boxes.last.depthwise.weight", "box_net/box-predict/depthwise_kernel"),
    ],
)  # fmt: skip
def test_the_names_are_those_of_the_projects(scheme, own, foreign):
    assert foreign_names(D0, scheme)[own] == foreign


@pytest.mark.parametrize("spec", [D0, LITE0], ids=["d0", "lite0"])
@pytest.mark.parametrize("scheme", ["effdet", "tensorflow", "effnet"])
def test_a_detector_is_told_by_its_arrays_and_comes_back(spec, scheme):
    state = random_state(spec)
    foreign = from_effnet(state, spec, scheme=scheme)
    assert identify(foreign, name_hint="checkpoint.pth") == (scheme, spec)
    back = to_effnet(foreign, spec, scheme=scheme, where="x")
    assert all(np.array_equal(back[name], array) for name, array in state.items())


def test_fusions_of_automl_are_a_variable_for_each_input_and_averages_replace_variables():
    state = random_state(D0)
    foreign = from_effnet(state, D0, scheme="tensorflow")
    weights = state["neck.cells.0.4.fuse.weight"]
    names = [f"fpn_cells/cell_0/fnode4/{name}" for name in ("WSM", "WSM_1", "WSM_2")]
    assert [float(foreign[name]) for name in names] == [float(weight) for weight in weights]
    trained = {key.replace("efficientnet/", "efficientnet-b0/", 1): array + 1 for key, array in foreign.items()}
    trained |= {
        f"{key.replace('efficientnet/', 'efficientnet-b0/', 1)}/ExponentialMovingAverage": array
        for key, array in foreign.items()
    }
    trained |= {f"{names[0]}/Momentum": np.float32(3), "global_step": np.int64(1)}
    back = to_effnet(trained, D0, scheme="tensorflow", where="x")
    assert all(np.array_equal(back[name], array) for name, array in state.items())


def test_six_and_seven_are_told_by_name_alone():
    spec = get_spec("efficientdet_d6", num_classes=1)
    arrays = {key: np.broadcast_to(np.float32(0), shape) for key, shape in foreign_shapes(spec, "effdet").items()}
    assert identify(arrays, name_hint="tf_efficientdet_d7_53-6d1d7a95.pth")[1].decoder.head.scale == 5
    assert identify(arrays, name_hint="efficientdet-d6.pth")[1] == spec
    assert identify(arrays, name_hint="x.pth", model="efficientdet_d7")[1].resolution == 1536
    with pytest.raises(
        WeightsError, match="efficientdet_d6 or efficientdet_d7, which differ in the scale of their anchors"
    ):
        identify(arrays, name_hint="d7x.pth")


def test_effdet_may_order_the_norms_of_heads_by_level():
    state = random_state(LITE0)
    foreign = from_effnet(state, LITE0, scheme="effdet")
    toggled = {re.sub(r"bn_rep\.(\d)\.(\d)\.bn\.", r"bn_rep.\2.\1.", key): array for key, array in foreign.items()}
    assert "class_net.bn_rep.4.0.weight" in toggled
    back = to_effnet(toggled, LITE0, scheme="effdet", where="x")
    assert all(np.array_equal(back[name], array) for name, array in state.items())


def test_effdets_own_detectors_have_no_redundant_biases_and_two_epsilons():
    own = get_spec("effdet/efficientdet_d0", num_classes=3)
    assert (own.padding, own.norm_epsilon, own.decoder.neck.redundant_bias) == ("symmetric", 1e-5, False)
    state = random_state(own)
    foreign = from_effnet(state, own, scheme="effdet")
    assert identify(foreign, name_hint="best.pth") == ("effdet", own)
    back = to_effnet(foreign, own, scheme="effdet", where="x")
    # The neck has an epsilon of 1e-3: what both divide by is the same.
    ours, theirs = back["neck.p6.norm.running_var"], foreign["fpn.resample.3.conv.bn.running_var"]
    assert np.allclose(ours + 1e-5, theirs + 1e-3, rtol=1e-6)
    assert np.array_equal(back["stem.norm.running_var"], foreign["backbone.bn1.running_var"])
    assert not np.array_equal(ours, theirs)


def test_a_detector_within_a_bench_is_one_network_and_not_its_backbone_too(tmp_path):
    foreign = {f"model.{key}": array for key, array in from_effnet(random_state(LITE0), LITE0, scheme="effdet").items()}
    save_file(foreign, tmp_path / "best.safetensors")
    found = read_network(tmp_path / "best.safetensors", entry=None)
    assert (found.scheme, found.spec, found.notes) == ("effdet", LITE0, ("the network is under model.",))


def test_a_fit_can_begin_with_the_backbone_of_a_detector(tmp_path):
    state = random_state(LITE0)
    save_file(from_effnet(state, LITE0, scheme="effdet"), tmp_path / "best.safetensors")
    found = load_backbone(str(tmp_path / "best.safetensors"))
    assert found.spec.decoder is None
    assert (found.spec.num_classes, found.class_names) == (0, ())
    assert set(found.state) == {name for name in state if name.startswith(("stem.", "stages."))}
    assert "only its backbone is used" in found.notes[-1]


ENCODERS = [
    ("smp", "b0"),
    ("smp_timm", "efficientnet_b0"),
    ("smp_timm", "lite1"),
    ("smp_tu", "tf_efficientnet_lite0"),
    ("smp_tu", "efficientnet_b1"),
]


@pytest.mark.parametrize("scheme, encoder", ENCODERS)
def test_a_unet_is_told_by_its_arrays_and_comes_back(scheme, encoder, tmp_path):
    spec = unet(get_spec(encoder), scheme=scheme, num_classes=4, channels=(64, 32, 16, 16, 8))
    state = random_state(spec)
    foreign = from_effnet(state, spec, scheme=scheme)
    unread = ("_conv_head", "_bn1") if scheme == "smp" else ("conv_head", "bn2")
    more = {f"encoder.{name}.weight": np.zeros(3, np.float32) for name in unread} if scheme != "smp_tu" else {}
    save_file({f"model.{key}": array for key, array in (foreign | more).items()}, tmp_path / f"{encoder}.safetensors")
    found = read_network(tmp_path / f"{encoder}.safetensors", entry=None)
    assert (found.scheme, found.spec) == (scheme, spec)
    assert found.notes == ("the network is under model.",)
    assert all(np.allclose(found.state[name], array, rtol=1e-4, atol=2e-7) for name, array in state.items())


def test_small_variances_keep_the_function_under_another_epsilon():
    spec = unet(get_spec("b0"), scheme="smp", num_classes=2)
    state = {n: (a - 1e-3) * (1e-3 if n.endswith("running_var") else 1) for n, a in random_state(spec, seed=3).items()}
    back = to_effnet(from_effnet(state, spec, scheme="smp"), spec, scheme="smp", where="x")
    assert not np.array_equal(back["stem.norm.weight"], state["stem.norm.weight"])
    images, networks = torch.randn(1, 3, 64, 64), []
    for arrays in (state, back):
        network = build_dense(spec).eval()
        load_arrays_(network, arrays, where="x")
        networks.append(network.stem)
    with torch.no_grad():
        before, after = (network(images) for network in networks)
    assert (before - after).abs().max() < 1e-4 * before.abs().max()


def test_an_encoder_that_smp_pads_in_its_own_way_is_refused():
    spec = unet(get_spec("b1"), scheme="smp", num_classes=1)
    arrays = {key: np.broadcast_to(np.float32(0), shape) for key, shape in foreign_shapes(spec, "smp").items()}
    with pytest.raises(WeightsError, match="train timm-efficientnet-b1 or efficientnet-b0 instead"):
        identify(arrays, name_hint="unet.pth")
    spec = unet(get_spec("b1"), scheme="smp_tu", num_classes=1)
    arrays = {key: np.broadcast_to(np.float32(0), shape) for key, shape in foreign_shapes(spec, "smp_tu").items()}
    with pytest.raises(WeightsError, match="only its full name tells padding"):
        identify(arrays, name_hint="unet.pth")


@pytest.mark.parametrize("scheme", ["timm", "torchvision", "lukemelas", "keras", *SMP])
def test_schemes_without_names_for_a_detector_say_so(scheme):
    with pytest.raises(WeightsError, match="has no names for a network"):
        foreign_names(LITE0, scheme)


def test_every_known_network_has_names():
    for scheme in ("effdet", "smp_timm", "tensorflow"):
        assert [name for name in known_networks(scheme) if not known_names(name, scheme)[0]] == (
            [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)] if scheme == "tensorflow" else []
        )
