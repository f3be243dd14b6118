"""A data set with names that a terminal, spreadsheet or page would execute, through every verb that shows them."""

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from messages import refused
from PIL import Image
from procedures import UNTIMED

# A colour and a title for the terminal, a second line, C1's control sequence, writing backwards, a script, a formula.
CLASSES = ("=cmd\x1b[31m\x1b]0;x\x07 <script>alert(1)<\\script>", "b\n\x9b2J\u202egnp| `c` ![x](y)")
IMAGE = "+1 \x1b[2J\n\u2066<img src=x>.png"
# Line ends part the lines of our own.
ACTING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root, rng = tmp_path_factory.mktemp("names") / "d\x1b[31m", np.random.default_rng(0)
    try:
        for number, name in enumerate(CLASSES):
            (root / name).mkdir(parents=True)
            for i in range(12):
                pixels = np.clip(60 + 120 * number + rng.normal(0, 20, (8, 8)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / name / f"{i}{IMAGE}")
    except OSError:
        pytest.skip("this file system has no such names")
    (root / CLASSES[0] / f"bad{IMAGE}").write_bytes(b"no image")
    return root


def quiet(ran):
    """Return the output, after checking that a terminal only shows it."""
    for text in (ran.out, ran.err):
        assert not ACTING.search(text), ascii(text)
    return ran


def test_looking_at_it(data, run_cli, tmp_path):
    assert "gnp| `c`" in quiet(run_cli("data", "inspect", data)).out
    found = json.loads(quiet(run_cli("data", "inspect", data, "--format", "json")).out)
    assert {row["name"] for row in found["classes"]} == set(CLASSES)
    assert quiet(run_cli("data", "shard", data, tmp_path / "shards")).code == 0
    assert quiet(run_cli("data", "inspect", data, "--strict")).code == 2
    assert IMAGE.encode("unicode_escape").decode()[:6] in refused(
        quiet(run_cli("data", "inspect", data / CLASSES[0] / IMAGE))
    )


def test_words_of_the_command_line_and_names_of_networks(run_cli, tmp_path):
    for words in (
        ["fit", IMAGE],
        ["models", "cost", IMAGE],
        ["models", "cost", "b0", IMAGE],
        [IMAGE],
        [f"--{IMAGE}"],
        ["fit", f"--{IMAGE}"],
    ):
        assert quiet(run_cli(*words)).code == 2
    for words in (["--set", f"{IMAGE}=1"], ["--set", IMAGE], ["--recipe", IMAGE], ["--model", IMAGE]):
        assert quiet(run_cli("train", "digits", *words)).code == 2
    path = tmp_path / "spec.json"
    assert run_cli("models", "scale", "b0", "--out", path).code == 0
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": CLASSES[0]}))
    for verb in ("show", "cost", "scale"):
        assert "must be printable text" in quiet(run_cli("models", verb, path)).err


@pytest.mark.elsewhere
def test_a_fit_and_what_comes_of_it(data, run_cli, tmp_path):
    out = tmp_path / "b\x1b[31m"
    words = ["fit", data, "--max-macs", "200k", "--epochs", 1, "--weights", "none", "--out", out]
    assert quiet(run_cli(*words, procedure=dataclasses.replace(UNTIMED, draws=True))).code == 0
    names = json.loads((out / "config.json").read_text())["class_names"]
    assert sorted(names) == sorted(CLASSES)
    page, card = ((out / name).read_text() for name in ("report.html", "README.md"))
    assert "<script" not in page + card
    assert "<img src=x" not in page + card
    assert "![x](y)" not in card
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", card)
    page = tmp_path / "compare.html"
    for words in (["evaluate", out, data], ["runs", "list", tmp_path], ["runs", "compare", out, "--out", page]):
        assert quiet(run_cli(*words)).code == 0
    assert "<script" not in page.read_text()
    _check_predictions(run_cli, out, data / CLASSES[0])
    assert "bad+1" in quiet(run_cli("predict", out, data / CLASSES[0] / f"bad{IMAGE}")).err


def _check_predictions(run_cli, bundle, images):
    good = [str(path) for path in sorted(images.iterdir()) if not path.name.startswith("bad")]
    assert quiet(run_cli("predict", bundle, *good)).code == 0
    found = json.loads(quiet(run_cli("predict", bundle, *good, "--format", "json")).out)
    assert [row["path"] for row in found] == good
    assert {guess["label"] for row in found for guess in row["predictions"]} == set(CLASSES)
    rows = list(csv.reader(io.StringIO(quiet(run_cli("predict", bundle, *good, "--format", "csv")).out, newline="")))
    for path, _, label, probability, _ in rows[1:]:
        assert path.startswith(("/", "\\", "C"))
        assert label[:2] in ("'=", "b\n")
        float(probability)


def test_cells_of_a_csv_are_no_formulas_and_numbers_stay_numbers(run_cli, small_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("-2+3.png")
    Image.new("L", (8, 8)).save("plain;=1.png")
    ran = run_cli("predict", small_bundle, "plain;=1.png", "--format", "csv", "--top", 1)
    assert ran.out.splitlines()[1].startswith('"plain;=1.png",1,"')
    assert re.fullmatch(r'"plain;=1.png",1,"\d",\d\.\d{6},"true"', ran.out.splitlines()[1])
    ran = run_cli("predict", small_bundle, "-", "--format", "csv", "--top", 1, stdin=b"-2+3.png\n")
    assert ran.out.splitlines()[1].startswith('"\'-2+3.png",1,')
