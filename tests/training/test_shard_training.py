"""Training on shards: the same weights as on the same images in memory."""

import dataclasses

import pytest
import torch

from effnet import get_spec
from effnet.arch.scale import scale, with_total_stride
from effnet.data.datasets import Split, load_image, read_dataset
from effnet.data.preprocess import Preprocess
from effnet.data.shards.write import write_shards
from effnet.nn.network import build
from effnet.training.loop import train
from effnet.training.recipe.schema import Recipe, Train

pytestmark = pytest.mark.usefixtures("one_thread")


def in_memory(split):
    return Split(sources=[load_image(split, i, channels=1) for i in range(len(split))], labels=split.labels)


def test_shards_train_the_same_weights_as_images_in_memory(tiny_images, tmp_path):
    write_shards(read_dataset(tiny_images), tmp_path / "shards", per_shard=9)
    stored = read_dataset(tmp_path / "shards")
    kept = dataclasses.replace(stored, **{name: in_memory(getattr(stored, name)) for name in ("train", "val", "test")})
    spec = with_total_stride(scale(get_spec("b0", num_classes=3, in_channels=1), phi=-20, resolution=8), 8)
    recipe = Recipe(train=Train(epochs=2, batch_size=8))
    preprocess = Preprocess(resolution=8, mean=(0.5,), std=(0.25,))
    found = []
    for name, dataset in (("stored", stored), ("kept", kept)):
        model = build(dataclasses.replace(spec, stages=spec.stages[:3]), seed=0)
        found.append(train(model, dataset, recipe, preprocess, folder=tmp_path / name).model.state_dict())
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name
