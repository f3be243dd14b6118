import re

import numpy as np
import pytest

from effnet.data.annotated.read import read_annotated
from effnet.data.annotated.record import describe
from effnet.errors import DataError


def xml(objects, *, name="1.png", size=(40, 30), head="", database="Unknown"):
    things = "".join(
        f"\n<object>\n<name>{label}</name>{extra}\n<bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox>\n</object>"
        for label, (a, b, c, d), extra in objects
    )
    return (
        f"{head}<annotation>\n<filename>{name}</filename><source><database>{database}</database></source>\n"
        f"<size><width>{size[0]}</width><height>{size[1]}</height></size>{things}\n</annotation>\n"
    )


def kinds(found):
    return {finding.kind: finding.count for finding in found.findings}


def test_the_cards_have_the_counts_of_their_source(shared_data):
    found = read_annotated(str(shared_data("cards")))
    assert found.format == "voc"
    assert found.class_names == ("ace", "jack", "king", "nine", "queen", "ten")
    assert {split: (len(part), sum(len(i.boxes) for i in part)) for split, part in found.parts.items()} == {
        "train": (296, 527),
        "test": (67, 143),
    }
    assert not found.findings
    first = next(image for image in found.parts["train"] if image.path.endswith("IMG_2385.JPG"))
    assert first.boxes.tolist() == [[92, 183, 223, 348]]
    assert first.places[0].endswith("IMG_2385.xml, line 14")
    assert (first.width, first.height, first.areas.tolist()) == (378, 504, [131 * 165])


def test_each_irregularity_is_reported_with_file_and_line(tmp_path, write_image, write_text):
    write_image("1.png")
    objects = [
        ("cat", (1, 2, 11, 12), ""),
        ("cat", (11, 12, 1, 2), ""),  # swapped, and then a duplicate
        ("cat", (30, 20, 60, 29), ""),  # clipped
        ("cat", (50, 2, 60, 12), ""),  # outside
        ("cat", (5, 5, 5, 9), ""),  # empty
        ("dog", (3, 3, 9, 9), "<difficult>1</difficult>"),
        ("dgo", (3, 3, 9, 9), ""),
        ("dog", ("x", 3, 9, 9), ""),
        ("dog", ("nan", 3, 9, 9), ""),
        ("dog", (1e300, 3, 9, 9), ""),
        ("cat", (0, 0, 40.6, 30), ""),  # rounding
    ]
    write_text("1.xml", xml(objects))
    found = read_annotated(str(tmp_path), class_names=("dog", "cat"))
    (image,) = found.images
    assert image.boxes.tolist() == [[1, 2, 11, 12], [30, 20, 40, 29], [3, 3, 9, 9], [0, 0, 40, 30]]
    assert image.classes.tolist() == [1, 1, 0, 1]
    assert image.difficult.tolist() == [False, False, True, False]
    assert kinds(found) == {
        "invalid": 3,
        "unknown class": 1,
        "swapped": 1,
        "outside": 1,
        "clipped": 1,
        "empty": 1,
        "duplicate": 1,
        "difficult": 1,
    }
    lines = describe(found.findings)
    assert "1 box lies outside its image and is not used." in lines
    assert any(re.fullmatch(r".*1\.xml, line 16: \(50, 2, 60, 12\) in 40 x 30", line) for line in lines)
    assert any(line.endswith("'dgo'; did you mean 'dog'?") for line in lines)
    assert all(re.search(r"1\.xml, line \d+", line) for line in lines if line.startswith("  "))


