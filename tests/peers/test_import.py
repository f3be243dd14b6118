"""Checkpoints that timm and torchvision write become bundles that give the same logits, their classes in order."""

import argparse
import pathlib

import parity
import pytest
import torch
from PIL import Image

import effnet
from effnet.bundle.config import read_config
from effnet.weights.own_classes import read_classes

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = [f"class {letter}" for letter in "abcdefg"]


class Trainer(torch.nn.Module):
    """A network as a trainer holds it, with a loss of its own weights."""

    def __init__(self, network):
        super().__init__()
        self.net = torch.nn.ModuleDict({"backbone": network})
        self.criterion = torch.nn.CrossEntropyLoss(weight=torch.ones(7))


def make_peer(make):
    peer = parity.bare(make)
    parity.draw_weights_(peer)
    for module in peer.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(module.num_features))
    return peer


@torch.no_grad()
def assert_same_logits(bundle, peer, *, side=32):
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    expected = peer.eval()(images)
    assert expected.std() > 0.01
    assert torch.allclose(effnet.load_module(bundle)(images), expected, atol=1e-4 * float(expected.abs().max()))


def test_a_checkpoint_of_timms_saver(timm, tmp_path):
    from timm.utils import CheckpointSaver

    peer = make_peer(lambda: timm.create_model("efficientnet_b0", num_classes=7))
    model = Trainer(peer)
    args = argparse.Namespace(model="efficientnet_b0", output=pathlib.Path("x"))
    saver = CheckpointSaver(model, torch.optim.SGD(peer.parameters(), lr=0.1), args=args, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(3, metric=61.2)
    found = effnet.import_checkpoint(
        tmp_path / "last.pth.tar", classes=NAMES, preprocess={"resolution": 32}, out=tmp_path / "out"
    )
    assert_same_logits(tmp_path / "out", peer)
    config = read_config(tmp_path / "out")
    assert (config.arch.name, config.class_names) == ("efficientnet_b0", tuple(NAMES))
    assert found.notes[0] == "the network is under state_dict.net.backbone."
    assert found.notes[1].startswith("left out, as not part of the network: criterion.weight, ")


def test_a_checkpoint_of_torchvisions_script_with_averaged_weights(torchvision, tmp_path):
    last, peer = (make_peer(lambda: torchvision.models.efficientnet_b0(num_classes=7)) for _ in range(2))
    peer.classifier[1].weight.data.mul_(2)
    averaged = torch.optim.swa_utils.AveragedModel(peer)
    content = {"model": last.state_dict(), "model_ema": averaged.state_dict(), "epoch": 3}
    torch.save(content | {"args": argparse.Namespace(model="efficientnet_b0")}, tmp_path / "checkpoint.pth")
    found = effnet.import_checkpoint(
        tmp_path / "checkpoint.pth", classes=NAMES, preprocess={"resolution": 32}, out=tmp_path / "out"
    )
    assert_same_logits(tmp_path / "out", peer)
    assert found.notes[:2] == (
        "the network is under model_ema.module. (averaged weights)",
        "not used: another network under model.",
    )


def test_the_orders_of_data_are_those_of_their_readers(timm, torchvision, tmp_path):
    from timm.data.readers.reader_image_folder import find_images_and_targets
    from torchvision.datasets.folder import find_classes

    for name in ("class10", "class2", "Zebra", "ant", "class1", "A1b10", "a1B9"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "x.png")
    expected = {"imagefolder": find_classes(str(tmp_path))[1], "timm": find_images_and_targets(str(tmp_path))[1]}
    for order, index in expected.items():
        names, _ = read_classes(tmp_path, told=(), count=7, where="w", order=order)
        assert names == tuple(sorted(index, key=index.get)), order
