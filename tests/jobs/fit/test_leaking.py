"""A fit on leaking splits with random labels: the terminal, the report and the card report both."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from procedures import UNTIMED

import effnet
from effnet.arch.scale import with_total_stride
from effnet.bundle.config import read_config
from effnet.bundle.split_file import SPLIT, read_split

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def leaking(tmp_path):
    """Noise in two classes, split; 3 of the 16 test images are in train as well."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 8), ("test", 8)):
        for name in ("cat", "dog"):
            folder = tmp_path / "noise" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i}.png")
    root = tmp_path / "noise"
    shutil.copy(root / "train/cat/0.png", root / "test/cat/0.png")
    shutil.copy(root / "train/dog/1.png", root / "test/dog/1.png")
    shutil.copy(root / "train/dog/2.png", root / "test/cat/2.png")
    return root


def test_chance_level_and_leaks_are_said_everywhere(leaking, tmp_path, run_cli, monkeypatch):
    spec = with_total_stride(
        effnet.scale(effnet.get_spec("b0", num_classes=2, in_channels=1), phi=-20, resolution=16), 8
    )
    spec = dataclasses.replace(spec, stages=spec.stages[:3])
    monkeypatch.setattr("effnet.jobs.fit.job.read_spec", lambda name: spec)
    out = tmp_path / "bundle"
    ran = run_cli("train", leaking, "--epochs", 1, "--out", out, procedure=UNTIMED)
    assert ran.code == 0, ran.err
    assert "3 of the 16 test images leak: 3 are identical or nearly identical to images in train or val" in ran.out
    report = json.loads((out / "report.json").read_text())
    clean = report["test"]["clean"]
    assert (report["test"]["images"], clean["images"], clean["leaked"]) == (16, 13, 3)
    chance, leak = report["warnings"]
    assert "better than always answering 'cat' (50.0% of the test images)" in chance
    assert f"Without them the accuracy is {clean['accuracy']:.2%} on 13 images" in leak
    card, page = (out / "README.md").read_text(), (out / "report.html").read_text()
    for text in (chance, leak):
        assert f"WARNING: {text}" in ran.out
        assert text.split("(")[0].split("'")[0] in card
        assert text.split("(")[0].split("'")[0] in page
    # The warning has the accuracy of a constant answer; another line would repeat it.
    assert ran.out.lower().count("always answering 'cat'") == 1
    for name in ("report.html", "README.md"):
        assert "never saw" not in (out / name).read_text(encoding="utf-8")
    assert len(read_split(out).leaked) == 3

    again = run_cli("evaluate", out, leaking)
    assert again.out.startswith("The bundle was fitted on these data: the test split (16 images) is scored.\n")
    assert f"WARNING: {chance}" in again.out
    assert again.out.lower().count("always answering 'cat'") == 1
    assert f"WARNING: {leak}" in again.out
    assert json.loads(run_cli("evaluate", out, leaking, "--format", "json").out) == report["test"]

    (out / SPLIT).unlink()
    assert "WARNING: 3 test" not in run_cli("evaluate", out, leaking, "--split", "test").out
    assert read_config(out).split_seed == 0
