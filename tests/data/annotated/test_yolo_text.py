import pytest

from effnet.data.annotated.formats.yaml import read_flat_yaml
from effnet.data.annotated.masks.shapes import pixels_of
from effnet.data.annotated.read import read_annotated
from effnet.errors import DataError


def kinds(found):
    return {finding.kind: finding.count for finding in found.findings}


def test_boxes_outlines_and_images_without_objects(tmp_path, write_image, write_text):
    for split in ("train", "val"):
        write_image(f"images/{split}/1.png")
        write_text(f"labels/{split}/1.txt", "1 0.5 0.5 0.5 1\n\n0 0 0 .5 0 0.5 0.5 0 .5\n")
    write_image("images/train/2.png")
    write_text("data.yaml", "names: [cat, 'big dog']  # two\nnc: 2\n")
    found = read_annotated(str(tmp_path))
    assert (found.format, found.class_names) == ("yolo", ("cat", "big dog"))
    assert {split: [len(i.boxes) for i in part] for split, part in found.parts.items()} == {"train": [2, 0], "val": [2]}
    image = found.parts["train"][0]
    assert image.boxes.tolist() == [[10, 0, 30, 30], [0, 0, 20, 15]]
    assert image.classes.tolist() == [1, 0]
    assert image.shapes[0] is None
    assert pixels_of(image.shapes[1], height=30, width=40).sum() == 20 * 15
    assert image.places[1].endswith("labels/train/1.txt, line 3")
    assert kinds(found) == {"no annotation": 1}


def test_each_irregularity_is_reported_with_file_and_line(tmp_path, write_image, write_text):
    write_image("1.png")
    lines = [
        "0 0.5 0.5 0.5 0.5",
        "7 0.5 0.5 0.5 0.5",
        "0.5 0.5 0.5 0.5 0.5",
        "0 0.5 0.5 0.5",
        "0 0.5 0.5 0.5 0.5 0.9 0.1 0.2",
        "cat 0.5 0.5 0.5 0.5",
        "0 nan 0.5 0.5 0.5",
        "0 0.5 0.5 0 0.5",
        "-1 0.5 0.5 0.5 0.5",
        "99999999999 0.5 0.5 0.5 0.5",
        "0 0.5 0.5 -0.25 0.25",
        "0 1.0 0.5 0.5 0.5",
    ]
    write_text("1.txt", "\n".join(lines))
    write_text("gone.txt", "0 0.5 0.5 0.5 0.5")
    write_text("classes.txt", "cat\ndog\n")
    found = read_annotated(str(tmp_path))
    assert found.class_names == ("cat", "dog")
    assert kinds(found) == {
        "missing image": 1,
        "unknown class": 1,
        "invalid": 7,
        "swapped": 1,
        "empty": 1,
        "clipped": 1,
    }
    for finding in found.findings:
        assert all("1.txt, line " in e or "gone.txt" in e for e in finding.examples), finding
    assert len(found.images[0].boxes) == 3


def test_pixels_are_read_and_mixed_units_are_an_error(tmp_path, write_image, write_text):
    write_image("1.png")
    write_text("1.txt", "0 20 15 10 10\n")
    found = read_annotated(str(tmp_path))
    assert found.images[0].boxes.tolist() == [[15, 10, 25, 20]]
    assert kinds(found) == {"pixels": 1}
    assert found.class_names == ("0",)
    write_text("1.txt", "0 20 15 10 10\n0 0.5 0.5 0.5 0.5")
    with pytest.raises(DataError, match=r"in one unit.*1\.txt, line 2: \(0\.25.*1\.txt, line 1: \(15"):
        read_annotated(str(tmp_path))


def test_unreadable_text_is_reported(tmp_path, write_image, write_text):
    write_image("1.png")
    write_image("2.png")
    write_text("1.txt", "0 0.5 0.5 0.5 0.5")
    write_text("2.txt", b"0 0.5 0.5 0.5 0.5\n\xff\xfe")
    found = read_annotated(str(tmp_path))
    assert kinds(found) == {"unreadable": 1, "no objects": 1}
    assert "2.txt, line 2: it must be UTF-8" in found.findings[0].examples[0]


