"""Data sets made with the package `datasets`: saved to disk, image folders, and missing parts."""

import sys

import numpy as np
import pytest
from PIL import Image

from effnet.data.datasets import load_image, read_dataset
from effnet.data.inspection.inspect import inspect_dataset
from effnet.data.shards.write import write_shards
from effnet.errors import DataError, ImageError, MissingExtraError

datasets = pytest.importorskip("datasets")

SPLITS = ("train", "val", "test")


def make_image(value):
    return Image.fromarray(np.full((6, 8, 3), value, np.uint8))


def table(count, *, start=0, names=("cat", "dog"), labels=None, columns=("image", "label")):
    """Return a table of images whose grey value is their index."""
    numbers = range(start, start + count)
    image, label = columns
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=list(names))})
    rows = {
        image: [make_image(i) for i in numbers],
        label: [i % len(names) for i in numbers] if labels is None else labels,
    }
    return datasets.Dataset.from_dict(rows, features=features)


def save(path, **tables):
    datasets.DatasetDict(tables).save_to_disk(str(path))
    return f"hf:{path}"


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def values(split):
    return [int(load_image(split, i, channels=3)[0, 0, 0]) for i in range(len(split))]


def test_splits_labels_and_images_are_those_of_the_table(tmp_path):
    data = save(
        tmp_path / "saved",
        train=table(20),
        validation=table(6, start=20),
        test=table(8, start=26, names=("cat", "dog")),
    )
    dataset = read_dataset(data)
    assert (dataset.class_names, dataset.name) == (("cat", "dog"), "saved")
    assert [values(getattr(dataset, name)) for name in SPLITS] == [[*range(20)], [*range(20, 26)], [*range(26, 34)]]
    np.testing.assert_array_equal(dataset.train.labels, np.arange(20) % 2)
    assert dataset.train.sources[3].name == f"{data}/train[3]"


def test_a_missing_split_is_made_as_for_a_folder(tmp_path):
    data = save(tmp_path / "saved", train=table(40), test=table(10, start=40))
    dataset = read_dataset(data, seed=2)
    assert [len(getattr(dataset, name)) for name in SPLITS] == [34, 6, 10]
    assert sorted(values(dataset.train) + values(dataset.val)) == list(range(40))
    assert "There is no val split" in dataset.notes[0]


def test_one_table_alone_is_split(tmp_path):
    table(40).save_to_disk(str(tmp_path / "alone"))
    dataset = read_dataset(f"hf:{tmp_path / 'alone'}")
    assert [len(getattr(dataset, name)) for name in SPLITS] == [28, 6, 6]


def test_a_folder_of_images_is_read_as_datasets_reads_it(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    dataset = read_dataset(f"hf:{photos}")
    own = read_dataset(photos)
    assert dataset.class_names == own.class_names == ("blue", "green", "red")
    pixels = [
        sorted(load_image(getattr(found, name), i, channels=3).tobytes() for name in SPLITS
               for i in range(len(getattr(found, name))))
        for found in (dataset, own)
    ]  # fmt: skip
    assert pixels[0] == pixels[1]


def test_images_are_not_decoded_before_they_are_needed(tmp_path, monkeypatch):
    data = save(tmp_path / "saved", train=table(40))
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("an image was opened"))
    assert len(read_dataset(data, channels=3).train) == 28


def test_classes_are_named_not_numbered(tmp_path):
    """Class names in non-alphabetical order, as often on the hub."""
    dataset = read_dataset(save(tmp_path / "saved", train=table(40, names=("zebra", "ape"))))
    assert dataset.class_names == ("ape", "zebra")
    found = dict(zip(values(dataset.train), dataset.train.labels.tolist(), strict=True))
    assert all(dataset.class_names[label] == ("zebra", "ape")[value % 2] for value, label in found.items())


def test_inspection_finds_nothing_odd_and_shards_can_be_made(tmp_path):
    dataset = read_dataset(save(tmp_path / "saved", train=table(40)))
    report = inspect_dataset(dataset)
    assert (report.num_examined, report.unreadable, report.wrong_suffixes, report.across_splits) == (40, (), (), ())
    write_shards(dataset, tmp_path / "out", per_shard=10)
    again = read_dataset(tmp_path / "out")
    assert [sorted(values(getattr(again, name))) for name in SPLITS] == [
        sorted(values(getattr(dataset, name))) for name in SPLITS
    ]
    assert again.train.sources[0].name.endswith(".png")


