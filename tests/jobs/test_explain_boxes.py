"""Where a detector looked for a box: what its score loses if parts of the image are covered."""

import dataclasses

import numpy as np
import pytest
from annotated_sets import write_coins
from decoders import NETWORKS, config_of, small
from dense_bundles import write_detector

import effnet
from effnet.jobs.explain.boxes import tiles_of, where_it_looked
from effnet.tasks.boxes.points import points

pytestmark = pytest.mark.usefixtures("one_thread")

HEIGHT, WIDTH, TILE = 96, 128, 8
# What the made-up detector looks at: an object, and a sign of it far away.
OBJECT, SIGN = (slice(40, 56), slice(48, 64)), (slice(80, 88), slice(112, 120))


@pytest.fixture(scope="module")
def config():
    spec = dataclasses.replace(small(NETWORKS["points"]), resolution=WIDTH, height=HEIGHT)
    return dataclasses.replace(config_of(spec), threshold=0.3)


@pytest.fixture
def image():
    """Grey, with a light object and a light sign."""
    found = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    found[OBJECT] = found[SIGN] = 255
    return found


class MadeUp:
    """A detector of one object at the place nearest to its middle; `strays` lets its box move once the sign is gone."""

    def __init__(self, config, *, label=2, strays=False):
        self.outputs, self.label, self.strays, self.batches = config.file_outputs, label, strays, []
        centres = points(HEIGHT, WIDTH).centres
        self.place = int(np.square(centres - [56, 48]).sum(1).argmin())

    def __call__(self, images):
        self.batches.append(len(images))
        boxes, scores = (np.zeros((len(images), *output.shape), np.float32) for output in self.outputs)
        scores -= 9
        light = [images[:, rows, columns].mean((1, 2, 3)) / 255 for rows, columns in (OBJECT, SIGN)]
        scores[:, self.place, self.label] = -4 + 5 * light[0] + (0 if self.strays else light[1])
        if self.strays:
            boxes[light[1] < 0.9, self.place] = 2.5
        return np.concatenate([boxes.reshape(len(images), -1), scores.reshape(len(images), -1)], axis=1)


def tiles(place):
    found = np.zeros((HEIGHT // TILE, WIDTH // TILE), bool)
    found[tuple(slice(each.start // TILE, each.stop // TILE) for each in place)] = True
    return found


def near(marked):
    """Return the tiles that one window covers together with a marked one."""
    found = np.zeros_like(marked)
    for row, column in np.argwhere(marked):
        found[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
    return found


def test_the_map_is_largest_on_the_object_and_shows_a_sign_that_is_far_from_it(config, image):
    made = MadeUp(config)
    found = where_it_looked(made, image, config)
    assert found.map.shape == tiles_of((HEIGHT, WIDTH)) == (12, 16)
    assert found.label == 2
    assert found.score == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)
    object_, sign = tiles(OBJECT), tiles(SIGN)
    assert object_[np.unravel_index(found.map.argmax(), found.map.shape)]
    assert found.map[sign].min() > 0.02
    assert found.map[object_].min() > found.map[sign].max()
    np.testing.assert_allclose(found.map[~near(object_ | sign)], 0, atol=1e-6)
    assert sum(made.batches) == 1 + 11 * 15


def test_a_box_that_moves_away_counts_as_lost(config, image):
    found = where_it_looked(MadeUp(config, strays=True), image, config)
    # All of the windows on the sign lose the box, though its score stays.
    np.testing.assert_allclose(found.map[tiles(SIGN)], found.score, rtol=1e-6)


def test_the_box_is_that_of_the_class_asked_for_and_above_the_threshold(config, image):
    assert where_it_looked(MadeUp(config, label=4), image, config).label == 4
    dark = np.zeros_like(image)
    assert where_it_looked(MadeUp(config), dark, config) is None
    found = where_it_looked(MadeUp(config), dark, config, label=2)
    assert (found.label, found.score) == (2, pytest.approx(1 / (1 + np.exp(4)), rel=1e-4))
    left, top, right, bottom = found.box
    assert left < 56 < right
    assert top < 48 < bottom


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain-boxes")
    write_detector(folder / "detector")
    write_coins(folder / "coins", images=2)
    return folder


def test_the_page_and_the_answer_are_of_the_box_that_predict_finds_first(place, tmp_path):
    paths = sorted((place / "coins" / "images").iterdir())
    found = effnet.explain(place / "detector", paths[:1], out=tmp_path / "page.html")
    (one,), (answer,) = found, effnet.load(place / "detector").predict(paths[0])
    (shown,) = one.shown
    best = int(answer.scores.argmax())
    assert shown.title == ("button", "coin")[answer.classes[best]]
    assert one.answer.score == pytest.approx(float(answer.scores[best]), abs=1e-6)
    # In pixels of the input, 128 of the image's 160.
    clipped = np.clip(np.array(shown.box) * 160 / 128, 0, [160, 120, 160, 120])
    np.testing.assert_allclose(clipped, answer.boxes[best], atol=1e-3)
    text = (tmp_path / "page.html").read_text()
    assert text.count("data:image/jpeg;base64,") == 2
    assert "12 x 16 places" in text
    assert "before softmax" not in text


def test_an_image_without_objects_has_no_map_and_says_so(place, tmp_path, run_cli):
    from effnet.bundle.config import read_config, read_digests, write_config, write_digests

    folder, digests = place / "detector", read_digests(place / "detector")
    config = read_config(folder)
    try:
        write_config(dataclasses.replace(config, threshold=0.999), folder)
        write_digests(folder, digests)
        ran = run_cli("explain", folder, place / "coins" / "images" / "00.jpg", "--out", tmp_path / "page.html")
        assert ran.code == 0
        assert "no objects" in ran.out
        assert "No object is found in it" in (tmp_path / "page.html").read_text()
    finally:
        write_config(config, folder)
        write_digests(folder, digests)
