"""Naming schemes and layouts: every network there and back, real names, and refusals."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import specs

import effnet
from effnet.arch.catalog import NAMES, get_spec
from effnet.arch.layers import named_layers
from effnet.bundle.weights import state_arrays
from effnet.errors import WeightsError
from effnet.nn.network import build
from effnet.weights.schemes import (
    COMPOSED,
    SCHEMES,
    detect_scheme,
    foreign_names,
    foreign_shapes,
    from_effnet,
    to_effnet,
)
from effnet.weights.schemes.shared import RESNET_KINDS

FOREIGN = [scheme for scheme in SCHEMES if scheme not in ("effnet", *COMPOSED)]
_DEPTHWISE = "blocks_3/depthwise_conv2d/depthwise_kernel"
SMALL = effnet.scale(get_spec("b0", num_classes=7), phi=-20, resolution=16)


def random_state(spec, seed=0):
    """Return a state with the shapes of the module itself, numbers at random, variances above 0."""
    rng = np.random.default_rng(seed)
    with_shapes = foreign_shapes(spec, "effnet")
    state = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in with_shapes.items()}
    return {name: np.abs(array) if name.endswith("running_var") else array for name, array in state.items()}


def has_names(spec, scheme):
    try:
        return bool(foreign_names(spec, scheme))
    except WeightsError:
        return False


def test_effnets_own_names_and_shapes_are_those_of_the_module():
    for name in ("b0", "v2_b0", "edgetpu_s", "resnet18", "lite0"):
        spec = effnet.scale(get_spec(name), phi=-10) if name == "b0" else get_spec(name)
        shapes = {key: array.shape for key, array in state_arrays(build(spec)).items()}
        assert foreign_shapes(spec, "effnet") == shapes


@pytest.mark.parametrize("scheme", FOREIGN)
@settings(max_examples=24, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(spec=specs(), seed=st.integers(0, 9))
def test_random_networks_come_back_byte_for_byte(scheme, spec, seed):
    assume(has_names(spec, scheme))
    state = random_state(spec, seed)
    foreign = from_effnet(state, spec, scheme=scheme)
    assert len(foreign) == len(state)
    named_alike = scheme == "timm" and spec.blocks[0].kind in RESNET_KINDS
    assert detect_scheme(foreign) == ("torchvision" if named_alike else scheme)
    back = to_effnet(foreign, spec, scheme=scheme, where="x")
    assert list(back) == list(state)
    assert all(np.array_equal(back[name], array) and back[name].flags.c_contiguous for name, array in state.items())


def test_every_scheme_covers_the_families_that_its_project_has():
    def covered(scheme):
        return {name for name in NAMES if has_names(get_spec(name), scheme)}

    v1 = {f"b{i}" for i in range(9)} | {"l2"}
    v2 = {name for name in NAMES if name.startswith("v2_")}
    resnets = {name for name in NAMES if name.startswith("resnet")}
    assert covered("timm") == set(NAMES)
    assert covered("torchvision") == v1 | v2 | resnets
    assert covered("lukemelas") >= v1
    assert not covered("lukemelas") & (v2 | resnets)
    assert covered("keras") == covered("tensorflow") == set(NAMES) - resnets


@pytest.mark.parametrize(
    "scheme, name, own, key, shape",
    [
        ("timm", "b0", "stages.0.0.project.conv.weight", "blocks.0.0.conv_pw.weight", (16, 32, 1, 1)),
        ("timm", "v2_s", "stages.0.1.norm.running_var", "blocks.0.1.bn1.running_var", (24,)),
        ("torchvision", "b1", "stages.1.0.se.expand.bias", "features.2.0.block.2.fc2.bias", (96,)),
        ("torchvision", "v2_s", "head.norm.weight", "features.7.1.weight", (1280,)),
        ("torchvision", "v2_l", "head.norm.weight", "features.8.1.weight", (1280,)),
        ("lukemelas", "b0", "stages.2.1.expand.norm.bias", "_blocks.4._bn0.bias", (240,)),
        ("keras", "b0", "stages.1.1.depthwise.conv.weight", "block2b_dwconv/kernel", (3, 3, 144, 1)),
        ("keras", "v2_b0", "stages.3.0.depthwise.conv.weight", "block4a_dwconv2/kernel", (3, 3, 192, 1)),
        ("keras", "v2_b0", "stages.0.0.conv.weight", "block1a_project_conv/kernel", (3, 3, 32, 16)),
        ("keras", "b0", "classifier.weight", "predictions/kernel", (1280, 1000)),
        ("tensorflow", "b0", "stem.norm.running_mean", "stem/tpu_batch_normalization/moving_mean", (32,)),
        # No expansion: the projection is the scope's first convolution, its BatchNorm the second.
        ("tensorflow", "b0", "stages.0.0.project.conv.weight", "blocks_0/conv2d/kernel", (1, 1, 32, 16)),
        ("tensorflow", "b0", "stages.0.0.project.norm.weight", "blocks_0/tpu_batch_normalization_1/gamma", (16,)),
        ("tensorflow", "b0", "stages.1.0.project.conv.weight", "blocks_1/conv2d_1/kernel", (1, 1, 96, 24)),
        ("tensorflow", "b0", "stages.1.0.project.norm.bias", "blocks_1/tpu_batch_normalization_2/beta", (24,)),
        ("tensorflow", "b0", "stages.1.1.se.expand.weight", "blocks_2/se/conv2d_1/kernel", (1, 1, 6, 144)),
        ("tensorflow", "b0", "stages.2.0.depthwise.conv.weight", _DEPTHWISE, (5, 5, 144, 1)),
        ("tensorflow", "v2_s", "stages.0.1.conv.weight", "blocks_1/conv2d/kernel", (3, 3, 24, 24)),
        ("tensorflow", "v2_s", "stages.1.0.project.norm.weight", "blocks_2/tpu_batch_normalization_1/gamma", (48,)),
        ("tensorflow", "b0", "classifier.bias", "head/dense/bias", (1000,)),
    ],
)  # fmt: skip
def test_names_and_shapes_as_published(scheme, name, own, key, shape):
    spec = get_spec(name)
    found = foreign_names(spec, scheme)[own]
    assert found == (f"efficientnet/{key}" if scheme == "tensorflow" else key)
    assert foreign_shapes(spec, scheme)[found] == shape


def test_tensorflow_layouts_are_transposed_axis_by_axis():
    spec = get_spec("b0", num_classes=5)
    state = random_state(spec)
    foreign = from_effnet(state, spec, scheme="keras")
    conv, depthwise = foreign["stem_conv/kernel"], foreign["block2a_dwconv/kernel"]
    assert conv[2, 0, 1, 9] == state["stem.conv.weight"][9, 1, 2, 0]
    assert depthwise[2, 1, 60, 0] == state["stages.1.0.depthwise.conv.weight"][60, 0, 2, 1]
    assert foreign["predictions/kernel"][77, 3] == state["classifier.weight"][3, 77]


def test_headless_networks_have_no_classifier():
    spec = get_spec("b0", num_classes=0)
    for scheme in ("effnet", *FOREIGN):
        assert len(foreign_names(spec, scheme)) == len(foreign_names(get_spec("b0"), scheme)) - 2
    foreign = from_effnet(random_state(spec), spec, scheme="timm")
    assert to_effnet(foreign, spec, scheme="timm", where="x").keys() == random_state(spec).keys()
    with pytest.raises(WeightsError, match=r"unknown 2 \(classifier.bias, classifier.weight\)"):
        to_effnet(
            from_effnet(random_state(get_spec("b0")), get_spec("b0"), scheme="timm"), spec, scheme="timm", where="x"
        )


def published_checkpoint(state, spec, *, scope):
    """Return the state as a training checkpoint: raw values, their averages, and optimizer state."""
    arrays = {}
    for key, array in from_effnet(state, spec, scheme="tensorflow").items():
        name = key.replace("efficientnet", scope, 1)
        arrays |= {name: array + 1, f"{name}/ExponentialMovingAverage": array, f"{name}/RMSProp": array - 1}
        arrays |= {f"{name}/RMSProp_1": array - 1, f"{name}/Momentum": array - 1}
    return arrays


@pytest.mark.parametrize("scope", ["efficientnet-b0", "a/b", "efficientnetv2-s"])
def test_the_averages_of_a_checkpoint_stand_for_its_variables(scope):
    state = random_state(SMALL)
    arrays = {**published_checkpoint(state, SMALL, scope=scope), "global_step": np.array(350, dtype=np.int64)}
    assert detect_scheme(arrays) == "tensorflow"
    for ordered in (arrays, dict(reversed(arrays.items()))):
        back = to_effnet(ordered, SMALL, scheme="tensorflow", where="x")
        assert all(np.array_equal(back[name], array) for name, array in state.items())


def test_a_checkpoint_without_averages_gives_its_variables():
    state = random_state(SMALL)
    arrays = from_effnet(state, SMALL, scheme="tensorflow")
    one = next(iter(arrays))
    back = to_effnet(
        {**arrays, f"{one}/ExponentialMovingAverage": arrays[one] * 2}, SMALL, scheme="tensorflow", where="x"
    )
    assert np.array_equal(back["stem.conv.weight"], state["stem.conv.weight"] * 2)
    assert np.array_equal(back["stem.norm.weight"], state["stem.norm.weight"])


def test_what_does_not_belong_to_the_network_is_passed_over():
    state = random_state(SMALL)
    torch_like = from_effnet(state, SMALL, scheme="timm") | {"bn1.num_batches_tracked": np.array(3)}
    assert to_effnet(torch_like, SMALL, scheme="timm", where="x").keys() == state.keys()
    keras = from_effnet(state, SMALL, scheme="keras")
    keras |= {f"normalization/{part}": np.ones(3, np.float32) for part in ("mean", "variance", "count")}
    assert to_effnet(keras, SMALL, scheme="keras", where="x").keys() == state.keys()


def test_keras_2_names_are_read_too():
    state = random_state(SMALL)
    old = {
        f"efficientnetb0/{key}:0".replace("dwconv/kernel", "dwconv/depthwise_kernel"): array
        for key, array in from_effnet(state, SMALL, scheme="keras").items()
    }
    back = to_effnet(old, SMALL, scheme="keras", where="x")
    assert all(np.array_equal(back[name], array) for name, array in state.items())


def test_other_float_types_become_32_bit():
    foreign = {key: a.astype(np.float64) for key, a in from_effnet(random_state(SMALL), SMALL, scheme="timm").items()}
    assert {a.dtype for a in to_effnet(foreign, SMALL, scheme="timm", where="x").values()} == {np.dtype(np.float32)}


def broken(change):
    arrays = from_effnet(random_state(SMALL), SMALL, scheme="timm")
    change(arrays)
    return arrays


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda a: a.pop("conv_stem.weight"), r"lacks 1 \(conv_stem.weight\), and has unknown none; name the network"),
        (lambda a: a.update({"fc.weight": a["conv_stem.weight"]}), r"lacks none, and has unknown 1 \(fc.weight\)"),
        (lambda a: a.update({"bn2.bias": a["bn2.bias"][:-1]}), r"bn2.bias must have shape \(\d+,\); got"),
        (lambda a: a["bn2.bias"].__setitem__(2, np.nan), r"bn2.bias must hold finite numbers; 1 of \d+ are NaN"),
        (lambda a: a["bn2.bias"].__setitem__(2, -np.inf), r"bn2.bias must hold finite numbers; 1 of \d+ are NaN"),
        (lambda a: a.update({"bn1.bias": a["bn1.bias"].astype(np.int8)}), r"bn1.bias must hold floating-.* got int8"),
    ],
)  # fmt: skip
def test_what_does_not_match_is_named(change, words):
    with pytest.raises(WeightsError, match=r"some/file\.pth.*" + words):
        to_effnet(broken(change), SMALL, scheme="timm", where="some/file.pth")


def test_long_lists_of_keys_are_cut():
    with pytest.raises(WeightsError) as error:
        to_effnet({"a": np.zeros(1)}, get_spec("l2"), scheme="timm", where="x")
    assert len(str(error.value)) < 400
    assert re.search(r"lacks \d{3,4} \(conv_stem.weight, bn1.weight, bn1.bias, ...\)", str(error.value))


def test_unknown_schemes_and_names_are_refused():
    with pytest.raises(WeightsError, match=r"got 'tim'; did you mean 'timm'"):
        foreign_names(SMALL, "tim")
    with pytest.raises(WeightsError, match=r"got conv1.weight, fc.bias; weights of other networks"):
        detect_scheme({"fc.bias": 0, "conv1.weight": 0})
    with pytest.raises(WeightsError, match="got nothing"):
        detect_scheme({})
    with pytest.raises(WeightsError, match=r"no names for a fused_mbconv block|no names for a conv block"):
        foreign_names(get_spec("v2_s"), "lukemelas")
    with pytest.raises(WeightsError, match=r"no names for a depthwise_separable block without squeeze-and-excitation"):
        foreign_names(get_spec("lite0"), "torchvision")


def test_every_parameter_of_every_layer_has_a_name():
    for name in ("b0", "v2_xl", "edgetpu_l", "resnet152"):
        spec = get_spec(name)
        convs = sum(layer.op == "conv" for _, layer in named_layers(spec))
        names = foreign_names(spec, "timm")
        assert sum(key.endswith(".weight") for key in names.values()) > convs
        assert len(set(names.values())) == len(names)
