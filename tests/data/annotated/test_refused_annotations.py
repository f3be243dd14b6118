"""Annotations that cannot be meant: errors that name the file and the place, also through `read_dataset`."""

import json

import numpy as np
import pytest
from PIL import Image

from effnet.data.annotated.masks.shapes import rle_of, text_of
from effnet.data.annotated.read import read_annotated
from effnet.data.datasets import list_source, read_dataset
from effnet.errors import DataError

HEIGHT, WIDTH = 20, 30
SQUARE = np.zeros((HEIGHT, WIDTH), bool)
SQUARE[5:15, 5:15] = True
LARGER = np.pad(SQUARE, ((0, 0), (0, 4)))
COMPRESSED = {"size": [HEIGHT, WIDTH], "counts": text_of(rle_of(SQUARE))}
COUNTS = {"size": [HEIGHT, WIDTH], "counts": rle_of(SQUARE).counts.tolist()}
POLYGON = [[5, 5, 15, 5, 15, 15, 5, 15]]


def write_coco(folder, segmentations):
    """Write an image for each segmentation, and one line of COCO, as most tools do."""
    (folder / "images").mkdir()
    images, annotations = [], []
    for number, segmentation in enumerate(segmentations):
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
        annotations.append(
            {"id": 70 + number, "image_id": number, "category_id": 1, "bbox": [5, 5, 10, 10], "area": 100,
             "iscrowd": 0, "segmentation": segmentation}
        )  # fmt: skip
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "instances.json").write_text(json.dumps(data))
    return folder


def test_outlines_and_run_lengths_of_both_kinds_are_masks(tmp_path):
    folder = write_coco(tmp_path, [COMPRESSED, COUNTS, POLYGON])
    found = list_source(folder, task="segmentation")
    assert found.class_names == ("background", "cat")
    assert [json.loads(label)["pixels"] for label in found.parts[""].labels] == [[500, 100, 0]] * 3
    assert not found.findings


@pytest.mark.parametrize("counts", [text_of(rle_of(LARGER)), rle_of(LARGER).counts.tolist()])
def test_run_lengths_of_another_size_are_refused_for_masks(tmp_path, counts):
    other = {"size": [HEIGHT, WIDTH + 4], "counts": counts}
    folder = write_coco(tmp_path, [COMPRESSED, other, POLYGON])
    message = (
        r"1 has another. The first: .*instances.json, line 1, annotation 71: the mask has 34 x 20 pixels, the image 30"
    )
    for data in (folder, folder / "instances.json"):
        with pytest.raises(DataError, match=message):
            read_dataset(data, task="segmentation")
    # Boxes need no mask.
    found = read_annotated(str(folder))
    assert [finding.kind for finding in found.findings] == ["mask size"]
    assert [len(image.boxes) for image in found.images] == [1, 1, 1]


def test_what_could_not_be_used_is_said_if_too_little_is_left(tmp_path):
    for number in range(3):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.xml").write_text("<annotation><object>")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    (tmp_path / "0.xml").write_text(f"<annotation><object><name>cat</name>{box}</object></annotation>")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert "for val: 1 image in 1 class; add images, at least 3 in a class. 2 annotation files" in str(caught.value)
    assert f"The first: {tmp_path / '1.xml'}, line 1: not valid XML" in str(caught.value)


def test_masks_that_are_none_do_not_make_classes_of_their_folders(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for number in range(4):
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    with pytest.raises(DataError, match=r"masks must have 1 to 254 classes.* say --task classify"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, task="classification").class_names == ("images", "masks")
    (tmp_path / "images").rename(tmp_path / "faces")  # photographs of people with and without a mask
    assert read_dataset(tmp_path).class_names == ("faces", "masks")
