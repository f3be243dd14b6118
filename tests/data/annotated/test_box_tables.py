import json

import pytest

from effnet.data.annotated.read import read_annotated
from effnet.errors import DataError


def kinds(found):
    return {finding.kind: finding.count for finding in found.findings}


TITLES = [
    "path,xmin,ymin,xmax,ymax,label",
    "filename;x0;y0;x1;y1;class",
    "image\tx1\ty1\tx2\ty2\tname",
    "file_name,left,top,right,bottom,category,",
]


@pytest.mark.parametrize("titles", TITLES)
def test_the_usual_titles_are_known(tmp_path, write_image, write_text, titles):
    write_image("1.png")
    write_image("2.png")
    mark = next(mark for mark in ";\t," if mark in titles)
    rows = [("1.png", 1, 2, 11, 12, "cat"), ("1.png", 2, 2, 5, 5, "dog"), ("2.png", "", "", "", "", "")]
    end = mark if titles.endswith(mark) else ""
    write_text("boxes.csv", "\n".join([titles, *(mark.join(map(str, row)) + end for row in rows)]))
    for path in (tmp_path, tmp_path / "boxes.csv"):
        found = read_annotated(str(path))
        assert (found.format, found.class_names) == ("table", ("cat", "dog"))
        assert [image.boxes.tolist() for image in found.images] == [[[1, 2, 11, 12], [2, 2, 5, 5]], []]
        assert found.images[0].places[1].endswith("boxes.csv, line 3")
        assert kinds(found) == {"no objects": 1}


def test_rows_of_json_have_one_box_or_all(tmp_path, write_image, write_text):
    write_image("1.png")
    write_image("2.png")
    rows = [
        {"path": "1.png", "boxes": [[1, 2, 11, 12], [3, 3, 5, 5]], "labels": ["cat", 7], "split": "train"},
        {"path": "2.png", "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4, "label": "cat", "split": "Valid", "crowd": 1},
    ]
    write_text("boxes.jsonl", "\n".join(map(json.dumps, rows)))
    found = read_annotated(str(tmp_path))
    assert found.class_names == ("7", "cat")
    assert {split: [len(i.boxes) for i in part] for split, part in found.parts.items()} == {"train": [2], "val": [1]}
    assert found.parts["val"][0].crowd.tolist() == [True]


def test_each_irregularity_is_reported_with_the_line(tmp_path, write_image, write_text):
    write_image("1.png")
    rows = [
        "gone.png,1,2,3,4,cat,",
        "1.png,a,2,3,4,cat,",
        "1.png,,2,3,4,cat,",
        "1.png,3,4,1,2,cat,1",
        "1.png,1,2,90,4,cat,",
        "1.png,inf,2,90,4,cat,",
    ]
    write_text("b.csv", "path,xmin,ymin,xmax,ymax,label,difficult\n" + "\n".join(rows))
    found = read_annotated(str(tmp_path))
    assert kinds(found) == {"missing image": 1, "invalid": 3, "swapped": 1, "clipped": 1, "difficult": 1}
    assert all("b.csv, line " in example for finding in found.findings for example in finding.examples)


HEAD = "path,xmin,ymin,xmax,ymax,label,split\n"


@pytest.mark.parametrize(
    "name, content, why",
    [
        ("b.csv", "path,xmin,ymin,xmax,label\n1.png,1,2,3,a", "line 2: the columns path, xmin, ymin, xmax, ymax and"),
        ("b.csv", "", "at least one image"),
        ("b.csv", HEAD + "1.png,1,2,3,4,", "line 2: the label of a box must be text"),
        ("b.csv", HEAD + ",1,2,3,4,cat", "line 2: the path of an image must be text"),
        ("b.csv", HEAD + "1.png,1,2,3,4,cat,trian", "line 2: split must be one of"),
        (
            "b.csv",
            HEAD + "1.png,1,2,3,4,cat,train\n1.png,1,2,3,5,cat,val",
            "line 3: all rows of an image must have one",
        ),
        ("b.csv", HEAD + "1.png,1,2,3,4,cat,train\n2.png,1,2,3,5,cat,", "every image must have a split, or none"),
        ("b.csv", HEAD + '1.png,1,2,3,4,"cat', "line 2: not valid CSV"),
        ("b.csv", HEAD.encode() + b"1.png,1,2,3,4,\xff", "line 2: a manifest must be UTF-8"),
        ("b.csv", HEAD + "1.png,0.1,0.2,0.3,0.4,cat\n1.png,10,20,30,25,cat", r"one unit.*line 2.*line 3"),
        ("b.csv", HEAD + "gone.png,1,2,3,4,cat", "images that do not exist|of an image that does not exist"),
        ("b.csv", HEAD, "at least one image"),
        ("b.jsonl", "[1]", "line 1: must be an object"),
        ("b.jsonl", '{"path": "1.png", "boxes": [[1, 2, 3, 4]], "labels": []}', "line 1: boxes and labels must be"),
        ("b.jsonl", '{"path": "1.png", "boxes": 3, "labels": 3}', "line 1: boxes and labels must be"),
        ("b.jsonl", '{"path": 1, "boxes": [], "labels": []}', "line 1: the path of an image must be text"),
        ("b.jsonl", '{"path": "1.png"}', "line 1: the columns"),
    ],
)
def test_hostile_tables_are_errors_that_name_the_line(tmp_path, write_image, write_text, name, content, why):
    write_image("1.png")
    write_image("2.png")
    path = write_text(name, content)
    with pytest.raises(DataError, match=why) as found:
        read_annotated(str(path))
    assert len(str(found.value)) < 800


def test_two_tables_must_be_merged(tmp_path, write_image, write_text):
    write_image("1.png")
    for name in ("a.csv", "b.csv"):
        write_text(name, HEAD + "1.png,1,2,3,4,cat,")
    with pytest.raises(DataError, match="it holds 2: merge them"):
        read_annotated(str(tmp_path))
