"""Runs read back and compared from Python."""

import json

import pytest
from pages import check_page, words_of

import effnet
from effnet.errors import InputError


def test_runs_are_listed_with_their_figures_the_latest_first(two_runs):
    found = effnet.runs(two_runs)
    assert [run.folder.name for run in found] == sorted("ab", key=lambda name: created(two_runs, name), reverse=True)
    for run in found:
        assert isinstance(run, effnet.Run)
        report = json.loads((run.folder / "report.json").read_text())
        assert (run.state, run.task, run.epochs) == ("finished", "classification", 2)
        assert run.test_figure == run.figures["test_accuracy"] == report["test_accuracy"]
    with pytest.raises(InputError, match="FOLDER must be a folder to look for runs in"):
        effnet.runs(two_runs / "absent")


def created(folder, name):
    return json.loads((folder / name / "report.json").read_text())["created"]


def test_runs_are_compared_on_a_page(two_runs, tmp_path):
    a, b, page = two_runs / "a", two_runs / "b", tmp_path / "page.html"
    found = effnet.compare([a, str(b), a], out=page)
    assert isinstance(found, effnet.Comparison)
    assert (found.page, found.names, [run.folder for run in found.runs]) == (page, ("a", "b"), [a, b])
    assert found.differing["train.seed"] == ["0", "1"]
    words = words_of(check_page(page.read_text(encoding="utf-8")))
    first = max(found.runs, key=lambda run: run.val_figure)
    assert f"{first.folder.name} has the best accuracy on the validation images: {100 * first.val_figure:.1f}" in words
    with pytest.raises(InputError, match="RUN must be a folder that effnet fit or train wrote to"):
        effnet.compare([tmp_path], out=page)
