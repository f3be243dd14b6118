"""Arrays and the items of torch's data sets become data sets of effnet, with the user's classes in the user's order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effnet.data.datasets import Dataset, load_image, read_dataset
from effnet.data.inspection.inspect import inspect_and_join
from effnet.data.inspection.leaks import fingerprint_of
from effnet.errors import DataError, ImageError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 6, 7, 3), dtype=np.uint8)
LABELS = np.arange(40) % 4
NAMES = ("zebra", "ant", "moth", "bee")


class Items(torch.utils.data.Dataset):
    """The images as torchvision's data sets give them, with a transform."""

    def __init__(self, transform, labels=LABELS):
        self.transform, self.labels = transform, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(IMAGES[index])), self.labels[index]


def seen(dataset):
    """Return the images and class names of a data set by the bytes of the image."""
    return {
        load_image(split, index, channels=dataset.channels).tobytes(): dataset.class_names[split.labels[index]]
        for split in (dataset.train, dataset.val, dataset.test)
        for index in range(len(split))
    }


def test_arrays_keep_their_pixels_and_their_classes_in_order():
    dataset = Dataset.from_arrays(IMAGES, LABELS, class_names=NAMES)
    assert dataset.class_names == NAMES
    assert (dataset.channels, len(dataset.train), len(dataset.val), len(dataset.test)) == (3, 24, 8, 8)
    assert seen(dataset) == {image.tobytes(): NAMES[label] for image, label in zip(IMAGES, LABELS, strict=True)}
    assert "zebra" not in repr(dataset.train.sources[0])
    assert len(repr(dataset.train.sources[0])) < 200


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 11), min_size=40, max_size=40).filter(lambda labels: set(labels) >= {*range(12)}))
def test_numbers_are_classes_in_their_order(labels):
    """As texts they would be 0, 1, 10, 11, 2."""
    doubled = np.concatenate([labels, labels])
    dataset = Dataset.from_arrays(
        np.concatenate([IMAGES, 255 - IMAGES]), doubled, val=(IMAGES, labels), test=(IMAGES, labels)
    )
    assert dataset.class_names == tuple(map(str, range(12)))
    assert dataset.train.labels.tolist() == doubled.tolist()
    assert dataset.test.labels.tolist() == labels


def test_images_of_several_sizes_and_names_as_labels():
    images = [image[: 3 + i % 3] for i, image in enumerate(IMAGES)]
    dataset = Dataset.from_arrays(images, [NAMES[label] for label in LABELS])
    assert dataset.class_names == tuple(sorted(NAMES))
    assert set(seen(dataset)) == {np.ascontiguousarray(image).tobytes() for image in images}


def to_tensor(image):
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


@pytest.mark.parametrize(
    "transform", [lambda image: image, np.asarray, to_tensor, lambda image: to_tensor(image).float() / 255]
)
def test_items_of_every_kind_have_the_pixels_of_the_arrays(transform):
    dataset = Dataset.from_torch(Items(transform), class_names=NAMES)
    assert seen(dataset) == seen(Dataset.from_arrays(IMAGES, LABELS, class_names=NAMES))
    given = Dataset.from_torch(Items(transform), val=Items(transform), test=Items(transform))
    assert [len(split) for split in (given.train, given.val, given.test)] == [40, 40, 40]
    assert read_dataset(Items(transform)).class_names == ("0", "1", "2", "3")


def test_torchvisions_classes_and_targets_are_used_if_the_items_agree():
    items = Items(np.asarray)
    items.classes, items.targets = list(NAMES), torch.from_numpy(LABELS)
    assert seen(Dataset.from_torch(items)) == seen(Dataset.from_arrays(IMAGES, LABELS, class_names=NAMES))
    items.targets = LABELS[::-1].copy()  # of other items
    assert seen(Dataset.from_torch(items)) == seen(Dataset.from_arrays(IMAGES, LABELS, class_names=NAMES))