def test_rows_without_a_label_are_skipped_and_a_split_of_them_is_not_used(tmp_path):
    labels = [i % 2 for i in range(40)]
    labels[5] = -1
    data = save(tmp_path / "saved", train=table(40, labels=labels), test=table(6, labels=[-1] * 6))
    dataset = read_dataset(data)
    assert [(item.path, item.reason) for item in dataset.skipped] == [(f"{data}/train[5]", "it has no label")]
    assert "The split test has no labels, so it is not used." in dataset.notes
    assert 5 not in values(dataset.train)
    with pytest.raises(DataError, match="strict needs every file to be usable"):
        read_dataset(data, strict=True)


def test_a_split_of_another_name_is_not_used(tmp_path):
    dataset = read_dataset(save(tmp_path / "saved", train=table(40), unsupervised=table(4)))
    assert "The split unsupervised is neither train, val nor test, so it is not used." in dataset.notes
    assert sum(len(getattr(dataset, name)) for name in SPLITS) == 40


def two_labels(count):
    one = table(count, columns=("img", "fine_label"))
    coarse = [(i // 2) % 2 for i in range(count)]
    return one.add_column("coarse_label", coarse).cast_column("coarse_label", datasets.ClassLabel(names=["x", "y"]))


def test_of_several_columns_one_is_to_be_named(tmp_path):
    data = save(tmp_path / "saved", train=two_labels(40))
    with pytest.raises(DataError, match=r"one column of ClassLabel; its columns are img \(Image\), fine_label \(Cla.*"):
        read_dataset(data)
    assert read_dataset(f"{data}?label=coarse_label").class_names == ("x", "y")
    assert read_dataset(f"{data}?label=fine_label&image=img").class_names == ("cat", "dog")
    with pytest.raises(DataError, match=r"'fine_lable' is not one; did you mean 'fine_label'\?; its columns are"):
        read_dataset(f"{data}?label=fine_lable")
    with pytest.raises(
        DataError, match=r"only image and label are allowed after \?, received lable; did you mean 'label'"
    ):
        read_dataset(f"{data}?lable=fine_label")


def test_labels_that_are_texts_or_asked_for_numbers(tmp_path):
    text = table(40).cast_column("label", datasets.Value("string"))
    breeds = text.add_column("breed", [None if i == 5 else ("pug", " Dachs\u0068und ")[i % 2] for i in range(40)])
    data = save(tmp_path / "saved", train=breeds.add_column("age", [i % 3 for i in range(40)]))
    assert read_dataset(data).class_names == ("0", "1")
    dataset = read_dataset(f"{data}?label=breed")
    assert dataset.class_names == ("Dachshund", "pug")
    assert [item.reason for item in dataset.skipped] == ["it has no label"]
    assert read_dataset(f"{data}?label=age").class_names == ("0", "1", "2")
    with pytest.raises(DataError, match="must have one column of ClassLabel, but 'bread' is not one"):
        read_dataset(f"{data}?label=bread")


@pytest.mark.parametrize("kind", ["no image", "no classes"])
def test_a_table_without_a_needed_column_shows_those_it_has(kind, tmp_path):
    if kind == "no image":
        found = table(8).remove_columns("image").add_column("text", ["a"] * 8)
        message = r"train must have one column of Image; its columns are label \(ClassLabel\), text \(Value\)"
    else:
        found = table(8).cast_column("label", datasets.Value("int64"))
        message = r"train must have one column of ClassLabel; its columns are image \(Image\), label \(Value\)"
    with pytest.raises(DataError, match=message):
        read_dataset(save(tmp_path / "saved", train=found))


def test_a_image_that_vanished_from_its_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(8):
            make_image(i).save(tmp_path / "data" / name / f"{i}.png")
    dataset = read_dataset(f"hf:{tmp_path / 'data'}", channels=3)
    for path in (tmp_path / "data").rglob("*.png"):
        path.unlink()
    with pytest.raises(ImageError, match=r"^hf:.*/train\[\d+\]: no such file or directory: .*\.png$"):
        load_image(dataset.train, 0, channels=3)


@pytest.mark.parametrize("name", ["nobody/nothing-like-it", "beans", "beans:config"])
def test_offline_is_one_line(name):
    with pytest.raises(
        DataError, match=rf"^hf:{name} must be a data set on the hub, .*HF_HUB_OFFLINE forbids"
    ) as raised:
        read_dataset(f"hf:{name}")
    assert "\n" not in str(raised.value)


def test_a_name_has_to_follow():
    with pytest.raises(DataError, match="a name or folder must follow hf:"):
        read_dataset("hf:")


def test_a_folder_that_is_no_data_set_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="it cannot be loaded: ") as raised:
        read_dataset(f"hf:{tmp_path / 'empty'}")
    assert "\n" not in str(raised.value)


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r'this needs datasets, .*: pip install "effnet\[hf\]"'):
        read_dataset("hf:beans")
