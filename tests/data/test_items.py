"""A split is a map-style data set for torch's own tools."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset, random_split

import effnet
from effnet.data.preprocess import Preprocess, normalize
from effnet.data.view.evaluation import eval_view_at


@pytest.fixture(scope="module")
def split(photos):
    return effnet.read_dataset(photos).train


def test_a_loader_of_processes_gives_the_evaluation_views(split):
    preprocess = Preprocess(resolution=24)
    items = pickle.loads(pickle.dumps(split.to_torch(effnet.transforms(preprocess))))
    loader = DataLoader(items, batch_size=16, num_workers=1)
    images, labels = zip(*loader, strict=True)
    assert torch.cat(labels).tolist() == split.labels.tolist()
    expected = np.stack([normalize(eval_view_at(split, i, preprocess), preprocess) for i in range(len(split))])
    assert torch.equal(torch.cat(images).permute(0, 2, 3, 1), torch.from_numpy(expected))


def test_other_transforms_get_pillow_images(split):
    image, label = split.to_torch()[3]
    assert (image.mode, image.size, label) == ("RGB", (64, 64), split.labels[3])
    assert np.array_equal(image, Image.open(split.sources[3]))
    assert split.to_torch(channels=1)[0][0].mode == "L"
    assert split.to_torch(np.asarray)[0][0].shape == (64, 64, 3)
    part = Subset(split.to_torch(lambda image: image.size), [5, 1])
    assert [part[i] for i in range(2)] == [((64, 64), split.labels[i]) for i in (5, 1)]
    assert sum(map(len, random_split(split.to_torch(), [0.5, 0.5]))) == len(split)
    assert len(list(split.to_torch(np.shape))) == len(split)


def test_images_in_memory_fit_the_transform():
    digits = effnet.read_dataset("digits").test
    for channels in (1, 3):
        preprocess = Preprocess(resolution=8, crop=1.0, mean=(0.5,) * channels, std=(0.5,) * channels)
        for train in (False, True):
            image, _ = digits.to_torch(effnet.transforms(preprocess, train=train))[0]
            assert image.shape == (channels, 8, 8)
    arrays = effnet.Dataset.from_arrays(np.stack(digits.sources), digits.labels)
    assert arrays.train.to_torch(effnet.transforms(preprocess, train=True))[0][0].shape == (3, 8, 8)
