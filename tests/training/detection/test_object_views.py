"""Boxes move with the pixels: what is painted in a box is still in it after flips, scales, crops and mosaics."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.data.annotated.objects import CLASS, COLUMNS, CROWD, NORMAL, STATE, present
from effnet.training.detection.views import Views, padded, random_objects

VIEWS = Views(height=64, width=80, fill=(127, 127, 127))
# The colour of each object; nothing else has two equal channels and a third of 255.
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


def painted(seed, *, objects=3, size=(90, 120), least=12):
    """Return an image with rectangles of different colours that do not overlap, and their targets."""
    rng = np.random.default_rng(seed)
    height, width = size
    image, rows = np.full((height, width, 3), 90, np.uint8), []
    strip = width // objects
    for number in range(objects):
        left = number * strip + int(rng.integers(0, strip - least))
        right = int(rng.integers(left + least, (number + 1) * strip + 1))
        top = int(rng.integers(0, height - least))
        bottom = int(rng.integers(top + least, height + 1))
        image[top:bottom, left:right] = COLOURS[number]
        rows.append([left, top, right, bottom, number, NORMAL, (right - left) * (bottom - top), width, height])
    return image, np.array(rows, np.float64)


def bounds(image, colour):
    """Return the box around the pixels that are more of this colour than of any other, None if there are none."""
    like = np.abs(image.astype(int) - colour).max(2) < 100
    if not like.any():
        return None
    rows, columns = np.flatnonzero(like.any(1)), np.flatnonzero(like.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@given(st.integers(0, 10_000), st.sampled_from([(90, 120), (120, 60), (64, 80), (300, 200)]))
@settings(max_examples=60, deadline=None)
def test_boxes_move_with_the_pixels(seed, size):
    image, targets = painted(seed, size=size)
    found, rows = random_objects(VIEWS, 0, lambda _: (image, targets), count=1, rng=np.random.default_rng(seed))
    assert found.shape == (64, 80, 3)
    assert rows.shape[1] == COLUMNS
    for row in rows:
        own = bounds(found, COLOURS[int(row[CLASS])])
        if own is not None and row[STATE] == NORMAL:
            assert np.abs(row[:4] - own).max() <= 1.6
    shown = {number for number in range(3) if bounds(found, COLOURS[number]) is not None}
    assert shown <= set(rows[:, CLASS].astype(int).tolist())


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_view_keeps_an_object_and_has_no_slivers(seed):
    views = dataclasses.replace(VIEWS, scale=(1.5, 3.0))
    image, targets = painted(seed, objects=1)
    _, rows = random_objects(views, 0, lambda _: (image, targets), count=1, rng=np.random.default_rng(seed))
    assert len(rows)
    assert (rows[:, :2] >= 0).all()
    assert (rows[:, 2:4] <= [80, 64]).all()
    sides = rows[:, 2:4] - rows[:, :2]
    assert (sides[rows[:, STATE] == NORMAL] >= 2).all()


def test_objects_of_which_little_is_left_are_ignored_and_those_of_which_nothing_is_left_are_gone():
    image = np.zeros((64, 80, 3), np.uint8)
    boxes = [[0, 0, 30, 30], [30, 0, 80, 30], [79, 63, 80, 64]]
    targets = np.array([[*box, 0, NORMAL, 1, 80, 64] for box in boxes], np.float64)
    views = dataclasses.replace(VIEWS, scale=(2.0, 2.0), flip=False)
    states = []
    for seed in range(60):
        _, rows = random_objects(views, 0, lambda _: (image, targets), count=1, rng=np.random.default_rng(seed))
        sides = rows[:, 2:4] - rows[:, :2]
        assert (sides > 0).all()
        assert (rows[(sides < 2).any(1), STATE] == CROWD).all()
        states += rows[:, STATE].tolist()
    assert {NORMAL, CROWD} == set(states)


def test_views_depend_on_the_generator_alone():
    image, targets = painted(1)
    views = dataclasses.replace(VIEWS, mosaic=0.5)

    def drawn(seed):
        return random_objects(views, 0, lambda _: (image, targets), count=5, rng=np.random.default_rng(seed))

    for seed in range(6):
        (one, rows), (other, again) = drawn(seed), drawn(seed)
        assert (one == other).all()
        assert (rows == again).all()
    assert len({drawn(seed)[0].tobytes() for seed in range(6)}) == 6
    assert (targets == painted(1)[1]).all()  # nor do they change what they are made of


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_mosaic_shows_four_images_with_their_boxes(seed):
    views = dataclasses.replace(VIEWS, height=128, width=160, mosaic=0.999, scale=(0.8, 1.2))
    images = [painted(seed + number, objects=1, least=30) for number in range(3)]
    for number, (image, rows) in enumerate(images):
        image[(image == COLOURS[0]).all(2)] = COLOURS[number]
        rows[:, CLASS] = number
    found, rows = random_objects(views, 0, lambda place: images[place], count=3, rng=np.random.default_rng(seed))
    assert found.shape == (128, 160, 3)
    for number in range(3):
        own, around = rows[rows[:, CLASS] == number], bounds(found, COLOURS[number])
        if around is not None:
            joined = np.concatenate((own[:, :2].min(0), own[:, 2:4].max(0)))
            assert np.abs(joined - around).max() <= 1.6


def test_an_image_without_objects_is_a_view_too():
    image, none = np.zeros((30, 40, 3), np.uint8), np.full((1, COLUMNS), -1.0)
    found, rows = random_objects(VIEWS, 0, lambda _: (image, none), count=1, rng=np.random.default_rng(0))
    assert found.shape == (64, 80, 3)
    assert rows.shape == (0, COLUMNS)
    batch = padded([rows, painted(0)[1]])
    assert batch.shape == (2, 3, COLUMNS)
    assert len(present(batch[0])) == 0
    assert len(present(batch[1])) == 3


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1)])
def test_images_of_any_shape_have_views(size):
    image = np.zeros((*size, 3), np.uint8)
    targets = np.array([[0, 0, size[1], size[0], 0, NORMAL, 1, size[1], size[0]]], np.float64)
    for seed in range(20):
        found, rows = random_objects(VIEWS, 0, lambda _: (image, targets), count=1, rng=np.random.default_rng(seed))
        assert found.shape == (64, 80, 3)
        assert np.isfinite(rows).all()
