"""predict of detectors and segmenters: every format holds the predictor's answers; what they lack is refused."""

import csv
import io
import json

import numpy as np
import pytest
from annotated_sets import write_coins, write_terrain
from dense_bundles import write_detector, write_segmenter
from PIL import Image

import effnet
from effnet.data.annotated.read import read_annotated

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a detector, a segmenter, and images for both."""
    folder = tmp_path_factory.mktemp("in-images")
    write_detector(folder / "detector")
    write_segmenter(folder / "segmenter")
    write_coins(folder / "coins", images=12)
    write_terrain(folder / "terrain", images=2)
    return folder


@pytest.fixture
def run(place, run_cli, monkeypatch):
    """Return a runner of the command line within the folder."""
    monkeypatch.chdir(place)
    return run_cli


def found_in(folder):
    paths = sorted((folder / "coins" / "images").iterdir())
    found = effnet.load(folder / "detector").predict(paths)
    return {f"coins/images/{path.name}": one for path, one in zip(paths, found, strict=True)}


def test_rows_hold_the_predictors_objects(run, place):
    rows = list(csv.DictReader(io.StringIO(run("predict", "detector", "coins/images", "--format", "csv").out)))
    expected = [(path, one, i) for path, one in found_in(place).items() for i in range(len(one))]
    assert len(rows) == len(expected) > 10
    for row, (path, one, i) in zip(rows, expected, strict=True):
        assert (row["path"], row["label"]) == (path, ("button", "coin")[one.classes[i]])
        sides = [float(row[side]) for side in ("left", "top", "right", "bottom")]
        np.testing.assert_allclose([float(row["score"]), *sides], [one.scores[i], *one.boxes[i]], atol=1e-3)
    images = json.loads(run("predict", "detector", "coins/images", "--format", "json").out)
    assert [len(image["objects"]) for image in images] == [len(one) for one in found_in(place).values()]


def test_the_table_counts_objects_from_the_threshold_on(run, place):
    table = run("predict", "detector", "coins/images/00.jpg").out
    counts = np.bincount(found_in(place)["coins/images/00.jpg"].classes, minlength=2)
    assert ", ".join(f"{n} {name}" for n, name in zip(counts, ("button", "coin"), strict=True) if n) in table
    assert "no objects" in run("predict", "detector", "coins/images/00.jpg", "--threshold", "0.999").out


def test_coco_rows_take_the_numbers_of_annotations(run, place, tmp_path):
    images = [{"id": 70 + i, "file_name": f"{i:02d}.jpg", "width": 160, "height": 120} for i in range(12)]
    categories = [{"id": 5, "name": "coin"}, {"id": 9, "name": "button"}]
    data = {"images": images, "categories": categories, "annotations": []}
    (tmp_path / "own.json").write_text(json.dumps(data))
    words = ("predict", "detector", "coins/images", "--format", "coco")
    rows = json.loads(run(*words, "--annotations", tmp_path / "own.json").out)
    assert {row["image_id"] for row in rows} <= set(range(70, 82))
    one = found_in(place)["coins/images/01.jpg"]
    own = [row for row in rows if row["image_id"] == 71]
    assert [row["category_id"] for row in own] == [(9, 5)[kind] for kind in one.classes]
    left, top, right, bottom = one.boxes.T
    boxes = np.stack((left, top, right - left, bottom - top), 1)
    np.testing.assert_allclose([row["bbox"] for row in own], boxes, atol=1e-2)


def test_files_are_written_for_each_image(run, place, tmp_path):
    run(
        "predict",
        "detector",
        "coins/images",
        "--format",
        "yolo",
        "--out",
        tmp_path / "made",
        "--draw",
        tmp_path / "drawn",
    )
    assert len(list((tmp_path / "drawn").iterdir())) == 12
    with Image.open(tmp_path / "drawn" / "00.jpg") as drawn:
        assert drawn.width == 320  # enlarged, so that the names can be read
    lines = (tmp_path / "made" / "labels" / "00.txt").read_text().splitlines()
    assert len(lines) == len(found_in(place)["coins/images/00.jpg"])
    run("predict", "segmenter", "terrain/images", "--format", "png", "--out", tmp_path / "masks")
    (found,) = effnet.load(place / "segmenter").predict(place / "terrain" / "images" / "scene0_0.jpg")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "masks" / "scene0_0.png")), found.mask)


def test_written_labels_are_annotations_again(run, place, tmp_path):
    """What predict writes for YOLO is read by fit, as a first guess that a person corrects."""
    (tmp_path / "images").mkdir()
    for path in (place / "coins" / "images").iterdir():
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    run("predict", "detector", tmp_path / "images", "--format", "yolo", "--out", tmp_path)
    again = read_annotated(str(tmp_path))
    assert (again.format, again.class_names, again.findings) == ("yolo", ("button", "coin"), ())
    expected = found_in(place)
    for image in again.images:
        one = expected[f"coins/images/{image.path[-6:]}"]
        assert image.classes.tolist() == one.classes.tolist()
        np.testing.assert_allclose(image.boxes, one.boxes, atol=1e-3)


@pytest.mark.parametrize(
    "words, message",
    [
        (("predict", "detector", "coins/images", "--out", "x"), "--out takes json, csv, coco, yolo, not a table"),
        (("predict", "detector", "coins/images", "--format", "yolo"), "give their folder, --out DIR"),
        (("predict", "detector", "coins/images", "--format", "png"), "must be one of table, json, csv, coco, yolo"),
        (("predict", "segmenter", "terrain/images", "--format", "coco"), "must be one of table, json, csv, png"),
        (("explain", "detector", "coins/images/00.jpg"), "explain shows where a classifier looked"),
        (("data", "shard", "coins", "shards"), "shards hold classes or several outputs; these data are for detection"),
        (("train", "coins", "--epochs", "1", "--out", "y"), "name a bundle or a spec of such a network"),
    ],
)
def test_what_they_cannot_do_is_refused(run, words, message):
    ran = run(*words)
    assert ran.code in (1, 2), ran
    assert message in " ".join(ran.err.split())
