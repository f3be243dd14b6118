"""What predict writes is what the readers of annotations read: the same classes, sizes, boxes and masks."""

import csv
import json
import unicodedata
from xml.etree import ElementTree

import numpy as np
from detected import detected
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effnet.data.annotated.listing import list_annotated
from effnet.data.annotated.masks.labels import MASKS
from effnet.data.annotated.read import read_annotated
from effnet.data.images.decode import image_header
from effnet.tasks.writing.coco import coco_images, coco_results, numbered
from effnet.tasks.writing.images import write_mask, write_mask_classes
from effnet.tasks.writing.names import output_names
from effnet.tasks.writing.yolo import write_yolo, write_yolo_names

# Names of classes as data sets have them: in one line, without blanks around, none twice.
NAMES = st.lists(
    st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf", "Zl", "Zp", "Cn", "Co")), min_size=1, max_size=8)
    .map(lambda name: unicodedata.normalize("NFC", name).strip())
    .filter(bool),
    min_size=1,
    max_size=4,
    unique=True,
)
FILES = ("1.png", "1.jpg", "a/1.png", "a/b c.png", "\u00e9.png")


@st.composite
def labelled(draw):
    """Return class names, and the width, the height and the objects of each image."""
    names = draw(NAMES)
    images = {}
    for file in draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=4, unique=True)):
        width, height = draw(st.integers(1, 300)), draw(st.integers(1, 300))
        boxes, classes = [], []
        for _ in range(draw(st.integers(0, 3))):
            left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
            right, bottom = draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))
            boxes.append((left, top, right, bottom))
            classes.append(draw(st.integers(0, len(names) - 1)))
        some = dict(zip(zip(boxes, classes, strict=True), range(3), strict=False))  # no object twice
        images[file] = (width, height, [box for box, _ in some], [number for _, number in some])
    return tuple(names), images


def write_images(folder, images):
    for file, (width, height, *_) in images.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height)).save(folder / file)


def objects_of(boxes, classes):
    return sorted((*map(float, box), int(number)) for box, number in zip(boxes, classes, strict=True))


def check(found, names, images, root, *, kind):
    assert (found.format, found.class_names) == (kind, names)
    assert {each.kind for each in found.findings} <= {"no objects", "tiny"}
    by_path = {image.path: image for image in found.images}
    assert by_path.keys() == {str(root / file) for file in images}
    for file, (width, height, boxes, classes) in images.items():
        image = by_path[str(root / file)]
        assert (image.width, image.height) == (width, height)
        own, expected = objects_of(image.boxes, image.classes), objects_of(boxes, classes)
        assert len(own) == len(expected)
        assert np.abs(np.array(own).reshape(-1, 5) - np.array(expected).reshape(-1, 5)).max(initial=0) < 0.01


@settings(max_examples=60, deadline=None)
@given(labelled(), st.booleans())
def test_yolo_labels_are_read_again(tmp_path_factory, made, as_text):
    names, images = made
    folder = tmp_path_factory.mktemp("yolo")
    write_images(folder / "images", images)
    if as_text:
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    else:
        write_yolo_names(names, folder)
    stems = output_names([f"images/{file}" for file in images])
    common = "a/" if all(file.startswith("a/") for file in images) else ""  # left out, as all begin with it
    for stem, (width, height, boxes, classes) in zip(stems, images.values(), strict=True):
        found = detected(boxes, np.linspace(0.9, 0.5, len(boxes)), classes)
        write_yolo(found, folder, name=f"{common}{stem}", width=width, height=height)
    if not any(image[2] for image in images.values()):
        return  # empty files alone are no sign of YOLO
    check(read_annotated(str(folder)), names, images, folder / "images", kind="yolo")


