"""Corrections of labels: what a file may hold, what it does to data, and how a bundle finds the same data again."""

import hashlib
import json

import numpy as np
import pytest

from effnet.arch.catalog import get_spec
from effnet.bundle.config import ModelConfig
from effnet.bundle.split_file import read_split, write_split
from effnet.data.corrections import read_corrections
from effnet.data.datasets import read_dataset
from effnet.data.preprocess import Preprocess
from effnet.data.sources.source import source_name
from effnet.errors import DataError
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.job import job_of
from effnet.jobs.fit.reading import read_data
from effnet.weights.labels import choose_images, split_record

SAVED = {"old": "dark", "who": "me", "when": "2026-01-01T00:00:00+00:00", "model": "m", "version": "1"}


@pytest.fixture
def write(tmp_path):
    """Return what writes lines into corrections.jsonl, objects or text, and returns its path."""

    def lines(*given):
        path = tmp_path / "corrections.jsonl"
        path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in given))
        return path

    return lines


def labels_of(dataset):
    """Return the label of each image by its path below the data folder."""
    splits = (dataset.train, dataset.val, dataset.test)
    return {
        dataset.listed.relative(source_name(source, "")): dataset.class_names[label]
        for split in splits
        for source, label in zip(split.sources, split.labels, strict=True)
    }


def test_the_last_line_of_an_image_counts_however_it_is_named(tiny_images, write):
    digest = hashlib.sha256((tiny_images / "dark" / "03.png").read_bytes()).hexdigest()
    file = write(
        {"path": "dark/03.png", "new": "light"},
        {"sha256": digest, "new": "middle"},
        {"path": "dark/03.png", "new": "dark"},
    )
    assert labels_of(read_dataset(tiny_images, corrections=file))["dark/03.png"] == "dark"


def test_labels_change_and_images_are_left_out(tiny_images, write):
    digest = hashlib.sha256((tiny_images / "light" / "07.png").read_bytes()).hexdigest()
    file = write(
        {"path": "dark/03.png", "new": "light", **SAVED},
        "",
        {"sha256": digest.upper(), "new": "middle"},
        {"path": "middle/01.png", "new": None},
        {"path": "middle/02.png", "new": "middle"},
        {"path": "dark/04.png", "new": "light"},
        {"path": "dark/04.png", "undo": True},
        {"path": "dark/05.png", "new": "light"},
        {"path": "dark/05.png", "new": "middle"},
    )
    before, found = labels_of(read_dataset(tiny_images)), read_dataset(tiny_images, corrections=file)
    after = labels_of(found)
    assert before.keys() - after.keys() == {"middle/01.png"}
    changed = {name: after[name] for name in after if after[name] != before[name]}
    assert changed == {"dark/03.png": "light", "light/07.png": "middle", "dark/05.png": "middle"}
    note = f"5 corrections of {file} were applied: 3 labels changed, 1 images left out, 1 labels confirmed."
    assert note in found.notes


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "a correction must be a JSON object on one line"),
        ("[]", r"must be a JSON object; got \[\]"),
        ({"path": "a", "lable": "b"}, "the keys of a correction are .*; got 'lable'"),
        ({"new": "dark"}, "must name its image by path or sha256"),
        ({"path": 3, "new": "dark"}, "must name its image by path or sha256"),
        ({"sha256": "ab", "new": "dark"}, "sha256 must be 64 hexadecimal digits; got 'ab'"),
        ({"path": "dark/03.png"}, 'must have "new", a label or null, or "undo"'),
        ({"path": "dark/03.png", "new": "dark", "undo": True}, "and not both"),
        ({"path": "dark/03.png", "new": " "}, "new must be a label, or null"),
        ({"path": "dark/03.png", "new": "drak"}, "new must be a label of the data; got 'drak'; did you mean 'dark'"),
        ({"path": "dark/99.png", "new": "dark"}, r"there is no dark/99\.png; did you mean"),
        ({"sha256": "0" * 64, "new": "dark"}, r"there is no SHA-256 000000000000\.\.\."),
        ({"path": "dark/03.png", "sha256": "0" * 64, "new": "light"}, "must be the image that was corrected"),
    ],
)
def test_an_error_names_file_and_line(line, reason, tiny_images, write):
    file = write({"path": "dark/00.png", "new": "light"}, line)
    with pytest.raises(DataError, match=rf"corrections\.jsonl:2: .*{reason}") as raised:
        read_dataset(tiny_images, corrections=file)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tiny_images, tmp_path):
    with pytest.raises(DataError, match=r"corrections must be a file that can be read; .*none\.jsonl is not"):
        read_corrections(tmp_path / "none.jsonl")


def test_a_fit_reads_them_and_its_report_counts_them(tiny_images, write, tmp_path):
    file = write({"path": "dark/03.png", "new": "light"}, {"path": "middle/01.png", "new": None})
    job = job_of(FitConfig(str(tiny_images), corrections=file, epochs=1, out=tmp_path / "out"))
    source = read_data(job)
    note = f"2 corrections of {file} were applied: 1 labels changed, 1 images left out, 0 labels confirmed."
    assert note in source.report.notes
    assert labels_of(source.dataset)["dark/03.png"] == "light"


def test_a_bundle_finds_its_corrected_split_again(tiny_images, write, tmp_path):
    file = write({"path": "dark/03.png", "new": "light"}, {"path": "middle/01.png", "new": None})
    fitted = read_dataset(tiny_images, corrections=file, seed=4)
    (folder := tmp_path / "bundle").mkdir()
    write_split(split_record(fitted), folder)
    assert read_split(folder).corrections == (("dark/03.png", "light"), ("middle/01.png", None))
    config = ModelConfig(
        arch=get_spec("b0", num_classes=3, in_channels=1),
        preprocess=Preprocess(resolution=16, mean=(0.5,), std=(0.5,)),
        class_names=fitted.class_names,
    )
    chosen = choose_images(tiny_images, folder=folder, config=config)
    assert chosen.sentence.startswith("The bundle was fitted on these data")
    assert list(chosen.split.sources) == list(fitted.test.sources)
    assert np.array_equal(chosen.split.labels, fitted.test.labels)
