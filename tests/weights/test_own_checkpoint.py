"""Checkpoints of training scripts: the place of their state dict, and their metadata."""

import argparse
import pathlib

import numpy as np
import pytest
import torch

from effnet.arch.catalog import get_spec
from effnet.weights.network_file import read_network
from effnet.weights.readers.files import read_file
from effnet.weights.schemes import foreign_shapes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def state():
    shapes = foreign_shapes(get_spec("b0", num_classes=2), "timm")
    return {key: torch.full(shape, 0.5, dtype=torch.float16) for key, shape in shapes.items()}


def under(prefix, state):
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def averaged(state):
    return {key: tensor / 2 for key, tensor in state.items()}


CASES = {
    "timm": (
        lambda s: {
            "epoch": 3, "arch": "efficientnet_b0", "state_dict": s, "state_dict_ema": averaged(s), "version": 2,
            "optimizer": {"state": {0: {"momentum": torch.ones(2)}}}, "metric": np.float64(77.1),
            "args": argparse.Namespace(model="efficientnet_b0", output=pathlib.Path("x"), lr=0.1),
        },
        0.25, "efficientnet_b0", "state_dict_ema. (averaged weights)",
    ),
    "torchvision": (
        lambda s: {
            "model": s, "optimizer": {}, "lr_scheduler": {}, "epoch": 1, "args": argparse.Namespace(model="b0"),
            "model_ema": {"n_averaged": torch.tensor(3)} | under("module.", averaged(s)),
        },
        0.25, "b0", "model_ema.module. (averaged weights)",
    ),
    "lightning": (
        lambda s: {
            "state_dict": under("model.net.", s) | {"criterion.weight": torch.ones(2)}, "callbacks": {},
            "hyper_parameters": {"model": "tf_efficientnet_b0"}, "pytorch-lightning_version": "2.5", "loops": {},
        },
        0.5, "tf_efficientnet_b0", "state_dict.model.net.",
    ),
    "of one's own": (lambda s: {"net": under("backbone.", s), "acc": 0.9}, 0.5, "", "net.backbone."),
    "deep": (lambda s: {"run": {"best": {"weights": under("module.", s)}}}, 0.5, "", "run.best.weights.module."),
    "averages that are not whole": (
        lambda s: {"state_dict": s, "model_ema": {k: v for k, v in averaged(s).items() if "running" not in k}},
        0.5, "", "state_dict.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("case", CASES)
def test_the_network_of_a_training_scripts_checkpoint(case, state, tmp_path, zipped):
    make, value, model, place = CASES[case]
    torch.save(make(state), tmp_path / "w.ckpt", _use_new_zipfile_serialization=zipped)
    found = read_network(tmp_path / "w.ckpt", entry=None, model="efficientnet_b0")
    assert found.spec == get_spec("efficientnet_b0", num_classes=2)
    assert found.notes[0] == f"the network is under {place}"
    assert {float(array.flat[0]) for array in found.state.values()} == {value}
    assert found.told_model == model


def test_the_name_that_the_script_kept_tells_the_padding(state, tmp_path):
    for model, padding in (("efficientnet_b0", "symmetric"), ("tf_efficientnet_b0", "same")):
        torch.save({"state_dict": state, "args": argparse.Namespace(model=model)}, tmp_path / "model_best.pth.tar")
        found = read_network(tmp_path / "model_best.pth.tar", entry=None)
        assert (found.spec.padding, len(found.notes)) == (padding, 2)
    asked = read_network(tmp_path / "model_best.pth.tar", entry=None, model="efficientnet_b0")
    assert asked.notes[-1].startswith("the checkpoint calls itself tf_efficientnet_b0, whose padding or epsilon differ")


@pytest.mark.parametrize(
    "more, names",
    [
        ({"class_to_idx": {"b": 1, "a": 0, "c": 2}}, ("a", "b", "c")),
        ({"class_to_idx": {"zebra": 0, "ant": 1}}, ("zebra", "ant")),
        ({"hyper_parameters": {"class_names": ["x", "y"]}}, ("x", "y")),
        ({"args": argparse.Namespace(classes=("p", "q"))}, ("p", "q")),
        ({"class_to_idx": {"a": 0, "b": 2}}, ()),  # one has no name
        ({"class_to_idx": {"a": "0"}, "classes": 7}, ()),
        ({"classes": [1, 2]}, ()),
    ],
)
def test_classes_that_a_checkpoint_names_itself(more, names, state, tmp_path):
    torch.save({"state_dict": state} | more, tmp_path / "w.pth")
    assert read_file(tmp_path / "w.pth").told.class_names == names
