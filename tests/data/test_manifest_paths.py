"""Manifests written by other programs: other delimiters, and paths that do not match the file names exactly."""

from pathlib import Path

import pytest

from effnet.data.datasets import read_dataset
from effnet.data.manifests.paths import ImageFinder, delimiter_of
from effnet.errors import DataError


@pytest.fixture
def images(make_folder) -> Path:
    return make_folder({"a": 8, "b": 8})


@pytest.mark.parametrize(
    "header, delimiter",
    [
        ("path,label", ","),
        ("path;label;split", ";"),
        ("path\tlabel", "\t"),
        ("path|label", "|"),
        ('"path";"label, or class"', ";"),
        ("id;a,b,c;path;label", ";"),
        ("path", ","),
        ("", ","),
    ],
)
def test_the_delimiter_is_told_by_the_header(header, delimiter) -> None:
    assert delimiter_of(header) == delimiter


@pytest.mark.parametrize(
    "name, delimiter", [("m.csv", ";"), ("m.csv", "\t"), ("m.tsv", "\t"), ("m.tsv", ","), ("m.csv", "|")]
)
def test_a_manifest_is_read_whatever_separates_its_columns(images, name, delimiter) -> None:
    rows = [("Path", "Label"), *((f"{label}/{i:03d}.png", label) for label in "ab" for i in range(8))]
    (images / name).write_text("".join(delimiter.join(row) + "\n" for row in rows))
    dataset = read_dataset(images / name)
    assert dataset.test.sources == read_dataset(images).test.sources
    assert not dataset.skipped


@pytest.mark.parametrize(
    "spelling",
    [
        "{label}\\{i:03d}.png",
        " {label}/{i:03d}.png ",
        "{label}/{i:03d}",
        ".\\{label}\\{i:03d} ",
        "{label}/{i:03d}.png\t",
    ],
)
def test_a_path_is_found_however_it_is_spelled(images, spelling) -> None:
    rows = [f'"{spelling.format(label=label, i=i)}",{label} \n' for label in "ab" for i in range(8)]
    (images / "m.csv").write_text("path , label\n" + "".join(rows))
    dataset = read_dataset(images / "m.csv")
    assert not dataset.skipped
    assert sum(len(split) for split in (dataset.train, dataset.val, dataset.test)) == 16
    assert dataset.class_names == ("a", "b")


def test_two_spellings_of_a_file_are_one_row_and_two_files_of_a_name_are_none(images) -> None:
    (images / "a" / "000.jpg").write_bytes((images / "a" / "000.png").read_bytes())
    finder = ImageFinder(str(images))
    assert finder.find("a/000") is None
    assert finder.find("a/000.jpg") == str(images / "a" / "000.jpg")
    assert finder.find("nowhere/000") is None
    assert finder.find("a") is None
    assert finder.find("a/\0") is None
    rows = [f"{label}/{i:03d}.png,{label}" for label in "ab" for i in range(8)]
    (images / "m.csv").write_text("\n".join(["path,label", *rows, "b\\001,b"]))
    assert "1 rows repeat an earlier row and were ignored." in read_dataset(images / "m.csv").notes


def test_where_the_first_file_was_looked_for_is_said(images) -> None:
    (images / "m.csv").write_text("path;label\nimages/x.png;a\n")
    with pytest.raises(DataError, match="none of its 1 files exists; the first is ") as raised:
        read_dataset(images / "m.csv")
    assert str(images / "images" / "x.png") in str(raised.value)
