"""Identification of a file's network: every named one in every scheme, pruned ones, and ambiguous shapes."""

import dataclasses
import re
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.arch.catalog import NAMES, get_spec
from effnet.errors import SpecError, WeightsError
from effnet.weights.identify import identify
from effnet.weights.schemes import COMPOSED, SCHEMES, foreign_names, foreign_shapes, from_effnet, to_effnet

# Those of classifiers; tests/weights/test_decoder_schemes.py has the others.
PLAIN = [scheme for scheme in SCHEMES if scheme not in COMPOSED]

# Never allocated: broadcast views of one number.
NOTHING = np.float32(0)


def arrays_of(spec, scheme):
    return {key: np.broadcast_to(NOTHING, shape) for key, shape in foreign_shapes(spec, scheme).items()}


@lru_cache
def has_names(name, scheme):
    try:
        return bool(foreign_names(get_spec(name), scheme))
    except WeightsError:
        return False


def timm_name(short):
    edgetpu = {"edgetpu_s": "efficientnet_es", "edgetpu_m": "efficientnet_em", "edgetpu_l": "efficientnet_el"}
    if short.startswith(("v2_", "resnet")):
        return short if short.startswith("resnet") else f"efficientnet{short}"
    return edgetpu.get(short, f"efficientnet_{short}")


CASES = [(scheme, name) for scheme in PLAIN for name in NAMES if has_names(name, scheme)]


@pytest.mark.parametrize("scheme, short", CASES)
def test_every_network_is_recognised_in_every_scheme(scheme, short):
    tf = timm_name(short) if short.startswith("resnet") else f"tf_{timm_name(short)}"
    names = {"timm": [timm_name(short), tf], "torchvision": [f"torchvision/{timm_name(short)}"], "effnet": [tf]}
    for name in names.get(scheme, [short]):
        if scheme == "torchvision" and short.startswith("v2_"):
            name = f"efficientnet_{short}"
        spec = get_spec(name, num_classes=11, in_channels=4)
        hint = f"some/{name}.pth" if scheme in ("timm", "effnet") else "weights"
        found_scheme, found = identify(arrays_of(spec, scheme), name_hint=hint)
        assert found == spec
        assert get_spec(found.name, num_classes=11, in_channels=4) == spec
        alike = scheme == "timm" and short.startswith("resnet")
        assert found_scheme == ("torchvision" if alike else scheme)


@pytest.mark.parametrize(
    "scheme, short", [case for case in CASES if case[1] in ("b0", "v2_b0", "resnet18", "edgetpu_s", "lite0")]
)
def test_weights_come_back_through_a_file_of_unknown_origin(scheme, short):
    spec = get_spec(short, num_classes=3)
    rng = np.random.default_rng(0)
    shapes = foreign_shapes(spec, "effnet")
    state = {key: np.abs(rng.standard_normal(shape, dtype=np.float32)) for key, shape in shapes.items()}
    foreign = from_effnet(state, spec, scheme=scheme)
    found_scheme, found = identify(foreign, name_hint=f"tf_{timm_name(short)}_aa-0123.pth")
    back = to_effnet(foreign, found, scheme=found_scheme, where="x")
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[name], array) for name, array in state.items())


@pytest.mark.parametrize("scheme", PLAIN)
@pytest.mark.parametrize("num_classes, in_channels", [(0, 3), (1000, 3), (1001, 1), (2, 6), (1, 1)])
def test_classes_and_channels_come_from_the_file(scheme, num_classes, in_channels):
    spec = get_spec("b0", num_classes=num_classes, in_channels=in_channels)
    _, found = identify(arrays_of(spec, scheme), name_hint="tf_efficientnet_b0")
    assert (found.num_classes, found.in_channels) == (num_classes, in_channels)


