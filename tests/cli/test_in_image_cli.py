"""Answers in the image on the command line: counts, labels for the next fit, and what is refused by name."""

import json
import shutil

import numpy as np
import pytest
from annotated_sets import write_coins, write_terrain
from dense_bundles import write_detector, write_segmenter
from devices import timing

import effnet
from effnet.bundle.config import read_config
from effnet.bundle.weights import load_state
from effnet.data.annotated.read import read_annotated
from effnet.jobs.procedure import Procedure
from effnet.measurement.evaluate import evaluate
from effnet.measurement.stopwatch import Stopwatch
from effnet.runtimes.write import write_export
from effnet.weights.labels import choose_images

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
        (("train", "coins", "--epochs", "1", "--out", "y"), "name a bundle or a spec of such a network"),
    ],
)
def test_what_they_cannot_do_is_refused(run, words, message):
    ran = run(*words)
    assert ran.code in (1, 2), ran
    assert message in " ".join(ran.err.split())


@pytest.mark.parametrize(("model", "title"), [("detector", "AP"), ("segmenter", "mIoU")])
def test_bench_scores_by_the_tasks_figure(run, place, tmp_path, model, title):
    folder = shutil.copytree(place / model, tmp_path / model)
    config, noise = read_config(folder), np.random.default_rng(0).integers(0, 256, (4, 96, 128, 3), dtype=np.uint8)
    write_export("onnx-int8", folder, config, load_state(folder), images=noise)
    measured = Procedure(stopwatch=Stopwatch(once=lambda path, **_: timing(2.0)))
    # Few boxes: their figures are computed four times.
    data = tmp_path / "data"
    (write_coins if model == "detector" else write_terrain)(data, images=4)
    words = ("bench", folder, "--runtimes", "onnxruntime", "--data", data)
    found = json.loads(run(*words, "--format", "json", procedure=measured).out)["rows"]
    split = choose_images(data, folder=folder, config=config).split
    scores = {name: evaluate(effnet.load(folder, format=name), split) for name in ("onnx", "onnx-int8")}
    assert {row["format"]: row["figure"] for row in found} == {name: one.figure for name, one in scores.items()}
    assert [row["accuracy"] for row in found] == [None, None]
    drops = {row["format"]: row["drop"] for row in found}
    assert drops == {"onnx": None, "onnx-int8": scores["onnx"].figure - scores["onnx-int8"].figure}
    table = run(*words, procedure=measured).out
    assert title in table
    assert "accuracy" not in table
    assert "the time from its outputs to the answer comes on top" in table
