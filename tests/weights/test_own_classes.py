"""Your own class names: the order of the outputs is never guessed."""

import json

import pytest

from effnet.errors import InputError
from effnet.weights.class_names import class_names
from effnet.weights.own_classes import read_classes


def read(classes, count, **options):
    return read_classes(classes, **{"told": (), "count": count, "where": "w.pth"} | options)[0]


@pytest.mark.parametrize(
    "name, text, names",
    [
        ("names.txt", "zebra\nant\n", ("zebra", "ant")),
        ("names.txt", "\ufeffzebra \r\n ant\r\n\r\n", ("zebra", "ant")),
        ("names.txt", "a\u2028b\nc\n", ("a\u2028b", "c")),  # which ends no line
        ("names.txt", "0\n1\n2\n", ("0", "1", "2")),
        ("coins.txt", "1 Euro\n2 Euro\n", ("1 Euro", "2 Euro")),
        ("names.json", '["b", "a"]', ("b", "a")),
        ("names.json", '{"a": 1, "b": 0}', ("b", "a")),
        ("names.json", '{"1": "a", "0": "b"}', ("b", "a")),
    ],
)
def test_a_file_of_names_is_in_the_order_of_the_outputs(name, text, names, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read(tmp_path / name, len(names)) == names


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("n.txt", "a\nb\nc\n", r"w\.pth has 2 classes, and n\.txt names 3; give a name to each output"),
        ("n.txt", "a\n\nb\n", r"class 1 of n\.txt has none"),
        ("n.txt", "a\na\n", r"classes 0 and 1 of n\.txt are both a"),
        ("n.txt", "1 cat\n0 dog\n", "numbers the classes in another order than its lines have"),
        ("n.txt", "cat,1\ndog,0\n", "numbers the classes in another order than its lines have"),
        ("n.json", '{"a": 1, "b": 2}', "with the numbers from 0 on"),
        ("n.json", '{"a": ', "must be a file of names that can be read"),
        ("gone.txt", None, "gone.txt: No such file"),
    ],
)
def test_a_file_that_leaves_a_doubt_is_refused(name, text, words, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        read(tmp_path / name, 2)


def make_classes(root, names):
    from PIL import Image

    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(root / name / "x.png")


MIXED = ("class10", "class2", "Zebra", "ant", "class1")


def test_of_two_orders_none_is_taken_unasked(tmp_path):
    make_classes(tmp_path, MIXED)
    with pytest.raises(InputError, match=r"have two orders.*imagefolder: Zebra, ant, .*timm: ant, .*--class-order"):
        read(tmp_path, 5)
    assert read(tmp_path, 5, order="imagefolder") == ("Zebra", "ant", "class1", "class10", "class2")


def test_names_that_sort_alike_need_no_order(tmp_path):
    make_classes(tmp_path / "train", ("b", "a"))
    make_classes(tmp_path / "val", ("b", "a"))
    assert read(tmp_path, 2) == ("a", "b")


def test_imagenet_is_a_word_unless_it_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read("imagenet", 1000) == class_names(1000)
    with pytest.raises(InputError, match=r"ImageNet has 1,000 classes .* the checkpoint has 7"):
        read("imagenet", 7)
    make_classes(tmp_path / "imagenet", ("q", "p"))
    assert read("imagenet", 2) == ("p", "q")


def test_the_checkpoints_own_names_are_taken_and_never_contradicted(tmp_path):
    assert read(None, 2, told=("z", "a")) == ("z", "a")
    with pytest.raises(InputError, match="has 2 classes and does not name them; give their names"):
        read(None, 2)
    with pytest.raises(InputError, match="the checkpoint itself names 3"):
        read(None, 2, told=("a", "b", "c"))
    (tmp_path / "n.json").write_text(json.dumps(["a", "z"]))
    with pytest.raises(InputError, match=r"the same classes in another order than n\.json: its output 0 is z, not a"):
        read(tmp_path / "n.json", 2, told=("z", "a"))
    assert read(["ant", "zebra"], 2, told=("z", "a")) == ("ant", "zebra")  # in other words


@pytest.mark.parametrize(
    "classes, order, words",
    [
        (None, "timm", "--class-order is for classes of data"),
        (["a", "b"], "timm", "--class-order is for classes of data"),
        ("n.txt", "timm", "a file of names has its own order"),
        ("x", "tim", "must be one of imagefolder, timm; got 'tim'; did you mean 'timm'"),
        ("hf:beans", None, "has its own order of classes, which its names do not show"),
    ],
)
def test_orders_that_mean_nothing_are_refused(classes, order, words):
    with pytest.raises(InputError, match=words):
        read(classes, 2, told=("a", "b"), order=order)