@pytest.mark.parametrize(
    "hint, name",
    [
        ("tf_efficientnet_b0.ns_jft_in1k", "tf_efficientnet_b0"),
        ("timm/efficientnet_b0.ra_in1k", "efficientnet_b0"),
        ("/models/efficientnet_b0_ra-3dd342df.pth", "efficientnet_b0"),
        ("tf_efficientnet_b0_ap-f262efe1.pth", "tf_efficientnet_b0"),
        ("TF_EfficientNet_B0.safetensors", "tf_efficientnet_b0"),
    ],
)
def test_names_of_timms_files_tell_the_padding(hint, name):
    scheme, found = identify(arrays_of(get_spec("b0"), "timm"), name_hint=hint)
    assert scheme == "timm"
    assert (found, found.name) == (get_spec(name), name)


def test_the_smaller_l2_is_told_by_its_file():
    arrays = arrays_of(get_spec("l2"), "timm")
    for hint in ("tf_efficientnet_l2_ns_475-bebbd00a.pth", "tf_efficientnet_l2.ns_jft_in1k_475"):
        assert identify(arrays, name_hint=hint)[1].resolution == 475
    assert identify(arrays, name_hint="tf_efficientnet_l2_ns-df73bb44.pth")[1].resolution == 800


@pytest.mark.parametrize("hint", ["model.safetensors", "my_tf_efficientnet/pytorch_model.bin", "efficientnet_b01.pth"])
def test_what_no_shape_can_tell_is_asked_for(hint):
    arrays = arrays_of(get_spec("b0"), "timm")
    words = f"{hint} holds b0, .* must be one of tf_efficientnet_b0, efficientnet_b0; pass it with --model NAME"
    with pytest.raises(WeightsError, match=words):
        identify(arrays, name_hint=hint)
    for model in ("tf_efficientnet_b0", "efficientnet_b0", "b0"):
        assert identify(arrays, name_hint=hint, model=model)[1] == get_spec(model)
    with pytest.raises(WeightsError, match="one of v2_s, efficientnetv2_s, torchvision/efficientnet_v2_s; pass"):
        identify(arrays_of(get_spec("v2_s"), "effnet"), name_hint=hint)


def test_a_hint_of_another_network_does_not_decide():
    with pytest.raises(WeightsError, match=r"holds lite0, .* one of tf_efficientnet_lite0, efficientnet_lite0"):
        identify(arrays_of(get_spec("lite0"), "timm"), name_hint="tf_efficientnet_b3.pth")


def test_a_named_model_is_checked():
    arrays = arrays_of(get_spec("b1"), "timm")
    words = (
        "w.pth does not hold efficientnet_b0: blocks.0.1.bn1.bias is unknown, .* and [0-9]+ more; "
        "its shapes are those of b1$"
    )
    with pytest.raises(WeightsError, match=words):
        identify(arrays, name_hint="w.pth", model="efficientnet_b0")
    words = r"does not hold b2: blocks.1.0.conv_pw.weight .*|does not hold b2: .* must have shape \(.*\) and has \(.*\)"
    with pytest.raises(WeightsError, match=words):
        identify(arrays, name_hint="w.pth", model="b2")
    with pytest.raises(SpecError, match="unknown network 'b11'; did you mean"):
        identify(arrays, name_hint="w.pth", model="b11")
    with pytest.raises(WeightsError, match="names are those of lukemelas, which has none for this network; its shapes"):
        identify(arrays_of(get_spec("b1"), "lukemelas"), name_hint="w.pth", model="v2_s")


@pytest.mark.parametrize(
    "scheme, model, right",
    [
        ("torchvision", "b0", "torchvision/efficientnet_b0"),
        ("torchvision", "tf_efficientnet_b0", "torchvision/efficientnet_b0"),
        ("keras", "efficientnet_b0", "b0"),
        ("tensorflow", "torchvision/efficientnet_b0", "b0"),
        ("lukemelas", "efficientnet_b0", "b0"),
    ],
)
def test_a_model_with_other_padding_than_its_schemes_is_refused(scheme, model, right):
    arrays = arrays_of(get_spec("b0"), scheme)
    with pytest.raises(
        WeightsError, match=rf"names of {scheme}, whose networks have padding .*; pass --model {right}$"
    ):
        identify(arrays, name_hint="w", model=model)
    assert identify(arrays, name_hint="w", model=right)[1] == get_spec(right)


