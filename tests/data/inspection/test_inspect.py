import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data.datasets import read_dataset
from effnet.data.inspection.findings import Spread
from effnet.data.inspection.inspect import describe, inspect_dataset
from effnet.data.inspection.unreadable import without_unreadable
from effnet.errors import DataError


@pytest.fixture
def messy(make_folder) -> Path:
    """Return a folder with one problem of each kind."""
    root = make_folder({"train/cat": 24, "train/dog": 6, "test/cat": 3, "test/dog": 3, "val/cat": 3, "val/dog": 3})
    Image.new("L", (100, 40)).save(root / "train" / "cat" / "wide.png")
    Image.new("L", (3, 2)).save(root / "train" / "cat" / "named.jpg", "PNG")
    (root / "train" / "cat" / "empty.jpg").write_bytes(b"")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    cut = root / "train" / "dog" / "cut\n1.jpg"
    Image.fromarray(noise).save(cut, "JPEG")
    cut.write_bytes(cut.read_bytes()[:-400])
    shutil.copy(root / "train" / "cat" / "000.png", root / "test" / "cat" / "copy.png")
    shutil.copy(root / "train" / "cat" / "001.png", root / "train" / "dog" / "copy.png")
    return root


def test_inspection_finds_every_trouble(messy: Path) -> None:
    calls = []
    report = inspect_dataset(read_dataset(messy), progress=lambda done, total: calls.append((done, total)))
    assert [(c.name, c.train, c.val, c.test) for c in report.classes] == [("cat", 27, 3, 4), ("dog", 8, 3, 3)]
    assert report.num_images == report.num_examined == 48
    assert calls == [(i + 1, 48) for i in range(48)]
    assert report.widths == Spread(minimum=3, median=8, maximum=100)
    assert report.heights == Spread(minimum=2, median=6, maximum=40)
    assert report.median_short_side == 6
    assert dict(report.modes) == {"RGB": 44, "L": 2}
    assert dict(report.channels) == {3: 44, 1: 2}
    reasons = {os.path.basename(s.path): s.reason for s in report.unreadable}
    assert set(reasons) == {"empty.jpg", "cut\n1.jpg"}
    assert reasons["empty.jpg"] == "the file is empty (0 bytes)"
    assert "truncated" in reasons["cut\n1.jpg"]
    assert [(os.path.basename(s.path), s.reason) for s in report.wrong_suffixes] == [("named.jpg", "it is PNG")]
    assert report.imbalance == pytest.approx(27 / 8)
    assert report.small_classes == ("dog",)


def test_duplicates_across_splits_and_labels_are_found(messy: Path) -> None:
    # make_folder draws different numbers for all files, so only the copies are identical.
    report = inspect_dataset(read_dataset(messy))
    (leak,) = report.across_splits
    assert leak.splits == ("train", "test")
    assert leak.labels == ("cat", "cat")
    assert [os.path.basename(path) for path in leak.paths] == ["000.png", "copy.png"]
    (conflict,) = report.across_labels
    assert conflict.labels == ("cat", "dog")
    assert conflict.splits == ("train", "train")


def test_the_report_goes_through_json_and_reads_as_plain_lines(messy: Path) -> None:
    report = inspect_dataset(read_dataset(messy))
    values = json.loads(json.dumps(report.to_dict()))
    assert values["median_short_side"] == 6
    assert values["classes"][0] == {"name": "cat", "train": 27, "val": 3, "test": 4}
    lines = describe(report)
    assert lines[0] == "data: 48 images, 2 classes (35 train, 6 val, 7 test)"
    text = "\n".join(lines)
    for expected in (
        "2 files cannot be decoded:",
        "cut\\n1.jpg: it cannot be decoded (image file is truncated",
        "named.jpg: it is PNG",
        "are in more than one split",
        "have different labels",
        "3.4 times the smallest",
        "fewer than 20 train images (1): dog",
        "Width 3 / 8 / 100, height 2 / 6 / 40 pixels",
        "44 RGB, 2 L",
        "The splits train, val and test are used as given.",
    ):
        assert expected in text
    assert not any("\n" in line for line in lines)


