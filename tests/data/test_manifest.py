import json
import os
from pathlib import Path

import pytest

from effnet.data.datasets import load_image, read_dataset
from effnet.data.manifests.manifest import read_manifest
from effnet.errors import DataError


@pytest.fixture
def images(make_folder) -> Path:
    return make_folder({"a": 8, "b, c\nd": 8})


def rows(images: Path) -> list[tuple[str, str]]:
    return [(str(p.relative_to(images)), p.parent.name) for p in sorted(images.glob("*/*.png"))]


def csv_text(header: str, lines: list[tuple[str, ...]]) -> str:
    return header + "\n" + "".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in lines)


def write(images: Path, name: str, text: str) -> Path:
    path = images / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_and_jsonl_say_the_same(images: Path) -> None:
    found = rows(images)
    as_csv = write(images, "photos.csv", "\ufeff" + csv_text("Path,Label,author", [(*r, "me") for r in found]))
    lines = "\n".join(json.dumps({"path": path, "label": label}) for path, label in found)
    as_jsonl = write(images, "photos.jsonl", lines + "\n\n")
    first, second = read_dataset(as_csv, seed=3), read_dataset(as_jsonl, seed=3)
    assert first.name == "photos"
    assert first.class_names == second.class_names == ("a", "b, c\nd")
    assert first.train.sources == second.train.sources
    assert [len(s) for s in (first.train, first.val, first.test)] == [12, 2, 2]
    assert load_image(first.train, 0, channels=3).shape == (6, 8, 3)


def test_a_manifest_gives_the_split_like_its_folder(make_folder, images: Path) -> None:
    path = write(images, "m.csv", csv_text("path,label", rows(images)))
    assert read_dataset(path, seed=1).test.sources == read_dataset(images, seed=1).test.sources


def test_given_splits_and_whole_numbers_as_labels(images: Path) -> None:
    splits = ["Train", "train", "training", "dev", "validation", "test", "testing", "train"]
    lines = [
        json.dumps({"path": path, "label": 7 if label == "a" else 10, "split": split})
        for (path, label), split in zip(rows(images), splits * 2, strict=True)
    ]
    dataset = read_dataset(write(images, "m.jsonl", "\n".join(lines)))
    assert dataset.class_names == ("10", "7")
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [8, 4, 4]


def test_missing_files_are_skipped_or_an_error(images: Path) -> None:
    lines = [*rows(images), ("gone.png", "a"), ("a", "a"), ("b\0.png", "a")]
    path = write(images, "m.jsonl", "\n".join(json.dumps({"path": path, "label": label}) for path, label in lines))
    dataset = read_dataset(path)
    assert len(dataset.skipped) == 3
    assert dataset.skipped[0].reason == "no such file"
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 16
    with pytest.raises(DataError, match=r"3 cannot be used.*\n.*gone\.png: no such file"):
        read_dataset(path, strict=True)


def test_absolute_paths_are_allowed(images: Path, tmp_path: Path) -> None:
    lines = [(str(images / path), label) for path, label in rows(images)]
    path = tmp_path / "elsewhere.csv"
    path.write_text(csv_text("path,label", lines), encoding="utf-8")
    assert not read_dataset(path).skipped


