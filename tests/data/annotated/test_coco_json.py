import json
import re

import numpy as np
import pytest

from effnet.data.annotated.masks.shapes import Rle, pixels_of
from effnet.data.annotated.read import read_annotated
from effnet.errors import DataError


def coco(annotations=(), *, images=None, categories=None):
    return {
        "info": {"description": "a set"},
        "images": [{"id": 7, "file_name": "1.png", "width": 40, "height": 30}] if images is None else images,
        "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}] if categories is None else categories,
        "annotations": list(annotations),
    }


def annotation(box=(1, 2, 10, 5), **more):
    return {"id": 1, "image_id": 7, "category_id": 1, "bbox": list(box), **more}


def kinds(found):
    return {finding.kind: finding.count for finding in found.findings}


def test_the_nuclei_have_the_counts_of_their_source(shared_data):
    found = read_annotated(str(shared_data("nuclei")))
    assert (found.format, found.class_names, len(found.images)) == ("coco", ("nucleus",), 65)
    assert sum(len(image.boxes) for image in found.images) == 4152
    assert max(len(image.boxes) for image in found.images) == 329
    assert {image.path.split("/")[-2] for image in found.images} == {"images"}  # instances/ has the same names
    assert not found.findings


def test_boxes_masks_crowds_and_areas_are_read(tmp_path, write_image, write_text):
    write_image("1.png")
    square = [2, 3, 12, 3, 12, 13, 2, 13]
    column = {"size": [30, 40], "counts": [30, 30, 30 * 38]}
    write_text(
        "a.json",
        coco(
            [
                annotation(area=12.5, segmentation=[square]),
                annotation((1, 0, 1, 30), category_id=3, iscrowd=1, segmentation=column),
                {"image_id": 7, "category_id": 3, "segmentation": [square], "bbox": []},
            ]
        ),
    )
    found = read_annotated(str(tmp_path / "a.json"))
    assert found.class_names == ("cat", "dog")  # by number
    (image,) = found.images
    assert image.boxes.tolist() == [[1, 2, 11, 7], [1, 0, 2, 30], [2, 3, 12, 13]]
    assert (image.classes.tolist(), image.crowd.tolist()) == ([0, 1, 1], [False, True, False])
    assert image.areas.tolist() == [12.5, 30, 100]
    assert isinstance(image.shapes[1], Rle)
    assert np.flatnonzero(pixels_of(image.shapes[1], height=30, width=40).any(0)).tolist() == [1]
    assert kinds(found) == {"crowd": 1}


def test_each_irregularity_is_reported_with_file_and_line(tmp_path, write_image, write_text):
    write_image("1.png")
    rle = {"size": [40, 30], "counts": [1200]}
    write_text(
        "a.json",
        coco(
            [
                annotation(),
                annotation(image_id=8),
                annotation((3, 3, 4, 4), category_id=9),
                annotation((5, 5, 4, 4), segmentation=rle),
                annotation((6, 5, 4, 4), segmentation={"size": [30, 40], "counts": "~~"}),
                annotation((7, 5, 4, 4), segmentation=[[1, 2, 3]]),
                annotation((1, 2, 3)),
                annotation((1, 2, None, 4)),
            ],
            images=[*coco()["images"], {"id": 9, "file_name": "gone.png"}],
        ),
    )
    found = read_annotated(str(tmp_path))
    assert kinds(found) == {"missing image": 2, "unknown class": 1, "mask": 2, "mask size": 1, "invalid": 2}
    assert len(found.images[0].boxes) == 4
    assert not found.images[0].shapes
    text = (tmp_path / "a.json").read_text().splitlines()
    for finding in found.findings:
        for example in finding.examples:
            line = re.search(r"a\.json, line (\d+)(?:, annotation \d+)?: ", example)
            assert line, example
            assert text[int(line[1]) - 1].strip() == "{"  # where the object begins
    assert any("has 30 x 40 pixels, the image 40 x 30" in e for finding in found.findings for e in finding.examples)


@pytest.mark.parametrize(
    "content, why",
    [
        (coco(categories=[]), '"categories" must have at least one'),
        (coco(categories=[{"id": 1}]), r'line \d+: each of "categories" must have a name'),
        (coco(categories=[{"id": 1, "name": "a"}] * 2), 'numbers of "categories" must differ'),
        (coco(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]), "must have different names; 'a'"),
        (coco(images=[{"id": 1, "file_name": "1.png"}] * 2), 'numbers of "images" must differ; got 1 twice'),
        (coco(images=[{"id": 1}]), 'each of "images" must have a file_name; got None'),
        (coco(images=[{"file_name": "1.png"}]), 'must have the number "id"; got None'),
        (coco([{"bbox": [1, 2, 3, 4]}]), 'must have the number "image_id"'),
        (coco(["x"]), 'each of "annotations" must be an object'),
        ({"images": [], "annotations": {}, "categories": []}, '"annotations" must be a list'),
        ('{"images": [\n{"id": 1,\n "file_name": }]}', "line 3: not valid JSON"),
        ('{"info": 1, "images": [\n{"id": 1, "file_name": "1"}', r"line 2: not valid JSON \(expected"),
        ('{"images": [\n{"id": NaN}]}', "line 2: not valid JSON .*finite"),
        ('{"images": [\n{"id": ' + "9" * 5000 + "}]}", "line 2: not valid JSON"),
        ('{"images": [\n' + "[" * 200_000, "line 2: not valid JSON .*nested too deeply"),
        (b'{"images": [\n\xff]}', "line 2: it must be UTF-8"),
        (b"\xef\xbb\xbf[]", "line 1: not valid JSON .*expected {"),
        ("", "line 1: not valid JSON"),
        (coco(), "they hold none|not exist"),
    ],
)
def test_hostile_files_are_errors_that_name_file_and_line(tmp_path, write_text, content, why):
    write_text("2.png", b"")
    path = write_text("a.json", content)
    with pytest.raises(DataError, match=why) as found:
        read_annotated(str(path))
    assert "a.json" in str(found.value)
    assert len(str(found.value)) < 600


def test_a_large_file_is_read_in_little_memory(tmp_path, write_image, write_text):
    import tracemalloc

    write_image("1.png", (200, 200))
    outline = [[1, 2, 3, 4, 5, 6] * 20]
    boxes = [annotation((i % 100, i // 100, 20, 30), segmentation=outline) for i in range(600)]
    text = json.dumps(coco(boxes, images=[{"id": 7, "file_name": "1.png"}]))
    path = write_text("a.json", text)
    del boxes
    tracemalloc.start()
    found = read_annotated(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.images[0].boxes) == 600
    json_tree = 600 * 120 * 8 * 3  # a list of floats or integers, and the numbers
    assert peak < 2.5 * len(text) + json_tree


def test_splits_are_those_of_the_files_names(tmp_path, write_image, write_text):
    for split in ("train", "val"):
        write_image(f"{split}2017/1.png", (40, 30) if split == "train" else (30, 40))
        write_text(f"annotations/instances_{split}2017.json", coco([annotation()]))
        write_text(f"annotations/captions_{split}2017.json", {"images": [], "annotations": [{"caption": "a"}]})
    found = read_annotated(str(tmp_path))
    assert {split: [i.path.split("/")[-2] for i in part] for split, part in found.parts.items()} == {
        "train": ["train2017"],
        "val": ["val2017"],
    }
    write_text("annotations/instances_val2017.json", coco(categories=[{"id": 1, "name": "cow"}]))
    with pytest.raises(DataError, match=r"instances_val2017\.json: all files must have the same categories"):
        read_annotated(str(tmp_path))
