"""State dicts of other projects load into our networks; `tests/peers` compares the outputs with theirs."""

import dataclasses

import pytest
import torch
from bundles import make_bundle

import effnet
from effnet.bundle.weights import load_module, state_arrays
from effnet.errors import WeightsError
from effnet.weights.schemes import from_effnet

pytestmark = pytest.mark.usefixtures("one_thread")
SPEC = dataclasses.replace(effnet.scale("b0", width=0.25), num_classes=3)  # the layers of B0, narrow


@pytest.fixture(scope="module")
def donor():
    return effnet.build(SPEC, seed=7)


@pytest.mark.parametrize("scheme", ["effnet", "timm", "keras"])
def test_a_state_dict_of_any_scheme_and_depth_is_recognised(donor, scheme):
    arrays = from_effnet(state_arrays(donor), SPEC, scheme=scheme)
    states = [arrays]
    if scheme != "keras":
        tensors = {f"net.{name}": torch.from_numpy(array) for name, array in arrays.items()}
        states.append({"epoch": 3, "state_dict": tensors, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}})
    for state in states:
        model = effnet.build(SPEC)
        assert effnet.load_state_dict(model, state)[0] == f"the names are those of {scheme}"
        for name, tensor in donor.state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor), name


def test_half_precision_and_files_load(donor, tmp_path):
    model = effnet.build(SPEC)
    effnet.load_state_dict(model, {name: tensor.half() for name, tensor in donor.state_dict().items() if tensor.ndim})
    assert torch.equal(model.stem.conv.weight, donor.stem.conv.weight.half().float())
    torch.save({"model": donor.state_dict(), "epoch": 1}, tmp_path / "last.pt")
    notes = effnet.load_state_dict(model, tmp_path / "last.pt")
    assert "the network is under model." in notes
    assert torch.equal(model.stem.conv.weight, donor.stem.conv.weight)


def test_a_bundle_brings_its_preprocessing_and_must_compute_alike(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    own = load_module(folder)
    model = effnet.build(own.spec)
    assert effnet.load_state_dict(model, folder) == ()
    assert model.preprocess == own.preprocess
    assert torch.equal(model.classifier.weight, own.classifier.weight)
    other = effnet.build(dataclasses.replace(own.spec, activation="relu"))
    with pytest.raises(WeightsError, match="network with activation 'silu'; the model has 'relu'"):
        effnet.load_state_dict(other, folder)
    with pytest.raises(WeightsError, match="there is no such file"):
        effnet.load_state_dict(model, tmp_path / "absent")


def test_what_would_compute_something_else_is_refused_and_changes_nothing(donor):
    b0, spec = (effnet.get_spec(name, num_classes=3) for name in ("b0", "torchvision/efficientnet_b0"))
    arrays = from_effnet(state_arrays(effnet.build(spec, seed=1)), spec, scheme="torchvision")
    model = effnet.build(b0, seed=2)
    before = model.stem.conv.weight.clone()
    with pytest.raises(WeightsError, match=r"padding 'symmetric' and epsilon 1e-05; the model has 'same' and 0\.001"):
        effnet.load_state_dict(model, arrays)
    for state, message in (
        (effnet.build("b1", seed=0).state_dict(), "does not hold this network|has 1,000 classes"),
        ({}, "must be those of one of effnet, timm"),
        ({"a": 1}, "must be those of one of effnet, timm"),
        (effnet.build("b0").state_dict(), r"has 1,000 classes, and the model has 3: .*reset_classifier\(3\)"),
    ):
        with pytest.raises(WeightsError, match=message):
            effnet.load_state_dict(model, state)
    assert torch.equal(model.stem.conv.weight, before)
    with pytest.raises(WeightsError, match=r"must be a network of effnet.* got Linear"):
        effnet.load_state_dict(torch.nn.Linear(1, 1), donor.state_dict())


def test_a_network_without_a_classifier_leaves_it_out(donor):
    model = effnet.create_model(SPEC, num_classes=0)
    assert "the classifier is left out, as the model has none" in effnet.load_state_dict(model, donor.state_dict())
    assert torch.equal(model.stem.conv.weight, donor.stem.conv.weight)
    headless = {name: tensor for name, tensor in donor.state_dict().items() if not name.startswith("classifier")}
    with pytest.raises(WeightsError, match="has 0 classes, and the model has 3"):
        effnet.load_state_dict(effnet.build(SPEC), headless)
