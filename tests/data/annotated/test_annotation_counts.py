"""data inspect counts objects and pixels by class and split, and says that objects are too small."""

import numpy as np
from annotated_sets import write_coins, write_terrain
from PIL import Image

from effnet.data.annotated.objects import OBJECTS
from effnet.data.datasets import Dataset, read_dataset
from effnet.data.inspection.inspect import describe, inspect_dataset


def test_the_objects_of_each_class_are_those_of_the_files(tmp_path):
    folder = write_coins(tmp_path / "coins")
    report = inspect_dataset(read_dataset(folder))
    written = "".join(path.read_text() for path in (folder / "annotations").glob("*.xml"))
    for one in report.annotations.classes:
        assert one.train + one.val + one.test == written.count(f"<name>{one.name}</name>") > 0
    lines = describe(report)
    images = report.annotations.images
    assert images.train + images.val + images.test == 24
    of_splits = f"in {images.train} images of train, {images.val} of val and {images.test} of test"
    assert f"{written.count('<object>')} objects of 2 classes, {of_splits}" in lines
    assert report.annotations.advice == ""  # discs of 24 pixels in 160 are 48 in 320


def test_the_pixels_of_each_class_are_those_of_the_masks(tmp_path):
    folder = write_terrain(tmp_path / "terrain")
    report = inspect_dataset(read_dataset(folder))
    masks = np.stack([np.asarray(Image.open(path)) for path in (folder / "masks").glob("*.png")])
    field, water, road = report.annotations.classes
    assert water.train + water.val + water.test == (masks == (0, 0, 255)).all(-1).sum()
    assert field.train + field.val + field.test == (masks == (0, 255, 0)).all(-1).sum()
    (head,) = [line for line in describe(report) if line.startswith("Masks of 3 classes")]
    assert head.endswith("; 0.0% ignored")
    assert road.name == "road"


def test_objects_that_are_too_small_for_an_input_are_reported():
    label = {"size": (1000, 1000), "boxes": [[100, 100, 112, 112]] * 2, "labels": ["ant", "ant"]}
    images = [np.zeros((1000, 1000, 3), np.uint8)] * 20
    dataset = Dataset.from_arrays(images, [label] * 20, label_kind=OBJECTS, name="ants")
    lines = describe(inspect_dataset(dataset))
    # 12 pixels of 1000 are 3.8 of 320, and 8 of 667: the next side that is listed is 768.
    assert "100 % of the boxes are under 8 px at 320: choose 768." in lines


def test_what_is_irregular_is_said_with_file_and_line(tmp_path):
    folder = write_coins(tmp_path / "coins")
    path = folder / "annotations" / "03.xml"
    path.write_text("\n" + path.read_text().replace("<xmin>", "<xmin>-9", 1).replace("<object>", "\n<object>"))
    (folder / "images" / "05.jpg").unlink()
    (folder / "annotations" / "06.xml").write_text("<annotation>")
    lines = describe(inspect_dataset(read_dataset(folder)))
    (clipped,) = [line for line in lines if line.startswith("1 box reaches beyond its image and was clipped.")]
    assert f"The first: {path}, line 3: (-9" in clipped
    (missing,) = [line for line in lines if line.startswith("1 annotation is of an image that does not exist")]
    assert missing.endswith(f"The first: {folder}/annotations/05.xml: 05.jpg")
    (unreadable,) = [line for line in lines if line.startswith("1 annotation file cannot be read")]
    assert f"{folder}/annotations/06.xml, line 1" in unreadable