@pytest.mark.parametrize(
    "encoding, head",
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", ""),
        ("utf-16-le", '<?xml version="1.0"?>'),
        ("latin-1", '<?xml version="1.0" encoding="ISO-8859-1"?>\n'),
        ("gbk", "<?xml version='1.0' encoding='gbk'?>"),
        ("shift_jis", '<?xml version="1.0" encoding="Shift_JIS" standalone="yes"?>'),
        ("cp1251", '<?xml version="1.0" encoding="windows-1251"?>'),
    ],
)
def test_xml_of_any_encoding_is_read(tmp_path, write_image, write_text, encoding, head):
    label = {"latin-1": "café", "gbk": "猫", "shift_jis": "ねこ", "cp1251": "кот"}.get(encoding, "猫é")
    write_image("1.png")
    write_text("1.xml", xml([(label, (1, 2, 3, 4), "")], head=head), encoding=encoding)
    assert read_annotated(str(tmp_path)).class_names == (label,)


BOMB = "<!DOCTYPE a [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {chr(98 + i)} '{f'&{chr(97 + i)};' * 10}'>" for i in range(9)
)


@pytest.mark.parametrize(
    "content, why",
    [
        (BOMB + "]><annotation>&j;</annotation>", "line 1: an annotation must not define or use entities"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>', "must not define"),
        ('<!DOCTYPE a SYSTEM "http://localhost:1/a.dtd"><annotation>&x;</annotation>', "entities of its own"),
        ("<annotation>\n<object>\n</annotation>", "line 3: not valid XML"),
        ("<annotation>" * 100, "line 1: it is nested too deeply"),
        ("<annotation>&nbsp;</annotation>", "line 1: not valid XML"),
        ("", "not valid XML"),
        (b"<annotation>\n\xff\xfe</annotation>", "line 2: it must be text in its encoding, utf-8"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "line 1: the encoding must be one that Python"),
        (b'<?xml version="1.0" encoding="idna"?><annotation/>', "line 1: the encoding must be one that Python"),
        (b'<?xml version="1.0" encoding="rot13"?><annotation/>', "encoding"),
        ("<html><annotation/></html>", "the root must be <annotation>"),
    ],
)
def test_hostile_xml_is_reported_and_the_others_are_read(tmp_path, write_image, write_text, content, why):
    write_image("1.png")
    write_image("2.png")
    write_text("1.xml", xml([("cat", (1, 2, 3, 4), "")]))
    write_text("2.xml", content)
    found = read_annotated(str(tmp_path))
    assert kinds(found)["unreadable"] == 1
    (finding,) = (finding for finding in found.findings if finding.kind == "unreadable")
    assert re.search(why, finding.examples[0]), finding.examples
    assert "2.xml" in finding.examples[0]
    assert len(found.images) == 1


def test_images_are_found_where_tools_put_them(tmp_path, write_image, write_text):
    write_image("JPEGImages/a.jpg")
    write_image("JPEGImages/b.JPG")
    write_image("JPEGImages/unlabelled.jpg")
    write_text("Annotations/a.xml", xml([("cat", (1, 2, 3, 4), "")], name="C:\\Users\\x\\b.JPG"))  # a copy
    write_text("Annotations/b.xml", xml([("cat", (1, 2, 3, 4), "")], name="b.png"))
    write_text("Annotations/c.xml", xml([("cat", (1, 2, 3, 4), "")], name="../../../etc/passwd"))
    found = read_annotated(str(tmp_path))
    assert [image.path.rpartition("/")[2] for image in found.images] == ["a.jpg", "b.JPG"]
    assert kinds(found) == {"missing image": 1, "other name": 1, "not annotated": 1}


def test_pixels_of_the_original_data_are_counted_from_one(tmp_path, write_image, write_text):
    write_image("1.png")
    write_text("1.xml", xml([("cat", (1, 1, 40, 30), "")], database="The VOC2007 Database"))
    assert read_annotated(str(tmp_path)).images[0].boxes.tolist() == [[0, 0, 40, 30]]


def test_normalised_boxes_are_scaled_and_mixed_units_are_an_error(tmp_path, write_image, write_text):
    write_image("1.png")
    write_image("2.png")
    write_text("1.xml", xml([("cat", (0.25, 0.5, 0.75, 1), "")]))
    found = read_annotated(str(tmp_path))
    assert found.images[0].boxes.tolist() == [[10, 15, 30, 30]]
    assert kinds(found)["normalised"] == 1
    write_text("2.xml", xml([("cat", (10, 15, 30, 30), "")]))
    with pytest.raises(DataError, match=r"(?s)one unit.*1\.xml, line 4: \(0\.25.*2\.xml, line 4: \(10"):
        read_annotated(str(tmp_path))


def test_boxes_of_rotated_images_follow_the_upright_image(tmp_path, write_image, write_text):
    for name, size in (("upright", (30, 40)), ("stored", (40, 30))):
        write_image(f"{name}.jpg", (40, 30), orientation=6)
        write_text(f"{name}.xml", xml([("cat", (0, 0, 10, 5), "")], size=size))
    found = read_annotated(str(tmp_path))
    boxes = {image.path.rpartition("/")[2]: image for image in found.images}
    assert all((image.width, image.height) == (30, 40) for image in found.images)
    assert boxes["upright.jpg"].boxes.tolist() == [[0, 0, 10, 5]]
    # Turned clockwise, the upper left corner becomes the upper right one.
    assert boxes["stored.jpg"].boxes.tolist() == [[25, 0, 30, 10]]
    assert kinds(found) == {"rotated": 1, "rotated boxes": 1}


def test_a_class_without_train_objects_is_reported(tmp_path, write_image, write_text):
    for split, label in (("train", "cat"), ("test", "dog")):
        write_image(f"{split}/{label}.png")
        write_text(f"{split}/{label}.xml", xml([(label, (1, 2, 3, 4), "")]))
    found = read_annotated(str(tmp_path))
    assert kinds(found) == {"test only": 1}
    assert found.findings[0].examples == ("dog: 1 objects in test",)
    assert np.array_equal(found.counts()["test"], [0, 1])


def test_no_usable_annotation_is_an_error(tmp_path, write_image, write_text):
    write_image("other.png")
    write_text("1.xml", xml([]))
    with pytest.raises(DataError, match=r"at least one image.*annotation is of an image that does not exist"):
        read_annotated(str(tmp_path))
    with pytest.raises(DataError, match="must be a folder that can be read"):
        read_annotated(str(tmp_path / "gone"))
    (tmp_path / "1.xml").unlink()
    with pytest.raises(DataError, match="must hold annotations of boxes, but it holds images without annotations"):
        read_annotated(str(tmp_path))


def test_lists_of_image_sets_give_the_splits(tmp_path, write_image, write_text):
    for i in range(5):
        write_image(f"VOC/JPEGImages/{i}.jpg")
        write_text(f"VOC/Annotations/{i}.xml", xml([("cat", (1, 2, 3, 4), "")], name=f"{i}.jpg"))
    write_text("VOC/ImageSets/Main/train.txt", "0\n2\n")
    write_text("VOC/ImageSets/Main/trainval.txt", "0\n2\n3\n")
    write_text("VOC/ImageSets/Main/val.txt", "3\ngone\n")
    write_text("VOC/ImageSets/Main/test.txt", "1  1\n")
    write_text("VOC/ImageSets/Main/cat_test.txt", "1  1\n")
    found = read_annotated(str(tmp_path))
    assert {split: [i.path[-5] for i in part] for split, part in found.parts.items()} == {
        "train": ["0", "2"],
        "val": ["3"],
        "test": ["1"],
    }
    assert kinds(found) == {"missing image": 1, "not listed": 1, "not annotated": 1}


def test_a_rare_box_smaller_than_a_pixel_is_no_other_unit(tmp_path, write_image, write_text):
    write_image("1.png", (400, 300))
    objects = [("cat", (i % 100, i // 100, i % 100 + 5, 290), "") for i in range(1000)]
    write_text("1.xml", xml([*objects, ("cat", (0.25, 0.5, 0.75, 0.9), "")], size=(400, 300)))
    found = read_annotated(str(tmp_path))
    assert kinds(found) == {"tiny": 1}
    assert found.images[0].boxes[-1].tolist() == [0.25, 0.5, 0.75, 0.9]
