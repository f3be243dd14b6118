"""The layout of a data folder is determined from the folders' contents, not from their names alone."""

import os
from pathlib import Path

import pytest

from effnet.data.datasets import read_dataset
from effnet.data.sources.folder import list_images
from effnet.data.sources.layout import find_layout, split_of
from effnet.errors import DataError


def sizes(root: Path) -> tuple[int, int]:
    """Return the number of classes and of test images."""
    dataset = read_dataset(root)
    return len(dataset.class_names), len(dataset.test)


@pytest.mark.parametrize(
    "first, second",
    [
        ("train", "val"), ("training_set", "test_set"), ("Training", "Testing"), ("train_images", "test_images"),
        ("seg_train/seg_train", "seg_test/seg_test"), ("train2017", "val2017"), ("trainImages", "testImages"),
    ],
)  # fmt: skip
def test_splits_of_many_names_are_no_classes(make_folder, first: str, second: str) -> None:
    root = make_folder({f"{split}/{label}": 4 for split in (first, second) for label in ("cat", "dog")})
    assert sizes(root) == (2, 8)


@pytest.mark.parametrize("other", ["annotations", "runs/exp1", "effnet-data", "seg_pred/seg_pred", "unlabelled"])
@pytest.mark.parametrize("images", [0, 3])
def test_other_folders_beside_splits_are_left_out_with_a_note(make_folder, other: str, images: int) -> None:
    splits = {f"{split}/{label}": 4 for split in ("train", "val") for label in ("cat", "dog")}
    root = make_folder(splits | {other: images})
    (root / other).mkdir(parents=True, exist_ok=True)
    assert sizes(root) == (2, 8)
    assert other.split("/")[0] in " ".join(read_dataset(root).notes)


def test_a_bundle_in_the_data_folder_is_no_class(make_folder) -> None:
    root = make_folder({"cat": 8, "dog": 8, "effnet-data/run": 4})
    for name in ("config.json", "model.safetensors"):
        (root / "effnet-data" / name).write_text("{}")
    assert read_dataset(root).class_names == ("cat", "dog")


def test_a_wrapping_folder_is_looked_through(make_folder) -> None:
    root = make_folder({f"archive/photos/{label}": 8 for label in ("cat", "dog")})
    dataset = read_dataset(root)
    assert dataset.class_names == ("cat", "dog")
    assert "archive/photos" in " ".join(dataset.notes)
    assert dataset.name == "data"


def test_folders_with_the_same_subfolders_are_refused_with_both_readings(make_folder) -> None:
    root = make_folder({f"{top}/{label}": 4 for top in ("fold1", "fold2") for label in ("cat", "dog", "owl")})
    with pytest.raises(DataError, match=r"two ways: its folders fold1, fold2 are splits.*cat, dog, owl.*or they are"):
        read_dataset(root)


def test_many_classes_with_the_same_variants_are_classes(make_folder) -> None:
    root = make_folder({f"bird{number:02d}/{sex}": 2 for number in range(12) for sex in ("female", "male")})
    assert sizes(root)[0] == 12


def test_a_class_that_is_called_train_is_refused_or_read_as_its_images_say(make_folder, tmp_path: Path) -> None:
    root = make_folder({"train": 8, "bus": 8, "tram": 8})
    assert read_dataset(root).class_names == ("bus", "train", "tram")
    unclear = make_folder({"train/steam": 4, "train/diesel": 4, "bus": 8}, root=tmp_path / "unclear")
    with pytest.raises(DataError, match=r"two ways: train is a split with the classes diesel, steam, or it is a class"):
        read_dataset(unclear)


def test_classes_with_subfolders_of_their_own_stay_classes(make_folder) -> None:
    root = make_folder({"cat/indoor": 8, "cat/outdoor": 8, "dog/beach": 8, "owl": 8})
    assert read_dataset(root).class_names == ("cat", "dog", "owl")


def test_splits_without_train_are_named_as_such(make_folder) -> None:
    root = make_folder({f"{split}/{label}": 4 for split in ("val", "test") for label in ("cat", "dog")})
    assert set(find_layout(str(root)).parts) == {"val", "test"}
    with pytest.raises(DataError, match="the split train must hold images"):
        read_dataset(root)


@pytest.mark.parametrize(
    "name, split",
    [("training_set", "train"), ("X_val", "val"), ("TestData", "test"), ("train_val", ""), ("trainers", ""), ("a", "")],
)
def test_a_name_means_one_split_or_none(name: str, split: str) -> None:
    assert split_of(name) == split


def test_links_in_circles_end(make_folder) -> None:
    root = make_folder({"cat/1": 4, "dog/1": 4})
    os.symlink(root, root / "cat" / "up")
    os.symlink(root / "dog", root / "dog" / "self")
    assert read_dataset(root).class_names == ("cat", "dog")


def test_one_lister_names_what_it_leaves_out(make_folder) -> None:
    root = make_folder({"cat": 3, "linked": 0, "__MACOSX": 2, ".ipynb_checkpoints": 2, "@eaDir": 1})
    elsewhere = make_folder({"more": 2}, root=root.parent / "elsewhere")
    os.symlink(elsewhere / "more", root / "linked-folder")
    for name in ("photo.tga", "raw.dng", "new.jxl", "._cat.jpg", "notes.txt"):
        (root / "cat" / name).write_bytes(b"x")
    found = list_images(str(root))
    assert len(found.paths) == 5
    assert sorted(os.path.basename(file.path) for file in found.skipped) == ["new.jxl", "photo.tga", "raw.dng"]
    assert any("1 .txt" in note for note in found.notes)
