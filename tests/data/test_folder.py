import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from PIL import Image

from effnet.data.datasets import load_image, read_dataset
from effnet.data.sources import folder
from effnet.data.sources.folder import list_folder
from effnet.errors import DataError


def names(dataset, split: str) -> list[str]:
    return [os.path.basename(path) for path in getattr(dataset, split).sources]


def test_a_folder_of_classes_is_split(make_folder) -> None:
    root = make_folder({"dog": 20, "cat": 40})
    dataset = read_dataset(root, seed=1)
    assert dataset.name == "data"
    assert dataset.class_names == ("cat", "dog")
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [42, 9, 9]
    assert dataset.channels == 3
    assert dataset.mirror_safe
    for split in (dataset.train, dataset.val, dataset.test):
        for path, label in zip(split.sources, split.labels, strict=True):
            assert Path(path).parent.name == dataset.class_names[label]
    assert load_image(dataset.val, 0, channels=3).shape == (6, 8, 3)
    again = read_dataset(str(root), seed=1)
    assert again.train.sources == dataset.train.sources
    assert read_dataset(root, seed=2).test.sources != dataset.test.sources


def test_the_order_of_the_file_system_does_not_matter(make_folder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"a/x": 8, "a/y": 8, "b": 16})
    expected = read_dataset(root)
    scandir = os.scandir

    class Reversed:
        def __init__(self, path: str) -> None:
            with scandir(path) as entries:
                self.entries = list(entries)[::-1]

        def __iter__(self) -> Iterator:
            return iter(self.entries)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(folder.os, "scandir", Reversed)
    found = read_dataset(root)
    assert found.train.sources == expected.train.sources
    assert found.test.sources == expected.test.sources


def test_moving_the_folder_keeps_the_split(make_folder, tmp_path: Path) -> None:
    root = make_folder({"a": 20, "b": 20})
    before = read_dataset(root)
    moved = tmp_path / "another place"
    root.rename(moved)
    after = read_dataset(moved)
    assert [os.path.relpath(p, moved) for p in after.test.sources] == [
        os.path.relpath(p, root) for p in before.test.sources
    ]


@pytest.mark.parametrize("third", ["test", "Testing"])
@pytest.mark.parametrize("second", ["val", "Validation", "dev", "VALID"])
@pytest.mark.parametrize("first", ["train", "Training"])
def test_given_splits_of_any_spelling(make_folder, first: str, second: str, third: str) -> None:
    root = make_folder({f"{s}/{c}": n for s, n in ((first, 4), (second, 2), (third, 3)) for c in ("a", "b")})
    dataset = read_dataset(root)
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [8, 4, 6]
    assert dataset.notes[0] == "The splits train, val and test are used as given."


def test_a_given_val_without_test_becomes_the_test(make_folder) -> None:
    root = make_folder({"train/a": 20, "train/b": 20, "val/a": 2, "val/b": 2})
    dataset = read_dataset(root)
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [34, 6, 4]
    assert all(f"{os.sep}val{os.sep}" in path for path in dataset.test.sources)


def test_train_without_class_folders_is_a_class(make_folder) -> None:
    dataset = read_dataset(make_folder({"train": 8, "test": 8}))
    assert dataset.class_names == ("test", "train")
    dataset = read_dataset(make_folder({"train/old": 8, "bus": 8}, root="vehicles"))
    assert dataset.class_names == ("bus", "train")


def test_a_test_folder_without_labels_is_noted_and_left_out(make_folder) -> None:
    dataset = read_dataset(make_folder({"train/a": 8, "train/b": 8, "test": 3}))
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 16
    assert any("test has no class folders" in note for note in dataset.notes)


def test_two_folders_for_one_split_are_an_error(make_folder) -> None:
    root = make_folder({"train/a": 2, "train/b": 2, "val/a": 1, "valid/a": 1})
    with pytest.raises(DataError, match="val and valid both mean val"):
        read_dataset(root)


def test_layouts_that_cannot_be_used_say_what_is_expected(make_folder, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty; expected one subfolder per class"):
        read_dataset(tmp_path / "empty")
    with pytest.raises(DataError, match=r"holds 3 images but no class folders.*CSV"):
        read_dataset(make_folder({".": 3}, root="flat"))
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"the 1 folders in .* hold no images"):
        read_dataset(tmp_path / "hollow")
    with pytest.raises(DataError, match=r"at least two classes are needed, received 1 \(only\)"):
        read_dataset(make_folder({"only": 5}, root="one"))
    with pytest.raises(DataError, match="in train, but these have none there: c"):
        read_dataset(make_folder({"train/a": 3, "train/b": 3, "test/c": 1}, root="absent"))


def test_a_class_with_one_image_stays_in_train(make_folder) -> None:
    root = make_folder({"a": 10, "b": 10, "rare": 1})
    dataset = read_dataset(root)
    assert (dataset.train.labels == 2).sum() == 1
    assert 2 not in dataset.val.labels
    assert 2 not in dataset.test.labels
    assert any("fewer than 2 images" in note and "rare" in note for note in dataset.notes)
    with pytest.raises(DataError, match=r"strict.*rare"):
        read_dataset(root, strict=True)


