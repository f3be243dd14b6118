"""Answers in the image on the command line: counts, labels for the next fit, and what is refused by name."""

import json
import shutil

import numpy as np
import pytest
from annotated_sets import TERRAIN, write_coins, write_terrain
from dense_bundles import write_detector, write_segmenter

import effnet
from effnet.data.annotated.read import read_annotated
from effnet.data.datasets import list_source
from effnet.jobs.procedure import Procedure
from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.measurement.speed.timing import Timing
from effnet.system.text import percent

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


def test_the_table_counts_objects_from_the_threshold_on(run, place):
    table = run("predict", "detector", "coins/images/00.jpg").out
    counts = np.bincount(found_in(place)["coins/images/00.jpg"].classes, minlength=2)
    assert ", ".join(f"{n} {name}" for n, name in zip(counts, ("button", "coin"), strict=True) if n) in table
    assert "no objects" in run("predict", "detector", "coins/images/00.jpg", "--threshold", "0.999").out


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


def test_an_export_is_checked_on_images_of_the_inputs_sides(run, place, tmp_path):
    """The input of these bundles is no square."""
    for name in ("detector", "segmenter"):
        ran = run("export", name, "--to", "onnx", "--out", tmp_path / name)
        assert ran.code == 0, ran
        assert "100.0% of the answers on 64 random images are the same" in ran.out


def test_written_masks_are_annotations_again(run, place, tmp_path):
    """What predict writes as masks is read by fit, with the names of the classes."""
    shutil.copytree(place / "terrain" / "images", tmp_path / "images")
    run("predict", "segmenter", tmp_path / "images", "--format", "png", "--out", tmp_path / "masks")
    again = list_source(tmp_path)
    assert (again.label_kind.task, again.class_names) == ("segmentation", tuple(TERRAIN))


def test_a_table_names_images_without_objects(run, tmp_path):
    ran = run("predict", "detector", "coins/images/00.jpg", "--format", "csv", "--threshold", "0.999")
    assert ran.out.splitlines()[1:] == ["coins/images/00.jpg,,,,,,"]


@pytest.mark.parametrize(
    "name, data, column, key", [("detector", "coins", " AP ", "ap"), ("segmenter", "terrain", " mIoU ", "miou")]
)
def test_bench_scores_exports_by_the_figure_of_their_task(run, name, data, column, key):
    quick = Procedure(stopwatch=Stopwatch(once=measured_at_once))
    ran = run("bench", name, "--runtimes", "onnxruntime", "--data", data, "--format", "json", procedure=quick)
    found = json.loads(ran.out)
    scored = json.loads(run("evaluate", name, data, "--format", "json").out)
    assert [row["accuracy"] for row in found["rows"]] == [scored[key]]
    assert found["rows"][0]["scored"] == scored["images"]
    assert found["figure"] == column.strip()
    assert found["outside_ms"] > 0
    ran = run("bench", name, "--runtimes", "onnxruntime", "--data", data, procedure=quick)
    assert column in ran.out
    assert "accuracy" not in ran.out
    assert f"{percent(scored[key])}" in ran.out
    assert "beside these latencies, what follows the network takes" in ran.out


def measured_at_once(path, *, threads, batch, rounds, seconds):
    fields = {"p50_ms": 2.0, "p95_ms": 3.0, "rounds_ms": (2.0,), "runs": 20, "load_ms": 5.0, "memory_mb": 7.0}
    return Timing(**fields, size_mb=1.0, threads=threads, batch=batch)


@pytest.mark.parametrize(
    "words, message",
    [
        (("predict", "detector", "coins/images", "--out", "x"), "--out takes json, csv, coco, yolo, not a table"),
        (("predict", "detector", "coins/images", "--format", "yolo"), "give their folder, --out DIR"),
        (("predict", "detector", "coins/images", "--format", "png"), "must be one of table, json, csv, coco, yolo"),
        (("predict", "segmenter", "terrain/images", "--format", "coco"), "must be one of table, json, csv, png"),
        (("explain", "segmenter", "terrain/images"), "`effnet predict --draw DIR` draws it"),
        (("explain", "detector", "coins/images", "--nearest", "x.npz"), "similar images are found by the embeddings"),
        (("explain", "detector", "coins/images", "--output", "coyn"), "must be a class of the bundle; got 'coyn'"),
        (("data", "shard", "coins", "shards"), "shards hold classes or several outputs; these data are for detection"),
        (("train", "coins", "--model", "segmenter", "--out", "y"), "the task segmentation needs masks"),
    ],
)
def test_what_they_cannot_do_is_refused(run, words, message):
    ran = run(*words)
    assert ran.code in (1, 2), ran
    assert message in " ".join(ran.err.split())
