import json
from pathlib import PurePosixPath

import numpy as np
import pytest
from dense import made_boxes, noisy_boxes
from detected import by_pycocotools, detected
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import NASTY
from PIL import Image

from effnet.data.annotated.masks.codes import MaskCode
from effnet.data.annotated.masks.read import read_mask
from effnet.data.annotated.read import read_annotated
from effnet.data.images.decode import image_header
from effnet.errors import DataError
from effnet.system.text import one_line
from effnet.tasks.drawing.colours import colours
from effnet.tasks.writing.coco import coco_images, coco_results, numbered, read_ids
from effnet.tasks.writing.images import write_drawing, write_mask, write_mask_classes
from effnet.tasks.writing.json_file import detections_data, mask_data, write_rows
from effnet.tasks.writing.names import output_names
from effnet.tasks.writing.yolo import write_yolo, write_yolo_names

NAMES = ("cat", "it's a dog: #1", "白鳥")


def test_names_keep_folders_and_never_meet():
    assert output_names(["/data/a/1.jpg", "/data/b/1.jpg"]) == ["a/1", "b/1"]
    assert output_names(["x/1.jpg", "x/1.png", "x/2.png"]) == ["1.jpg", "1.png", "2"]
    assert output_names(["x/A.jpg", "x/a.jpg"]) == ["A.jpg", "a.jpg_2"]
    assert output_names(["1.jpg", "1.jpg"]) == ["1.jpg", "1.jpg_2"]
    assert output_names(["../../etc/1.jpg", "C:\\etc\\2.jpg"]) == ["etc/1", "C_/etc/2"]
    assert output_names(["/", "a/../.."]) == ["image", "a"]
    assert output_names([]) == []


PARTS = st.sampled_from(
    ["a", "A", "..", ".", "", "1.jpg", "1.png", "1", "1.jpg_2", "b:c", "C:", "\x00", "白.tif", "x" * 300]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.builds("/".join, st.lists(PARTS | st.text(max_size=4), max_size=4)), max_size=8))
def test_no_two_images_share_a_file_and_none_leaves_the_folder(paths):
    names = output_names(paths)
    assert len(names) == len(paths)
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        parts = PurePosixPath(name).parts
        assert parts
        assert not name.startswith("/")
        assert ".." not in parts
        assert all(len(part.encode()) <= 255 for part in parts)


def made():
    truths = made_boxes(12, NAMES, seed=5)
    answers = noisy_boxes(truths, 3, seed=5)
    # As files hold them, so that figures are equal to the last digit.
    rounded = [detected(np.round(each.boxes, 3), np.round(each.scores, 6), each.classes) for each in answers]
    return truths, rounded


def test_coco_results_are_read_by_pycocotools(tmp_path):
    coco_module = pytest.importorskip("pycocotools.coco")
    truths, answers = made()
    paths = [image.path for image in truths]
    ids = numbered(paths, NAMES)
    sizes = {image.path: (image.width, image.height) for image in truths}
    rows = (row for path, found in zip(paths, answers, strict=True) for row in coco_results(found, path=path, ids=ids))
    write_rows(rows, tmp_path / "results.json")
    (tmp_path / "images.json").write_text(json.dumps(coco_images(sizes, NAMES, ids=ids)), "utf-8")
    coco = coco_module.COCO(str(tmp_path / "images.json"))
    for image, truth in zip(coco.dataset["images"], truths, strict=True):
        assert image["file_name"] == truth.path
        for box, number in zip(truth.boxes, truth.classes, strict=True):
            left, top, right, bottom = box.tolist()
            coco.dataset["annotations"].append(
                {
                    "id": len(coco.dataset["annotations"]) + 1, "image_id": image["id"],
                    "category_id": int(number) + 1, "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top), "iscrowd": 0,
                }
            )  # fmt: skip
    coco.createIndex()
    from pycocotools.cocoeval import COCOeval

    evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    expected = by_pycocotools(truths, answers, num_classes=3)
    assert evaluation.stats == pytest.approx(expected.stats, abs=2e-3)
    assert evaluation.stats[1] == pytest.approx(expected.stats[1], abs=1e-9)


def test_the_numbers_of_a_coco_file_are_used(tmp_path):
    data = {
        "images": [
            {"id": 77, "file_name": "train/1.jpg", "width": 9, "height": 9},
            {"id": "b", "file_name": "val/1.jpg", "width": 9, "height": 9},
            {"id": 5, "file_name": "2.jpg", "width": 9, "height": 9},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [],
    }
    (tmp_path / "a.json").write_text(json.dumps(data))
    ids = read_ids(str(tmp_path / "a.json"), ("cat", "dog"))
    found = detected([(1, 2, 4, 8)], [0.123456789], [1])
    assert list(coco_results(found, path="/data/val/1.jpg", ids=ids)) == [
        {"image_id": "b", "category_id": 90, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.123457}
    ]
    assert [ids.of_image(path) for path in ("x/train/1.jpg", "x/y/2.jpg", "2.jpg")] == [77, 5, 5]
    with pytest.raises(DataError, match="is several"):
        ids.of_image("other/1.jpg")
    with pytest.raises(DataError, match="is none"):
        ids.of_image("3.jpg")
    with pytest.raises(DataError, match="none called 'cow'"):
        read_ids(str(tmp_path / "a.json"), ("cow",))
    data["images"][2]["file_name"] = "val/1.jpg"
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match="line 1: images must have different file names"):
        read_ids(str(tmp_path / "a.json"), ("cat",))