@settings(max_examples=60, deadline=None)
@given(labelled())
def test_coco_labels_are_read_again(tmp_path_factory, made):
    names, images = made
    folder = tmp_path_factory.mktemp("coco")
    write_images(folder / "photos", images)
    paths = [str(folder / "photos" / file) for file in images]
    ids, rows, sizes = numbered(paths, names), [], {}
    for path, (width, height, boxes, classes) in zip(paths, images.values(), strict=True):
        sizes[path] = (width, height)
        found = detected(boxes, np.linspace(0.9, 0.5, len(boxes)), classes)
        rows += coco_results(found, path=path, ids=ids)
    data = coco_images(sizes, names, ids=ids, results=rows)
    (folder / "found.images.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    check(read_annotated(str(folder / "found.images.json")), names, images, folder / "photos", kind="coco")


@settings(max_examples=40, deadline=None)
@given(labelled())
def test_voc_files_are_read(tmp_path_factory, made):
    """No verb writes them; they are written here as LabelImg does, one beside each image."""
    names, images = made
    images = {file: image for file, image in images.items() if file != "1.jpg"}  # its annotation would be that of 1.png
    folder = tmp_path_factory.mktemp("voc")
    write_images(folder, images)
    for file, (width, height, boxes, classes) in images.items():
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "filename").text = file.rpartition("/")[2]
        size = ElementTree.SubElement(root, "size")
        ElementTree.SubElement(size, "width").text, ElementTree.SubElement(size, "height").text = (
            f"{width}",
            f"{height}",
        )
        for box, number in zip(boxes, classes, strict=True):
            thing = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(thing, "name").text = names[number]
            sides = ElementTree.SubElement(thing, "bndbox")
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
                ElementTree.SubElement(sides, side).text = str(value)
        ElementTree.ElementTree(root).write((folder / file).with_suffix(".xml"), encoding="utf-8", xml_declaration=True)
    if not images:
        return
    used = tuple(sorted({names[number] for image in images.values() for number in image[3]}))
    renumbered = {
        file: (width, height, boxes, [used.index(names[number]) for number in classes])
        for file, (width, height, boxes, classes) in images.items()
    }
    check(read_annotated(str(folder)), used, renumbered, folder, kind="voc")


@settings(max_examples=40, deadline=None)
@given(names=NAMES, seed=st.integers(0, 2**32 - 1), files=st.sets(st.sampled_from(FILES), min_size=1))
def test_masks_are_read_again_with_their_names(tmp_path_factory, names, seed, files):
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("masks")
    masks = {file: rng.choice([*range(len(names)), 255], rng.integers(2, 40, 2)) for file in sorted(files)}
    write_images(folder / "images", {file: (mask.shape[1], mask.shape[0]) for file, mask in masks.items()})
    (folder / "masks").mkdir()
    stems = output_names([f"images/{file}" for file in masks])
    common = "a/" if all(file.startswith("a/") for file in masks) else ""
    for stem, mask in zip(stems, masks.values(), strict=True):
        write_mask(mask, folder / "masks", name=f"{common}{stem}", class_names=names)
    write_mask_classes(names, folder / "masks")
    found = list_annotated(str(folder), "segmentation")
    assert found.class_names == tuple(names)
    (part,) = found.parts.values()
    assert set(part.sources) == {str(folder / "images" / file) for file in masks}
    labels = MASKS.to_targets(part.labels, found.class_names)
    for path, label in zip(part.sources, labels, strict=True):
        mask = masks[path.removeprefix(f"{folder / 'images'}/")]
        assert label.read(image_header(path)).tolist() == mask.tolist()


def test_a_table_has_a_row_of_each_image(tmp_path):
    """As `effnet predict --format csv` writes it: one without objects is an example of the background."""
    for number in range(2):
        Image.new("RGB", (60, 40)).save(tmp_path / f"{number}.png")
    with open(tmp_path / "objects.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "score", "left", "top", "right", "bottom"))
        rows.writerow((tmp_path / "0.png", "cat", "0.9", "1.000", "2.000", "30.000", "40.000"))
        rows.writerow((tmp_path / "1.png", *[""] * 6))
    found = read_annotated(str(tmp_path / "objects.csv"))
    assert [len(image.boxes) for image in found.images] == [1, 0]
    assert found.images[0].boxes.tolist() == [[1, 2, 30, 40]]
