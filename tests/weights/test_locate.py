"""Finding the network in a checkpoint: any prefix in every scheme, left-out arrays, the choice between several."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.arch.catalog import get_spec
from effnet.errors import WeightsError
from effnet.weights.identify import identify
from effnet.weights.locate import find_network
from effnet.weights.schemes import COMPOSED, SCHEMES, foreign_names, foreign_shapes, plain_arrays

# Those of classifiers; tests/weights/test_decoder_schemes.py has the others.
PLAIN = [scheme for scheme in SCHEMES if scheme not in COMPOSED]

NOTHING = np.float32(0)
DOTTED = [scheme for scheme in PLAIN if scheme not in ("keras", "tensorflow")]


def arrays_of(name, scheme, *, prefix="", num_classes=7, value=NOTHING):
    """Return arrays that need no memory: broadcast views of one number."""
    shapes = foreign_shapes(get_spec(name, num_classes=num_classes), scheme)
    return {f"{prefix}{key}": np.broadcast_to(value, shape) for key, shape in shapes.items()}


words = st.sampled_from(
    ("module", "_orig_mod", "net", "backbone", "model", "encoder", "features", "blocks", "head", "0")
)


@settings(deadline=None, max_examples=40)
@given(scheme=st.sampled_from(DOTTED), prefix=st.lists(words, max_size=4), name=st.sampled_from(("b0", "b1", "lite0")))
def test_a_network_is_found_under_any_prefix_and_what_lies_elsewhere_is_named(scheme, prefix, name):
    if scheme == "torchvision" and name == "lite0":
        return  # which it has no names for
    prefix = "".join(f"{word}." for word in prefix)
    arrays = arrays_of(name, scheme, prefix=prefix)
    found = find_network(arrays | {"criterion.weight": NOTHING, "loss.scale": NOTHING}, where="w")
    assert found.arrays.keys() == {key.removeprefix(prefix) for key in arrays}
    assert found.notes[-1] == "left out, as not part of the network: criterion.weight, loss.scale"
    assert (f"the network is under {prefix}" in found.notes) == bool(prefix)
    hint = "tf_efficientnet_" + name
    assert identify(found.arrays, name_hint=hint)[1].num_classes == 7


@pytest.mark.parametrize("scheme", ["keras", "tensorflow"])
def test_layers_of_ones_own_beside_a_network_of_keras_and_tensorflow_are_left_out(scheme):
    arrays = plain_arrays(arrays_of("b0", scheme, num_classes=0), scheme)
    more = {"my_dense/kernel": np.zeros((1280, 7), np.float32), "my_dense/bias": np.zeros(7, np.float32)}
    found = find_network(arrays | more, where="w")
    assert found.arrays.keys() == arrays.keys()
    assert "my_dense/kernel" in found.notes[-1]
    head = find_network(arrays | more, where="w", head="my_dense")
    assert identify(head.arrays, name_hint="w")[1].num_classes == 7


@pytest.mark.parametrize("scheme", PLAIN)
def test_what_is_missing_inside_the_network_stays_an_error(scheme):
    prefix = "" if scheme in ("keras", "tensorflow") else "net.backbone."
    arrays = arrays_of("b0", scheme, prefix=prefix)
    lost = prefix + foreign_names(get_spec("b0"), scheme)["stages.2.0.depthwise.conv.weight"]
    del arrays[lost]
    found = find_network(arrays | {"criterion.weight": NOTHING}, where="w")
    with pytest.raises(WeightsError, match=f"{lost.removeprefix(prefix)} is missing"):
        identify(found.arrays, name_hint="w")


def test_a_smaller_network_is_not_found_within_a_larger_one():
    """B1 has all the names of B0, and more of its stages."""
    arrays = arrays_of("b1", "timm", prefix="net.")
    found = find_network(arrays, where="w")
    assert len(found.arrays) == len(arrays)
    del arrays["net.blocks.6.1.bn1.weight"]
    with pytest.raises(WeightsError, match=r"blocks\.6\.1\.bn1.weight is missing"):
        identify(find_network(arrays, where="w").arrays, name_hint="w")


@pytest.mark.parametrize("prefixes", [("model.", "ema_model."), ("net.", "model_ema.module."), ("", "ema.")])
def test_averaged_weights_are_taken_and_the_others_named(prefixes):
    plain, averaged = prefixes
    arrays = arrays_of("b0", "timm", prefix=plain)
    arrays |= arrays_of("b0", "timm", prefix=averaged, value=np.float32(1))
    found = find_network(arrays, where="w")
    assert {float(array.flat[0]) for array in found.arrays.values()} == {1}
    assert found.notes == (
        f"the network is under {averaged} (averaged weights)",
        f"not used: another network under {plain or 'no prefix'}",
    )


def test_of_two_networks_alike_none_is_guessed():
    arrays = arrays_of("b0", "timm", prefix="student.") | arrays_of("b0", "timm", prefix="teacher.")
    with pytest.raises(WeightsError, match=r"holds several, under student\. and teacher\.; save the state_dict\(\) of"):
        find_network(arrays, where="w")
    # The one with the usual name is the classifier, whatever else is there.
    found = find_network(arrays_of("b0", "timm") | arrays_of("b0", "timm", prefix="teacher."), where="w")
    assert found.notes == ("not used: another network under teacher.",)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "scheme, own, name",
    [
        ("timm", "classifier", "classifier.1"),
        ("torchvision", "classifier.1", "classifier"),
        ("lukemelas", "_fc", "_fc.0"),
    ],
)
def test_a_linear_layer_in_a_sequence_is_the_classifier(scheme, own, name, bias):
    arrays = arrays_of("b0", scheme, prefix="net.")
    arrays[f"net.{name}.weight"] = arrays.pop(f"net.{own}.weight") + 1
    vector = arrays.pop(f"net.{own}.bias") + 2
    arrays |= {f"net.{name}.bias": vector} if bias else {}
    found = find_network(arrays, where="w")
    assert found.arrays[f"{own}.weight"].all()
    assert found.arrays[f"{own}.bias"].tolist() == [2 if bias else 0] * 7
    assert f"{name}.weight is the classifier: a linear layer on the pooled features" in found.notes


def test_a_head_that_is_no_single_linear_layer_is_another_head():
    arrays = arrays_of("b0", "timm", num_classes=0)
    arrays |= {f"classifier.{i}.weight": np.zeros((7, 7), np.float32) for i in (1, 4)}
    found = find_network(arrays, where="w")
    assert identify(found.arrays, name_hint="efficientnet_b0")[1].num_classes == 0
    assert found.notes == ("left out, as not part of the network: classifier.1.weight, classifier.4.weight",)


@pytest.mark.parametrize("head", ["head", "net.head"])
def test_a_head_elsewhere_is_taken_by_its_name_alone(head):
    arrays = arrays_of("b0", "timm", prefix="net.backbone.", num_classes=0)
    arrays |= {"net.head.weight": np.ones((7, 1280), np.float32), "net.head.bias": np.ones(7, np.float32)}
    assert len(find_network(arrays, where="w").arrays) == len(arrays) - 2
    if head == "head":
        with pytest.raises(
            WeightsError, match=r"'head' is none; beside the network it has: net\.head\.weight \(7 x 1280\)"
        ):
            find_network(arrays, where="w", head=head)
    else:
        assert find_network(arrays, where="w", head=head).arrays["classifier.weight"].shape == (7, 1280)


def test_a_prefix_for_each_name_takes_no_long_time():
    """A hostile file: the time must grow with the names alone."""
    arrays = {f"{i}.blocks.0.0.conv_dw.weight": NOTHING for i in range(20_000)}
    assert find_network(arrays, where="w").arrays
