"""Fits of detectors and segmenters from end to end: the bundle, its answers, its score, its report, and wrong input."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from procedures import QUICK

from effnet import evaluate, fit, load, train
from effnet.arch.catalog import get_spec
from effnet.arch.decoders.usual import with_segmenter
from effnet.arch.scale import scale
from effnet.bundle.config import read_config
from effnet.data.datasets import list_source, read_dataset
from effnet.errors import BudgetError, DataError, InputError
from effnet.jobs.fit.config import TrainConfig
from effnet.jobs.fit.dense import typical_outside_ms
from effnet.jobs.fit.job import job_of
from effnet.jobs.fit.reading import read_data
from effnet.measurement.in_image import outside_ms
from effnet.report.model import load_report

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE, COLOURS = 96, {"red": (220, 40, 40), "blue": (40, 60, 220)}


def draw(rng):
    """Return a grey image with one or two squares, and the box and the name of each."""
    image = np.full((SIDE, SIDE, 3), 110, np.uint8) + rng.integers(-20, 20, (SIDE, SIDE, 1)).astype(np.uint8)
    objects = []
    for name in rng.permutation(list(COLOURS))[: rng.integers(1, 3)]:
        side = int(rng.integers(24, 40))
        left, top = (int(rng.integers(0, SIDE - side)) for _ in range(2))
        image[top : top + side, left : left + side] = COLOURS[name]
        objects.append((str(name), (left, top, left + side, top + side)))
    return image, objects


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Images with squares: annotated as a COCO file, and as masks in another folder."""
    boxes, masks, rng = tmp_path_factory.mktemp("boxes"), tmp_path_factory.mktemp("masks"), np.random.default_rng(0)
    images, annotations, names = [], [], list(COLOURS)
    for folder in (boxes / "images", masks / "images", masks / "masks"):
        folder.mkdir()
    for number in range(24):
        image, objects = draw(rng)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        for name, (left, top, right, bottom) in objects:
            box = [left, top, right - left, bottom - top]
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": names.index(name) + 1, "bbox": box,
                 "area": box[2] * box[3], "iscrowd": 0}
            )  # fmt: skip
            mask[top:bottom, left:right] = names.index(name) + 1
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        for folder in (boxes, masks):
            Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(masks / "masks" / f"{number}.png")
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (boxes / "annotations.json").write_text(json.dumps(data), encoding="utf-8")
    (masks / "classes.csv").write_text("name,value\nfloor,0\nred,1\nblue,2\n", encoding="utf-8")
    return boxes, masks


def fitted(data, out, **options):
    return fit(data, weights="none", epochs=1, max_macs=30e6, precision="fp32", out=out, procedure=QUICK, **options)


@pytest.fixture(scope="module")
def detector(squares, tmp_path_factory):
    return fitted(squares[0], tmp_path_factory.mktemp("detector") / "bundle")


@pytest.fixture(scope="module")
def segmenter(squares, tmp_path_factory):
    return fitted(squares[1], tmp_path_factory.mktemp("segmenter") / "bundle")


def test_the_task_is_found_from_the_annotations(squares):
    boxes, masks = map(read_dataset, squares)
    assert (boxes.task, boxes.class_names) == ("detection", ("red", "blue"))
    assert (masks.task, masks.class_names) == ("segmentation", ("floor", "red", "blue"))


def test_a_detector_is_a_bundle_whose_answers_lie_in_the_image(detector, squares):
    config = read_config(detector.folder)
    assert [output.name for output in config.outputs] == ["boxes", "scores"]
    assert config.outputs[0].shape[0] == config.outputs[1].shape[0]
    image = squares[0] / "images" / "0.png"
    (found,) = load(detector.folder).predict(image, threshold=0.001)
    assert found.boxes.min() >= 0
    assert found.boxes.max() <= SIDE
    wide = np.asarray(Image.open(image).resize((3 * SIDE, 2 * SIDE)))
    (found,) = load(detector.folder).predict(wide, threshold=0.001)
    assert (found.boxes.max(0) <= (3 * SIDE, 2 * SIDE) * 2).all()


def test_a_segmenter_gives_every_pixel_of_any_image_a_class(segmenter):
    model = load(segmenter.folder)
    (found,) = model.predict(np.zeros((75, 200, 3), np.uint8))
    assert found.mask.shape == (75, 200)
    assert sum(found.shares) == pytest.approx(1)
    assert model.config.outputs[0].name == "mask"


@pytest.mark.parametrize("which", ["detector", "segmenter"])
def test_the_report_is_that_of_evaluate_and_keeps_the_budget(which, squares, request):
    result = request.getfixturevalue(which)
    data = squares[which == "segmenter"]
    report = load_report(result.folder)
    assert report.honoured
    assert report.measured.macs <= 30e6
    assert report.latency.outside_ms > 0
    assert report.measured.latency_ms == pytest.approx(report.latency.p50_ms + report.latency.outside_ms, rel=0.01)
    again = evaluate(load(result.folder), data)
    assert again.figure == pytest.approx(report.test.figure, nan_ok=True)
    assert report.dataset.annotations.counts["train"] == tuple(map(int, report.dataset.annotations.counts["train"]))
    assert (result.folder / "report.html").stat().st_size > 10_000
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    for output in read_config(result.folder).outputs:
        assert f"Output `{output.name}`: float32, `[batch, {', '.join(map(str, output.shape))}]`" in card