def prune(spec, rng):
    """Return the network with narrower blocks, shortcuts kept."""
    width, stages = spec.stem.channels, []
    for blocks in spec.stages:
        out, row = int(rng.integers(5, 16)), []
        for block in blocks:
            untied = block.kind in ("mbconv", "fused_mbconv")
            middle = int(rng.integers(3, 30)) if untied else width
            row.append(
                dataclasses.replace(
                    block, in_channels=width, out_channels=out,
                    mid_channels=out if block.kind == "conv" else middle,
                    se_channels=int(rng.integers(1, 9)) if block.se_channels else 0,
                    residual="identity" if block.residual == "identity" and width == out else "none",
                )
            )  # fmt: skip
            width = out
        stages.append(tuple(row))
    return dataclasses.replace(spec, stages=tuple(stages), head_channels=int(rng.integers(10, 90)))


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(("tf_efficientnet_b1", "efficientnet_b0", "efficientnet_lite0", "efficientnetv2_s", "b3")),
    scheme=st.sampled_from(PLAIN),
    seed=st.integers(0, 99),
)
def test_pruned_widths_are_read_off_the_shapes(name, scheme, seed):
    if not has_names(name, scheme):
        return
    spec = prune(get_spec(name, num_classes=4), np.random.default_rng(seed))
    arrays = arrays_of(spec, scheme)
    assert identify(arrays, name_hint="w", model=name) == (scheme, spec)
    with pytest.raises(
        WeightsError, match=r"its layers are those of .*, with other widths; pass the one it was pruned"
    ):
        identify(arrays, name_hint="w")


def test_timms_pruned_networks_keep_the_padding_that_they_were_trained_with():
    spec = prune(get_spec("tf_efficientnet_b1"), np.random.default_rng(1))
    arrays = arrays_of(spec, "timm")
    for hint, model in (
        ("effnetb1_pruned-bea43a3a.pth", None),
        ("timm/efficientnet_b1_pruned.in1k", None),
        ("model.safetensors", "efficientnet_b1_pruned"),
        ("effnetb1_pruned-bea43a3a.pth", "efficientnet_b1"),
    ):
        _, found = identify(arrays, name_hint=hint, model=model)
        assert (found, found.name) == (spec, "efficientnet_b1_pruned")


def test_shapes_that_fit_no_network_are_named():
    arrays = arrays_of(prune(get_spec("b1"), np.random.default_rng(0)), "timm")
    torn = {**arrays, "blocks.1.0.bn1.weight": np.zeros(3, np.float32)}
    words = (
        r"does not hold b1: blocks.1.0.bn1.weight must have shape \(\d+,\) to fit the layers around it; got \(3,\); its"
    )
    with pytest.raises(WeightsError, match=words):
        identify(torn, name_hint="w", model="b1")
    torn = {**arrays, "blocks.1.0.conv_pw.weight": np.zeros(3, np.float32)}
    with pytest.raises(WeightsError, match=r"blocks.1.0.conv_pw.weight must have four axes; got \(3,\)"):
        identify(torn, name_hint="w", model="b1")
    lacking = {key: array for key, array in arrays.items() if not key.startswith("conv_head")}
    with pytest.raises(
        WeightsError, match=r"does not hold b1: conv_head.weight is missing, .*no network of `effnet mod"
    ):
        identify(lacking, name_hint="w", model="b1")
    with pytest.raises(
        WeightsError, match=r"must hold a network that effnet knows: no network of `effnet models list` has"
    ):
        identify(lacking, name_hint="w")


def test_messages_stay_short():
    with pytest.raises(WeightsError) as error:
        identify(arrays_of(get_spec("l2"), "timm"), name_hint="w", model="lite0")
    assert len(str(error.value)) < 300
    assert re.search(r"and \d+ more", str(error.value))