def test_a_repeated_row_is_ignored(images: Path) -> None:
    path = write(images, "m.csv", csv_text("path,label", [*rows(images), rows(images)[0]]))
    listing = read_manifest(str(path))
    assert len(listing.parts[""].sources) == 16
    assert listing.notes == ("1 rows repeat an earlier row and were ignored.",)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("m.csv", "", "line 1: the columns path and label are needed; path is missing, received none"),
        ("m.csv", "path,lable\n", "label is missing, received path, lable; did you mean 'lable'"),
        ("m.csv", "path,label\n", "it has no rows"),
        (
            "m.csv",
            "path,label\nx.png,a\n",
            "none of its 1 files exists; the first is .*/x.png; paths",
        ),
        ("m.csv", "path,label\n\nx.png\n", "line 3: label must be text, received None"),
        ("m.csv", "path,label\nx.png,\n", "line 2: label must be text, received ''"),
        (
            "m.csv",
            "path,label,split\nx.png,a,trian\n",
            "line 2: split must be .*'trian'; did you mean 'train'",
        ),
        ("m.csv", "path,label\na/000.png,a\na/000.png,b\n", "line 3: .*one label and one split, but line 2"),
        ("m.csv", "path,label,split\na/000.png,a,test\n", "the split train must hold images, but only test has any"),
        ("m.csv", "path,label,split\na/000.png,a,test\na/001.png,a,\n", "every row or in none, but 1 rows"),
        ("m.csv", "path,label\n" + "x" * 200_000 + ",a\n", "line 2: not valid CSV"),
        ("m.csv", "path,label\nx.png,a\n" + "x" * 1_000_001, "line 3: a line must have at most 1,000,000 characters"),
        ("m.csv", "path,label\nx.png,a\0\n", "line 2: .*holds a NUL character; save it as UTF-8"),
        ("m.csv", 'path,label\nx.png,"a\ny.png,b\nz.png,b\n', "line 2 to 4: not valid CSV .*quote that is not closed"),
        ("m.csv", 'path,label\nx.png,"a\ny.png,"b"\n', "line 2 to 3: not valid CSV"),
        ("m.csv", "path,label\nx,1.png,a\n", "line 2: a row must have one cell per column, 2; this one has 3"),
        ("m.csv", "path,Path,label\nx.png,y.png,a\n", "line 1: .*path is named 2 times"),
        ("m.csv", "\npath,label\n", "line 1: .*path is missing, received none"),
        ("m.csv", ",,\n", "line 1: .*path is missing"),
        ("m.csv", "x" * 9000 + "\n", "line 1: .*path is missing, received x{297}[.]{3}"),
        (
            "m.csv",
            "path,label" + ",x" * 999 + "\n",
            "line 1: a manifest must have at most 1000 columns, received 1,001",
        ),
        ("m.csv", "path,label\nx.png," + "9" * 5000, "line 2: label must have at most 1,000 characters"),
        ("m.jsonl", '{"path": "x", "label": %s}\n' % ("9" * 5000), "line 1: not valid JSON .*at most 64 bits"),
        ("m.jsonl", '\n{"path": "x", "label": NaN}\n', "line 2: not valid JSON .*finite numbers; got NaN"),
        ("m.jsonl", '{"path": "x", "label": 1e999}\n', "line 1: not valid JSON .*finite numbers"),
        ("m.jsonl", "[" * 100_000, "line 1: not valid JSON .*nested too deeply"),
        (
            "m.jsonl",
            '{"path": "x", "label": [%s1]}' % ("1, " * 9999),
            r"line 1: label must be text, .*[.]{3}$",
        ),
        ("m.jsonl", '{"path": "x", "label": "a"}\n{"path"\n', "line 2: not valid JSON"),
        ("m.jsonl", "[1]\n", "line 1: must be an object"),
        ("m.jsonl", '{"path": "x"}\n', "line 1: .*label is missing"),
        ("m.jsonl", '{"path": "x", "label": null}\n', "line 1: label must be text, received None"),
        ("m.jsonl", '{"path": "x", "label": ["a", "b"]}\n', "line 1: label must be text"),
    ],
)
def test_manifests_that_cannot_be_used_say_where(images: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as refused:
        read_dataset(write(images, name, text))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600


def test_a_manifest_must_be_utf8(images: Path) -> None:
    path = images / "m.csv"
    path.write_bytes("path,label\nx.png,é\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 2: a manifest must be UTF-8 text"):
        read_dataset(path)
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        path.write_bytes("path,label\nx.png,a\n".encode(encoding))
        with pytest.raises(DataError, match="line 1: a manifest must be UTF-8 text"):
            read_dataset(path)


@pytest.mark.parametrize("ends", ["\r\n", "\r", "\n"])
def test_line_ends_may_be_any_and_mixed(images: Path, ends: str) -> None:
    lines = [f"{path},{label}" for path, label in rows(images) if label == "a"]
    text = "\ufeffpath,label\r\n" + ends.join(lines[:4]) + "\n" + "\r\n".join(lines[4:])
    listing = read_manifest(str(write(images, "m.csv", text)))
    assert len(listing.parts[""].sources) == 8


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_or_a_device_is_no_manifest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zeros.csv").symlink_to("/dev/zero")
    for name in ("pipe.csv", "zeros.csv"):
        with pytest.raises(DataError, match=f"{name} is neither a file nor a folder"):
            read_dataset(tmp_path / name)
