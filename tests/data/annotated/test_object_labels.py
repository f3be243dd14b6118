"""Annotated objects as labels: nothing is lost on the way to targets and back, and what cannot be learnt is said."""

import numpy as np
import pytest
from detected import random_set, truth

from effnet.data.annotated.objects import (
    CLASS,
    COLUMNS,
    HEIGHT,
    OBJECTS,
    WIDTH,
    label_of,
    listing_of,
    present,
    to_annotated,
    to_targets,
    to_text,
)
from effnet.data.annotated.read import read_annotated
from effnet.data.annotated.record import AnnotatedSet
from effnet.data.datasets import Dataset, split_listing
from effnet.errors import DataError

NAMES = ("ten", "queen", "ace")


def test_objects_come_back_as_they_were_annotated():
    images, _ = random_set(np.random.default_rng(0), images=30, objects=12, found=1, num_classes=3)
    targets = to_targets([label_of(image, NAMES) for image in images], NAMES)
    assert targets.shape == (30, max(len(image.boxes) for image in images), COLUMNS)
    for image, rows in zip(images, targets, strict=True):
        back = to_annotated(rows, size=(image.width, image.height))
        assert (back.width, back.height) == (400, 300)
        for name in ("boxes", "classes", "crowd", "areas"):
            assert (getattr(back, name) == getattr(image, name)).all(), name


def test_difficult_objects_stay_difficult_and_images_without_objects_have_none():
    image = truth([[1, 2, 30, 40], [5, 5, 9, 9]], [1, 0], difficult=[True, False])
    empty = truth([])
    targets = to_targets([label_of(image, NAMES), label_of(empty, NAMES)], NAMES)
    back = to_annotated(targets[0])
    assert back.difficult.tolist() == [True, False]
    assert not back.crowd.any()
    assert len(present(targets[1])) == 0
    assert to_annotated(targets[1], size=(7, 5)).width == 7
    assert to_text(targets[0], NAMES) == "1 ten, 1 queen"
    assert to_text(targets[1], NAMES) == "no objects"
    assert to_targets([label_of(empty, NAMES)], NAMES).shape == (1, 1, COLUMNS)


def made_set(**parts):
    return AnnotatedSet(format="table", parts=parts, class_names=NAMES)


def test_images_are_split_by_their_classes_and_absent_ones_are_named():
    images = tuple(truth([[0, 0, 9, 9]], [number % 2]) for number in range(40))
    dataset = split_listing(listing_of(made_set(**{"": images}), name="made"), seed=0)
    assert dataset.task == "detection"
    assert dataset.class_names == NAMES
    for split in (dataset.val, dataset.test):
        assert len(split) == 6
        assert np.bincount(present(split.labels.reshape(-1, COLUMNS))[:, CLASS].astype(int)).tolist() == [3, 3]
    assert "These classes have no objects in train and cannot be learnt: ace." in dataset.notes
    with pytest.raises(DataError, match="strict needs every class to have objects in train"):
        split_listing(listing_of(made_set(**{"": images}), name="made"), seed=0, strict=True)
    with pytest.raises(DataError, match="images to train on must have objects"):
        split_listing(listing_of(made_set(train=(truth([]),), val=images, test=images), name="made"), seed=0)


def test_a_program_gives_boxes_in_pixels():
    image = np.zeros((30, 40, 3), np.uint8)
    label = {"size": (40, 30), "boxes": [[1, 2, 11.5, 12]], "labels": ["queen"]}
    dataset = Dataset.from_arrays(
        [image] * 3, [label, label, {**label, "boxes": [], "labels": []}], val=([image], [label]),
        test=([image], [label]), class_names=NAMES, label_kind=OBJECTS,
    )  # fmt: skip
    assert dataset.train.labels.shape == (3, 1, COLUMNS)
    assert dataset.train.labels[0, 0, [WIDTH, HEIGHT]].tolist() == [40, 30]
    (row,) = present(dataset.test.labels[0])
    assert row[:5].tolist() == [1, 2, 11.5, 12, 1]
    for wrong, said in (
        ({"boxes": []}, "must be {"),
        ({**label, "boxes": [[1, 2, 41, 12]]}, "within the image of 40 x 30"),
        ({**label, "boxes": [[5, 2, 5, 12]]}, "with an area"),
        ({**label, "labels": ["queen", "ten"]}, "as many as labels, 2"),
        ({**label, "labels": ["king"]}, "one of class_names; got king"),
    ):
        with pytest.raises(DataError, match=said):
            OBJECTS.read([[wrong]], NAMES)
    assert OBJECTS.read([[label]], None)[0] == ("queen",)


def test_real_cards_are_a_data_set(shared_data):
    path = shared_data("cards")
    dataset = split_listing(listing_of(read_annotated(str(path)), name="cards", root=str(path)), seed=0)
    assert (len(dataset.train) + len(dataset.val), len(dataset.test)) == (296, 67)
    assert dataset.class_names == ("ace", "jack", "king", "nine", "queen", "ten")
    assert len(present(dataset.test.labels.reshape(-1, COLUMNS))) == 143  # the SOURCE file says so
    assert dataset.channels == 3
