"""`effnet predict` of detectors and segmenters: every format, drawings, and options that do not fit."""

import csv
import io
import json

import numpy as np
import pytest
from in_images import NAMES, untrained_bundle
from PIL import Image

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["detection", "segmentation"])
def bundle(request, tmp_path_factory):
    return untrained_bundle(tmp_path_factory.mktemp(request.param) / "bundle", request.param)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name in ("a/1.png", "b/1.png"):
        (folder / name).parent.mkdir()
        pixels = np.random.default_rng(len(name)).integers(0, 256, (50, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def detects(bundle):
    return bundle.parent.name.startswith("detection")


def test_json_and_csv_have_every_answer_in_pixels_of_the_image(bundle, images, run_cli):
    rows = json.loads(run_cli("predict", bundle, images, "--format", "json").out)
    assert [(row["width"], row["height"]) for row in rows] == [(80, 50)] * 2
    table = list(csv.DictReader(io.StringIO(run_cli("predict", bundle, images, "--format", "csv").out)))
    if detects(bundle):
        assert len(table) == sum(len(row["objects"]) for row in rows) > 0
        boxes = np.array([[float(line[side]) for side in ("left", "top", "right", "bottom")] for line in table])
        assert (boxes.min(0) >= 0).all()
        assert (boxes.max(0) <= (80, 50, 80, 50)).all()
    else:
        assert sum(float(line["share"]) for line in table) == pytest.approx(2)


def test_files_and_drawings_of_images_of_one_name_do_not_overwrite_each_other(bundle, images, run_cli, tmp_path):
    form = "yolo" if detects(bundle) else "png"
    run_cli("predict", bundle, images, "--format", form, "--out", tmp_path / "out", "--draw", tmp_path / "drawn")
    suffix = "txt" if detects(bundle) else "png"
    assert len(list((tmp_path / "out").rglob(f"1.{suffix}"))) == 2
    assert len(list((tmp_path / "drawn").rglob("1.jpg"))) == 2
    if not detects(bundle):
        with Image.open(next((tmp_path / "out").rglob("1.png"))) as mask:
            assert mask.size == (80, 50)


def test_coco_results_say_which_image_is_which(bundle, images, run_cli, tmp_path):
    words = ("predict", bundle, images, "--format", "coco")
    if not detects(bundle):
        assert "must be one of table, json, csv, png" in run_cli(*words).err
        return
    assert "give the file that has them" in run_cli(*words).err
    run_cli(*words, "--out", tmp_path / "found.json")
    results = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    known = json.loads((tmp_path / "found.images.json").read_text(encoding="utf-8"))
    assert {row["image_id"] for row in results} <= {image["id"] for image in known["images"]}
    assert [category["name"] for category in known["categories"]] == list(NAMES)
    assert [row["bbox"] for row in known["annotations"]] == [row["bbox"] for row in results]
    assert len({row["id"] for row in known["annotations"]}) == len(results)


def test_the_options_of_objects_are_refused_for_classes(small_bundle, run_cli, tmp_path):
    image = tmp_path / "1.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(image)
    found = run_cli("predict", small_bundle, image, "--draw", tmp_path / "drawn")
    assert "are for objects and masks" in found.err
    assert not (tmp_path / "drawn").exists()


def test_an_unreadable_image_is_said_and_the_others_are_answered(bundle, images, run_cli, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    found = run_cli("predict", bundle, bad, images / "a" / "1.png", "--format", "json")
    assert "1 image was not readable" in found.err
    assert len(json.loads(found.out)) == 1