def test_copies_are_kept_on_one_side_as_those_of_files_are():
    images, labels = np.concatenate([IMAGES, IMAGES]), np.concatenate([LABELS, LABELS])
    dataset, report = inspect_and_join(Dataset.from_arrays(images, labels))
    assert len(seen(dataset)) == 40
    assert not report.across_splits
    given = Dataset.from_arrays(IMAGES, LABELS, val=(IMAGES[:8], LABELS[:8]), test=(IMAGES[8:], LABELS[8:]))
    assert len(inspect_and_join(given)[1].leaks.names) == 32


def test_a_name_with_a_point_is_no_suffix():
    dataset = Dataset.from_arrays(IMAGES, LABELS, name="cats.v2")
    assert dataset.name == "cats.v2"
    assert inspect_and_join(dataset)[1].wrong_suffixes == ()


def test_other_pixels_are_other_data():
    changed = IMAGES.copy()
    changed[7, 2, 3, 1] ^= 1
    first, again, other = (
        fingerprint_of(Dataset.from_arrays(x, LABELS).listed) for x in (IMAGES, IMAGES.copy(), changed)
    )
    assert first == again != other


def test_an_item_that_cannot_be_read_is_named():
    def fail(image):
        if np.asarray(image)[0, 0, 0] == IMAGES[7, 0, 0, 0]:
            raise OSError("no such sector")
        return image

    with pytest.raises(DataError, match=r"item 7 .* must be \(image, label\); .* OSError: no such sector"):
        Dataset.from_torch(Items(fail))
    items = Items(fail)
    items.targets = LABELS  # so that not every item is read for its label
    dataset = Dataset.from_torch(items)
    _, report = inspect_and_join(dataset)
    assert any(skipped.path == "items[7]" and "no such sector" in skipped.reason for skipped in report.unreadable)
    split, index = next(
        (s, i) for s in (dataset.train, dataset.val, dataset.test) for i in range(len(s)) if s.sources[i].index == 7
    )
    with pytest.raises(ImageError, match=r"items\[7\]: OSError: no such sector"):
        load_image(split, index, channels=3)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Dataset.from_arrays(IMAGES / 255, LABELS), r"image 0 is float64 \[6, 7, 3\]: convert it"),
        (lambda: Dataset.from_arrays(IMAGES[:, 0, 0], LABELS), r"image 0 is uint8 \[3\]"),
        (lambda: Dataset.from_arrays(IMAGES, LABELS[1:]), "got 40 images and 39 labels"),
        (lambda: Dataset.from_arrays(IMAGES, LABELS, class_names=NAMES[1:]), "one of the 3 class names.*got 3"),
        (
            lambda: Dataset.from_arrays(IMAGES, LABELS + 10**9),
            "classes from 0; got 1000000003 among 40",
        ),
        (lambda: Dataset.from_arrays(IMAGES, LABELS, seed=-1), "seed"),
        (lambda: Dataset.from_arrays(IMAGES, LABELS - 1), "or its number from 0; got -1"),
        (lambda: Dataset.from_arrays(IMAGES, LABELS / 1), "or its number from 0; got 0.0"),
        (lambda: Dataset.from_arrays(IMAGES, LABELS, class_names=("a", "b", "c", "a")), "differ from each other"),
        (lambda: Dataset.from_arrays(IMAGES, LABELS, class_names=(*NAMES, "fly")), "have none there: fly"),
        (lambda: Dataset.from_arrays(IMAGES[:0], LABELS[:0]), "must hold images"),
        (lambda: Dataset.from_torch(Items(lambda image: to_tensor(image).float())), "leave normalisation out"),
        (lambda: Dataset.from_torch(Items(lambda image: RNG.integers(0, 256, (4, 4), np.uint8))), "augmentation out"),
        (lambda: Dataset.from_torch(Items(lambda image: None)), "image 0 must be a Pillow image"),
        (lambda: read_dataset(7), "DATA must be a path.*got int"),
        (lambda: read_dataset(Dataset.from_arrays(IMAGES, LABELS), group_by="x"), "group_by must be that"),
    ],
)
def test_what_does_not_match_is_refused(make, message):
    with pytest.raises(DataError, match=message):
        make()