def test_files_that_are_no_images_are_counted(make_folder) -> None:
    root = make_folder({"a": 4, "b": 4})
    for name in ("notes.txt", "more.TXT", "README", ".DS_Store", "Thumbs.db", "._1.jpg"):
        (root / "a" / name).write_text("x")
    (root / "loose.png").write_bytes(b"")
    (root / "c").mkdir()
    (root / ".git").mkdir()
    (root / "a" / ".thumbs").mkdir()
    (root / "a" / ".thumbs" / "1.png").write_bytes(b"")
    dataset = read_dataset(root, strict=True)
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 8
    text = " ".join(dataset.notes)
    assert "4 files were ignored: 2 .txt, 1 without a suffix, 1 images outside of a class folder." in text
    assert "1 class folders hold no usable image" in text


def test_formats_that_are_not_read_are_named(make_folder) -> None:
    root = make_folder({"a": 4, "b": 4})
    (root / "a" / "IMG_1.JXL").write_bytes(b"x")
    dataset = read_dataset(root)
    assert [os.path.basename(s.path) for s in dataset.skipped] == ["IMG_1.JXL"]
    assert "convert it" in dataset.skipped[0].reason
    with pytest.raises(DataError, match=r"strict needs every file .*\n.*IMG_1.JXL: .*convert"):
        read_dataset(root, strict=True)


def test_links_are_followed_but_not_in_circles(make_folder, tmp_path: Path) -> None:
    root = make_folder({"a/deep/er": 4, "b": 4})
    elsewhere = make_folder({".": 3}, root="elsewhere")
    (root / "b" / "more").symlink_to(elsewhere, target_is_directory=True)
    (root / "b" / "more again").symlink_to(elsewhere, target_is_directory=True)
    (root / "a" / "deep" / "up").symlink_to(root / "a", target_is_directory=True)
    (root / "a" / "top").symlink_to(root, target_is_directory=True)
    (root / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "a" / "self.png").symlink_to(root / "a" / "self.png")
    os.mkfifo(root / "a" / "pipe.png")
    listing = list_folder(str(root))
    part = listing.parts[""]
    assert len(part.sources) == 11
    assert part.labels.count("a") == 4
    reasons = {os.path.basename(s.path): s.reason for s in listing.skipped}
    assert set(reasons) == {"more again", "up", "top", "gone.png", "self.png", "pipe.png"}
    assert "leads to a folder that is already listed" in reasons["top"]
    assert "is broken" in reasons["gone.png"]
    assert "symbolic links" in reasons["self.png"]
    assert "regular" in reasons["pipe.png"]


def test_names_of_any_alphabet_and_paths_with_spaces(make_folder) -> None:
    # The same name as macOS and as Linux store it.
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    classes = ["猫 cat", "line\nbreak", "Ærø"]
    root = make_folder(
        {
            f"train/{composed}": 4,
            f"test/{decomposed}": 4,
            **{f"{s}/{c}": 4 for s in ("train", "test") for c in classes},
        },
        root="my\n data",
    )
    dataset = read_dataset(root)
    assert dataset.class_names == tuple(sorted([composed, *classes]))
    for i in range(len(dataset.test)):
        assert load_image(dataset.test, i, channels=3).shape == (6, 8, 3)


def test_a_name_that_is_not_utf8_is_read(make_folder) -> None:
    root = make_folder({"a": 4, "b": 4})
    (root / "a" / "000.png").rename(os.path.join(root, "a", os.fsdecode(b"\xff.png")))
    dataset = read_dataset(root)
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 8


def test_grey_images_ask_for_one_channel(make_folder) -> None:
    root = make_folder({"a": 6, "b": 6}, mode="L")
    dataset = read_dataset(root)
    assert dataset.channels == 1
    assert any("1 channel" in note for note in dataset.notes)
    assert read_dataset(root, channels=3).channels == 3
    Image.new("RGB", (3, 3)).save(root / "a" / "999.png")
    assert {read_dataset(root, seed=seed).channels for seed in range(20)} == {1, 3}


class FakeEntry:
    """A directory entry that fails if more than the folder's own record is read."""

    def __init__(self, path: str, folder: bool) -> None:
        self.path, self.name, self._folder = path, os.path.basename(path), folder

    def is_dir(self) -> bool:
        return self._folder

    def is_file(self) -> bool:
        return not self._folder

    def stat(self) -> None:
        raise AssertionError("listing must not stat a file")


def test_listing_opens_no_file_and_stats_none(monkeypatch: pytest.MonkeyPatch) -> None:
    num_files = 1_000

    class Scan:
        def __init__(self, path: str) -> None:
            classes = path == "big"
            count = 10 if classes else num_files // 10
            self.entries = (FakeEntry(f"{path}/{i}" if classes else f"{path}/{i}.jpg", classes) for i in range(count))

        def __iter__(self) -> Iterator:
            return iter(self.entries)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("listing must not open a file")

    monkeypatch.setattr(folder.os, "scandir", Scan)
    monkeypatch.setattr(folder, "_identity", lambda path: (0, hash(path)))
    monkeypatch.setattr("builtins.open", refuse)
    listing = list_folder("big")
    monkeypatch.undo()
    assert len(listing.parts[""].sources) == num_files


def test_a_class_name_that_is_no_utf8_becomes_escapes(make_folder):
    root = make_folder({"cat": 2})
    latin = os.fsencode(root) + b"/caf\xe9"
    try:
        os.mkdir(latin)
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    os.link(root / "cat" / "000.png", latin + b"/0.png")
    assert set(list_folder(str(root)).parts[""].labels) == {"cat", r"caf\udce9"}