def test_classes_of_one_size_are_no_imbalance(make_folder) -> None:
    """Regression: "Imbalance: the largest class of train has 1.0 times the smallest" was printed."""
    report = inspect_dataset(read_dataset(make_folder({"cat": 20, "dog": 20})))
    assert report.imbalance == 1
    assert "Imbalance" not in "\n".join(describe(report))


def test_what_is_unreadable_can_be_dropped(messy: Path) -> None:
    dataset = read_dataset(messy)
    report = inspect_dataset(dataset)
    clean = without_unreadable(dataset, report.unreadable)
    again = inspect_dataset(clean)
    assert again.unreadable == ()
    assert len(again.skipped) == 2
    assert again.num_images == 46
    assert "2 files were skipped:" in describe(again)
    with pytest.raises(DataError, match="2 cannot be used"):
        without_unreadable(dataset, report.unreadable, strict=True)


def test_many_images_are_sampled_by_seed(make_folder) -> None:
    dataset = read_dataset(make_folder({"a": 20, "b": 20}))
    first, again = (inspect_dataset(dataset, sample=10, seed=1) for _ in range(2))
    assert first == again
    assert (first.num_examined, first.num_images) == (10, 40)
    assert "Examined a random sample of 10 images" in describe(first)[1]
    assert "sample" not in describe(inspect_dataset(dataset))[1]


def test_arrays_in_memory_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.data.inspection.inspect.decoded_image", None)
    dataset = read_dataset("digits")
    report = inspect_dataset(dataset)
    assert report.num_examined == 1797
    assert report.median_short_side == 8
    assert not report.unreadable
    leaked = replace(dataset, val=replace(dataset.val, sources=dataset.train.sources[:269]))
    assert inspect_dataset(leaked).across_splits[0].paths[0].startswith("train[")


def test_a_image_without_the_wanted_channels_is_unreadable(make_folder) -> None:
    root = make_folder({"a": 6, "b": 6})
    np.save(root / "a" / "five.npy", np.zeros((4, 4, 5), np.uint8))
    report = inspect_dataset(read_dataset(root, channels=3))
    assert [s.reason for s in report.unreadable] == ["it must have 3 channels but has 5; store it with 3 channels"]


def test_a_data_set_without_one_readable_image_is_an_error(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(4):
            (tmp_path / label / f"{i}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"none can; the first is .*\.jpg: the file is empty"):
        inspect_dataset(read_dataset(tmp_path))


def test_names_that_are_not_utf8_can_be_printed(make_folder) -> None:
    root = make_folder({"a": 4, "b": 4})
    (root / "a" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    report = inspect_dataset(read_dataset(root))
    "\n".join(describe(report)).encode("utf-8")
    json.dumps(report.to_dict()).encode("utf-8")


def test_many_classes_are_shortened(make_folder) -> None:
    report = inspect_dataset(read_dataset(make_folder({f"class {i:02d}": 3 for i in range(25)})))
    assert "  and 15 more classes" in describe(report)


def test_real_photographs_are_clean(shared_data) -> None:
    report = inspect_dataset(read_dataset(shared_data("photos7")))
    assert report.median_short_side == 256
    assert not report.unreadable
    assert not report.wrong_suffixes


def test_images_too_wide_for_a_centre_crop_are_told(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for i in range(6):
            Image.new("L", (400 + i, 88)).save(tmp_path / label / f"{i}.png")
    report = inspect_dataset(read_dataset(tmp_path))
    assert (
        "A centre crop would lose 78% of the width of the median image: fit squashes whole images into a square "
        "(--set fit.resize=squash) unless another one is given"
    ) in describe(report)