@pytest.mark.elsewhere
def test_the_same_seed_gives_the_same_weights(detector, squares, tmp_path):
    again = fitted(squares[0], tmp_path / "again", seed=0)
    assert again.report.test.figure == pytest.approx(detector.report.test.figure, nan_ok=True)
    first, second = ((folder / "model.safetensors").read_bytes() for folder in (detector.folder, again.folder))
    assert first == second


@pytest.mark.elsewhere
@pytest.mark.parametrize("which, result", [(0, "ap"), (1, "miou")])
def test_train_gives_a_backbone_the_decoder_of_its_data(which, result, squares, tmp_path):
    backbone = scale(get_spec("lite0"), phi=-16, resolution=64)
    trained = train(squares[which], model=backbone, epochs=1, out=tmp_path / "bundle", procedure=QUICK)
    config = read_config(trained.folder)
    assert config.task == ("detection", "segmentation")[which]
    assert (config.preprocess.mode, config.preprocess.crop) == ("corner", 1.0)  # the whole image
    assert config.arch.stages == backbone.stages
    again = evaluate(load(trained.folder), squares[which])
    assert again.figure == pytest.approx(getattr(trained.report.test, result), nan_ok=True)


def test_train_refuses_a_network_of_another_task(squares, tmp_path):
    network = with_segmenter(scale(get_spec("lite0"), phi=-16, resolution=64), 2)
    with pytest.raises(DataError, match="segmentation needs masks, or the outlines of objects"):
        train(squares[0], model=network, epochs=1, out=tmp_path / "bundle", procedure=QUICK)
    boxes = read_dataset(squares[0])
    with pytest.raises(InputError, match=r"must answer the task of these data, detection; .* a backbone such as b0"):
        train(boxes, model=network, epochs=1, out=tmp_path / "bundle", procedure=QUICK)


def test_a_segmenter_learns_outlines_where_there_are_boxes_too(squares, tmp_path):
    folder = shutil.copytree(squares[0], tmp_path / "data")
    data = json.loads((folder / "annotations.json").read_text())
    for row in data["annotations"]:
        left, top, width, height = row["bbox"]
        row["segmentation"] = [[left, top, left + width, top, left + width, top + height, left, top + height]]
    (folder / "annotations.json").write_text(json.dumps(data))
    backbone = scale(get_spec("lite0"), phi=-16, resolution=64)
    for network, task in ((with_segmenter(backbone, 3), "segmentation"), (backbone, "detection")):
        job = job_of(TrainConfig(data=folder, model=network, out=tmp_path / "bundle"))
        assert read_data(job).dataset.task == task


def test_what_follows_the_network_takes_time(segmenter, squares):
    assert outside_ms(load(segmenter.folder), read_dataset(squares[1]).test) > 0


def test_the_time_of_masks_is_planned_for_the_images_that_it_is_measured_on(squares, monkeypatch):
    dataset, sizes = read_dataset(squares[1]), set()

    def enlarge(small, *, height, width):
        sizes.add((height, width))

    monkeypatch.setattr("effnet.jobs.fit.dense.classes_of", enlarge)
    larger = np.zeros((300, 200, 3), np.uint8)  # those of test alone
    images = dataclasses.replace(dataset.test, sources=[larger] * len(dataset.test))
    assert typical_outside_ms(dataclasses.replace(dataset, test=images)) >= 0
    assert sizes == {(300, 200)}


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"task": "segment"}, DataError, "boxes alone: `effnet fit --task detect` finds them"),
        ({"task": "both"}, InputError, "task must be one of auto, classify, detect, segment"),
        ({"coverage": 0.9}, InputError, "only classifiers abstain"),
        ({"resize": "squash"}, InputError, "fit.resize must be auto"),
        ({"search": "auto"}, InputError, "fit.search must be off"),
        ({"max_latency_ms": 9, "settings": {"masks.scale": 0.5}}, InputError, "masks.scale must be 0 with a latency"),
        ({"max_latency_ms": 1e-6}, BudgetError, "no network .* latency .* ask for"),
    ],
)
def test_options_that_boxes_do_not_have_are_refused(options, error, message, squares, tmp_path):
    with pytest.raises(error, match=message):
        fitted(squares[0], tmp_path / "out", **options)
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.elsewhere
def test_a_data_set_of_masks_that_was_read_is_fitted_as_its_folder(squares, segmenter, tmp_path):
    again = fitted(read_dataset(squares[1]), tmp_path / "bundle")
    assert again.report.test.figure == pytest.approx(segmenter.report.test.figure, nan_ok=True)


def test_masks_are_no_boxes(squares):
    with pytest.raises(DataError, match="the task detection needs boxes of objects"):
        read_dataset(squares[1], task="detection")


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_a_data_set_that_was_read_keeps_its_task(task, squares):
    dataset = read_dataset(squares[0])
    assert read_dataset(dataset, task="detection").task == read_dataset(dataset).task == "detection"
    with pytest.raises(DataError, match=f"task must be that of the data set, detection; got {task}"):
        read_dataset(dataset, task=task)


def test_data_without_annotations_cannot_be_detected(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "data" / name / "1.png")
    with pytest.raises(DataError, match="the task detection needs boxes of objects"):
        read_dataset(tmp_path / "data", task="detection")
    assert list_source(tmp_path / "data").label_kind.task == "classification"