def test_yolo_files_are_read_back(tmp_path):
    answers = made()[1]
    paths = [f"images/{'ab'[i % 2]}/{i // 2}.png" for i in range(12)]
    for path, name, found in zip(paths, output_names(paths), answers, strict=True):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (400, 300)).save(tmp_path / path)
        written = write_yolo(found, tmp_path, name=name, width=400, height=300)
        assert written == tmp_path / "labels" / f"{name}.txt"
    write_yolo_names(NAMES, tmp_path)
    for path in (tmp_path / "labels").rglob("*.txt"):
        # The reader takes lines of five numbers; the sixth is the score.
        lines = [line.split() for line in path.read_text().splitlines()]
        assert [float(line[5]) for line in lines] == sorted((float(line[5]) for line in lines), reverse=True)
        path.write_text("".join(" ".join(line[:5]) + "\n" for line in lines))
    again = read_annotated(str(tmp_path))
    assert again.class_names == NAMES
    by_path = {image.path: image for image in again.images}
    for path, found in zip(paths, answers, strict=True):
        order = np.argsort(-found.scores, kind="stable")
        clipped = np.clip(found.boxes[order], 0, [400, 300, 400, 300])
        inside = (clipped[:, 2:] > clipped[:, :2]).all(1)
        image = by_path[str(tmp_path / path)]
        assert np.abs(image.boxes - clipped[inside]).max(initial=0) < 0.001
        assert image.classes.tolist() == found.classes[order][inside].tolist()


def test_yaml_of_any_names_is_that_of_a_parser(tmp_path):
    yaml = pytest.importorskip("yaml")
    names = [f"{name}{i}" for i, name in enumerate([*NASTY, *NAMES, "null", "- a", "'", '"', "a: b"])]
    write_yolo_names(names, tmp_path)
    read = yaml.safe_load((tmp_path / "data.yaml").read_text("utf-8"))["names"]
    assert list(read) == list(range(len(names)))
    for i, name in enumerate(names):
        assert read[i] == one_line(name)


def test_json_of_ours_has_boxes_and_shares(tmp_path):
    found = detected([(1, 2, 3, 4), (5.00049, 6, 7, 8)], [0.2, 0.9], [0, 2])
    first = detections_data(found, NAMES, path="a\udc80/1.jpg", width=10, height=20)
    assert first["objects"] == [
        {"label": "白鳥", "score": 0.9, "box": [5.0, 6.0, 7.0, 8.0]},
        {"label": "cat", "score": 0.2, "box": [1.0, 2.0, 3.0, 4.0]},
    ]
    mask = np.array([[0, 0, 2], [2, 2, 255]])
    second = mask_data(mask, NAMES, path="b.jpg", file="b.png")
    assert second["shares"] == {"cat": 0.4, "白鳥": 0.6}
    assert (second["width"], second["height"]) == (3, 2)
    write_rows([first, second], tmp_path / "all.json")
    assert json.loads((tmp_path / "all.json").read_text("utf-8")) == [first, second]
    write_rows([], tmp_path / "none.json")
    assert json.loads((tmp_path / "none.json").read_text("utf-8")) == []


def test_masks_hold_numbers_and_show_the_colours_of_drawings(tmp_path):
    names = ("background", "road", "lake")
    mask = np.random.default_rng(0).choice([0, 1, 2, 255], (13, 17)).astype(np.uint8)
    path = write_mask(mask, tmp_path, name="a/1", class_names=names)
    assert path == tmp_path / "a" / "1.png"
    write_mask_classes(names, tmp_path)
    image = Image.open(path)
    assert np.asarray(image).tolist() == mask.tolist()
    seen = np.asarray(image.convert("RGB"))
    table = json.loads((tmp_path / "classes.json").read_text())
    assert table["ignored"] == 255
    for row in table["classes"]:
        assert {bytes(pixel).hex() for pixel in seen[mask == row["value"]]} == {row["colour"][1:].lower()}
    assert (seen[mask == 1] == colours(3)[1]).all()
    assert (seen[mask == 0] == 0).all()
    code = MaskCode(kind="index", class_names=names, codes=(0, 1, 2), ignored=(255,))
    assert read_mask(str(path), code, image=image_header(str(path))).classes.tolist() == mask.tolist()


def test_nothing_is_half_written(tmp_path):
    def broken():
        yield {"a": 1}
        raise RuntimeError("the disk is full")

    (tmp_path / "all.json").write_text("[1]\n")
    with pytest.raises(RuntimeError):
        write_rows(broken(), tmp_path / "all.json")
    assert [path.name for path in tmp_path.iterdir()] == ["all.json"]
    assert (tmp_path / "all.json").read_text() == "[1]\n"
    with pytest.raises(DataError, match="below 2, or 255; got 7"):
        write_mask(np.full((2, 2), 7), tmp_path, name="m", class_names=("a", "b"))
    assert not (tmp_path / "m.png").exists()


@pytest.mark.parametrize("suffix, format_", [(".png", "PNG"), (".jpg", "JPEG")])
def test_drawings_are_written_by_suffix(tmp_path, suffix, format_):
    drawing = np.full((20, 30, 3), 77, np.uint8)
    write_drawing(drawing, tmp_path / "deep" / f"1{suffix}")
    image = Image.open(tmp_path / "deep" / f"1{suffix}")
    assert image.format == format_
    assert np.abs(np.asarray(image).astype(int) - drawing).max() <= 2


def test_bad_sizes_are_errors(tmp_path):
    with pytest.raises(DataError, match="at least 1; got 0 x 5"):
        write_yolo(detected([], []), tmp_path, name="a", width=0, height=5)
    with pytest.raises(DataError, match="must be \\[height, width\\]"):
        write_mask(np.zeros((2, 2, 3)), tmp_path, name="a", class_names=("a",))
    with pytest.raises(DataError, match="at most 254 classes; got 255"):
        write_mask_classes([str(i) for i in range(255)], tmp_path)