@pytest.mark.parametrize("folders", [("train/images", "train/labels"), ("images/set_a", "labels/set_a"), ("a", "a")])
@pytest.mark.parametrize("prefix", ["", "../", "./", "/home/somebody/"])
def test_data_yaml_gives_the_splits_wherever_it_was_written(tmp_path, write_image, write_text, folders, prefix):
    write_image(f"{folders[0]}/1.png")
    write_image("other/images/2.png")
    write_text(f"{folders[1]}/1.txt", "0 0.5 0.5 0.5 0.5")
    write_text("other/labels/2.txt", "1 0.5 0.5 0.5 0.5")
    place = f"{prefix}{folders[0]}" if not prefix.startswith("/") else folders[0]
    home = f"path: {prefix}\n" if prefix.startswith("/") else ""
    write_text("data.yaml", f"{home}train: {place}\nval: [other/images]\nnames:\n  0: cat\n  1: dog\n")
    for path in (tmp_path, tmp_path / "data.yaml"):
        found = read_annotated(str(path))
        assert found.class_names == ("cat", "dog")
        assert {split: len(part) for split, part in found.parts.items()} == {"train": 1, "val": 1}


def test_lists_of_images_give_the_splits(tmp_path, write_image, write_text):
    for i in range(3):
        write_image(f"obj_train_data/{i}.jpg")
        write_text(f"obj_train_data/{i}.txt", "0 0.5 0.5 0.5 0.5")
    write_text("train.txt", "data/obj_train_data/0.jpg\n/x/obj_train_data/2.jpg\ngone.jpg\n")
    write_text("test.txt", "./obj_train_data/1.jpg\n")
    write_text("data.yaml", "train: train.txt\ntest: test.txt\nnames:\n- cat\n")
    found = read_annotated(str(tmp_path))
    assert {split: len(part) for split, part in found.parts.items()} == {"train": 2, "test": 1}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a: 1\nb: x y\n", {"a": "1", "b": "x y"}),
        ("names: ['a, b', \"c\", d] # e", {"names": ["a, b", "c", "d"]}),
        ("names: [a,\n  b,\n  c]\nnc: 3", {"names": ["a", "b", "c"], "nc": "3"}),
        ("names:\n- a\n- 'it''s'\n", {"names": ["a", "it's"]}),
        ("names:\n- 'it''s # 1' # two\n- '#''#'\n", {"names": ["it's # 1", "#'#"]}),
        ("names: ['it''s, a', '''', b]\n", {"names": ["it's, a", "'", "b"]}),
        ("names:\n    0: a b\n    1: c\n", {"names": {"0": "a b", "1": "c"}}),
        ("names: {0: a, 1: b}", {"names": {"0": "a", "1": "b"}}),
        ("---\n# c\nurl: https://x/y#z\n", {"url": "https://x/y#z"}),
        ("\ufeffa: 'x: y'\r\n", {"a": "x: y"}),
    ],
)
def test_flat_yaml_is_read_as_pyyaml_reads_it(write_text, text, expected):
    path = str(write_text("a.yaml", text))
    assert read_flat_yaml(path) == expected
    yaml = pytest.importorskip("yaml")

    def as_text(value):
        if isinstance(value, dict):
            return {str(key): as_text(v) for key, v in value.items()}
        return [as_text(v) for v in value] if isinstance(value, list) else str(value)

    assert as_text(yaml.safe_load(text.removeprefix("\ufeff"))) == expected


@pytest.mark.parametrize(
    "text, why",
    [
        ("a: 1\n  - b\n", "line 2: a list must follow a key without a value"),
        ("a: 1\n  b: 2\n", "line 2: lines that are indented must follow"),
        ("just text\n", 'line 1: it must be of the form "key: value"'),
        ("a: &x 1\nb: *x", "line 1: a value must be plain text"),
        ("a: !!python/object/apply:os.system ['ls']", "line 1: a value must be plain text"),
        ("a: |\n  text", "line 1: a value must be plain text"),
        ("a: [b, [c]]", "line 1"),
        ("a: 'b", "line 1: text must end with the quote"),
        ("a:\n  b:\n    c: 1\n  - d", "line 4"),
        (b"a: \xff", "must be UTF-8"),
    ],
)
def test_other_yaml_is_an_error_that_names_the_line(write_text, text, why):
    with pytest.raises(DataError, match=why):
        read_flat_yaml(str(write_text("a.yaml", text)))


@pytest.mark.parametrize(
    "names, why",
    [
        ("names: []", "must have the class names"),
        ("nc: 2", "must have the class names"),
        ("names: [a, a]", "must differ"),
        ("names:\n  0: a\n  2: b", "keys of names must be 0, 1, 2"),
        ("names:\n  x: a", "keys of names must be numbers"),
    ],
)
def test_names_that_cannot_be_used_are_errors(tmp_path, write_image, write_text, names, why):
    write_image("1.png")
    write_text("1.txt", "0 0.5 0.5 0.5 0.5")
    path = write_text("data.yaml", names)
    with pytest.raises(DataError, match=why):
        read_annotated(str(path))
