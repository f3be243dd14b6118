"""Runs as they are listed and compared: real ones of the digits, and damaged ones."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.errors import InputError
from effnet.report.runs.read import find_runs, flatten, read_run

JUST_NOW, LONG_AFTER = 1.0, 3600.0


@pytest.fixture
def runs(two_runs, tmp_path):
    """A copy of the two runs that a test may damage."""
    return shutil.copytree(two_runs, tmp_path / "runs", copy_function=shutil.copy2)


def read(folder, *, after=LONG_AFTER):
    return read_run(folder, now=time.time() + after)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_finished_run_is_what_its_report_says(two_runs):
    run, report = read(two_runs / "a"), json.loads((two_runs / "a" / "report.json").read_text())
    assert (run.state, run.problems) == ("finished", ())
    assert (run.data, run.network) == ("digits", report["network"]["name"])
    assert (run.epochs, run.planned_epochs, run.best_epoch) == (2, 2, report["training"]["best_epoch"])
    assert run.figures["val_accuracy"] == max(row["val_accuracy"] for row in report["training"]["epochs"])
    assert run.test_figure == run.figures["test_accuracy"] == report["test_accuracy"]
    assert run.seconds == report["training"]["seconds"]
    speeds = [row["images_per_second"] for row in report["training"]["epochs"]]
    assert run.images_per_second == pytest.approx(sum(speeds) / 2)  # the median of two
    assert run.when == datetime.fromisoformat(report["created"]).astimezone(UTC).isoformat()
    assert {key: run.measured[key] for key in report["measured"]} == report["measured"]
    assert run.recipe == report["training"]["recipe"]
    assert run.history == tuple(lines_of(two_runs / "a" / "run" / "attempt-1" / "metrics.jsonl"))


def test_runs_are_found_below_a_folder_the_latest_first_and_nothing_else(runs):
    (runs / "deep" / "er").mkdir(parents=True)
    (runs / "b").rename(runs / "deep" / "er" / "b")
    (runs / "images" / "cat").mkdir(parents=True)
    (runs / "images" / "report.json").write_text("{}")
    report = json.loads((runs / "a" / "report.json").read_text())
    (runs / "a" / "report.json").write_text(json.dumps({**report, "created": "2020-01-01T00:00:00+00:00"}))
    found = find_runs(runs, now=time.time())
    assert [run.folder for run in found] == [runs / "deep" / "er" / "b", runs / "a"]
    assert find_runs(runs / "images", now=time.time()) == ()
    assert [run.folder for run in find_runs(runs / "a", now=time.time())] == [runs / "a"]


@pytest.mark.parametrize("after, state", [(JUST_NOW, "running"), (LONG_AFTER, "interrupted")])
def test_a_run_without_a_report_is_running_or_interrupted(runs, after, state):
    (runs / "a" / "report.json").unlink()
    metrics = runs / "a" / "run" / "attempt-1" / "metrics.jsonl"
    first = metrics.read_text().splitlines()[0]
    metrics.write_text(first + "\n")
    run = read(runs / "a", after=after)
    assert (run.state, run.epochs, run.planned_epochs, run.problems) == (state, 1, 2, ())
    assert run.val_figure == json.loads(first)["val_accuracy"]
    assert run.seconds == json.loads(first)["seconds"]
    assert run.test_figure is None
    # The plan's counts are exact without the trained file.
    assert run.measured.keys() == {"params", "macs"}
    assert run.measured["params"] == read(runs / "b").measured["params"]


@pytest.mark.elsewhere
def test_a_run_that_is_killed_while_training_is_listed_with_what_it_has(tiny_images, tmp_path):
    """A real process, killed after its first epoch."""
    words = [
        "train", tiny_images, "--model", "lite0", "--resolution", 16, "--epochs", 5000, "--out", tmp_path / "run",
    ]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "effnet", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        assert any(line.startswith("epoch 1:") for line in process.stdout)
        assert read(tmp_path / "run", after=JUST_NOW).state == "running"
        process.kill()
    run = read(tmp_path / "run")
    assert (run.state, run.planned_epochs, run.network) == ("interrupted", 5000, "lite0")
    assert 1 <= run.epochs < 5000
    assert len(run.history) == run.epochs


def test_a_missed_budget_is_told(runs):
    path = runs / "a" / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "honoured": False}))
    assert read(runs / "a").state == "budget missed"


def test_an_attempt_is_a_run_of_its_own_and_the_report_is_that_of_the_last(runs):
    path = runs / "a" / "report.json"
    report = json.loads(path.read_text())
    path.write_text(json.dumps({**report, "attempts": report["attempts"] * 2}))
    plan = json.loads((runs / "a" / "run" / "plan.json").read_text())
    plan |= {"failed": [{"name": "first"}], "attempts": plan["attempts"] * 2}
    (runs / "a" / "run" / "plan.json").write_text(json.dumps(plan))
    shutil.copytree(runs / "a" / "run" / "attempt-1", runs / "a" / "run" / "attempt-2")
    first, second = (read(runs / "a" / "run" / f"attempt-{i}") for i in (1, 2))
    assert (first.state, first.test_figure) == ("interrupted", None)
    assert (second.state, second.test_figure) == ("finished", report["test_accuracy"])
    assert read(runs / "a").test_figure == report["test_accuracy"]
    assert first.recipe == second.recipe == plan["attempts"][0]["recipe"]


def test_a_bundle_whose_run_folder_was_deleted_still_tells_its_curves(runs):
    expected = read(runs / "a")
    shutil.rmtree(runs / "a" / "run")
    run = read(runs / "a")
    assert (run.state, run.history, run.recipe) == ("finished", expected.history, expected.recipe)
    assert run.problems == ()


def test_a_folder_of_training_alone_is_a_run(runs):
    run = read(runs / "a" / "run" / "attempt-1")
    shutil.move(runs / "a" / "run" / "attempt-1", runs / "alone")
    alone = read(runs / "alone")
    assert alone.history == run.history
    assert (alone.data, alone.recipe, alone.problems) == ("", {}, ())


PLAN, REPORT, METRICS = "run/plan.json", "report.json", "run/attempt-1/metrics.jsonl"
UNREADABLE, NO_OBJECT = " cannot be read: ", " must hold an object, but holds a "


@pytest.mark.parametrize(
    "name, text, problem",
    [
        (PLAN, b"", UNREADABLE),
        (PLAN, b"{", UNREADABLE),
        (PLAN, b"[]", NO_OBJECT + "list"),
        (PLAN, b"\xff\xfe", UNREADABLE),
        (PLAN, b'{"attempts": 3, "failed": 2, "candidates": {}}', None),
        (REPORT, b"nonsense", UNREADABLE),
        (REPORT, b"3", NO_OBJECT + "int"),
        (REPORT, b'{"a":' * 20_000, UNREADABLE),
        (REPORT, b'{"training": [], "measured": [], "test": 1}', ": a report must be as effnet fit writes it; "),
        (METRICS, b"", None),
        (METRICS, b"\0\0\0", " has no epoch in line 1"),
        (METRICS, b'{"epoch": 1, "val_accuracy": 0.5}\n{"epoch": 2, "val_acc', " has no epoch in line 2"),
        (METRICS, b'[1]\n{"val_accuracy": "much"}\n', " has no epoch in line 1"),
    ],
)
def test_a_damaged_file_is_a_line_of_the_list_and_no_traceback(runs, run_cli, name, text, problem):
    (runs / "a" / name).write_bytes(text)
    ran = run_cli("runs", "list", runs)
    assert (ran.code, ran.err) == (0, "")
    assert len(re.findall(r"^ \S*runs/[ab] ", ran.out, re.MULTILINE)) == 2
    told = [line for line in ran.out.splitlines() if line.startswith(f"{runs / 'a'}: ")]
    assert len(told) == (problem is not None)
    assert problem is None or told[0].startswith(f"{runs / 'a'}: {Path(name).name}{problem}")
    rows = json.loads(run_cli("runs", "list", runs, "--format", "json").out)
    assert sum(len(row["problems"]) for row in rows) == len(told)


@pytest.mark.parametrize("name", [PLAN, REPORT, METRICS])
def test_a_folder_in_the_place_of_a_file_is_told(runs, name):
    (runs / "a" / name).unlink()
    (runs / "a" / name).mkdir()
    assert any(Path(name).name in problem for problem in read(runs / "a").problems)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from((
            "training", "epochs", "measured", "test", "sureness", "ece", "failed", "attempts", "candidate",
            "candidates", "recipe", "options", "data", "created", "val_accuracy", "seconds", "params", "head",
            "best_epoch", "network", "name", "honoured", "dataset", "source", "method",
        )), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strange")
    (folder / "run" / "attempt-1").mkdir(parents=True)
    return folder


@settings(max_examples=80, deadline=None)
@given(plan=anything, report=anything, rows=st.lists(anything, max_size=3))
def test_whatever_json_the_files_hold_a_run_can_be_read(strange, plan, report, rows):
    (strange / "run" / "plan.json").write_text(json.dumps(plan))
    (strange / "report.json").write_text(json.dumps(report))
    (strange / "run" / "attempt-1" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read(strange)
    json.dumps(run.to_row(), allow_nan=False)


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, Path.touch])
def test_what_is_no_run_is_refused(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(InputError, match=r"RUN must be a folder that effnet fit or train wrote to; .*x has neither"):
        read(tmp_path / "x")


def test_looking_in_no_folder_is_refused_and_in_an_empty_one_finds_nothing(tmp_path, run_cli):
    ran = run_cli("runs", "list", tmp_path / "absent")
    assert ran.code == 2
    assert "FOLDER must be a folder to look for runs in" in ran.err
    ran = run_cli("runs", "list", tmp_path)
    assert (ran.code, ran.out) == (0, f"No runs in or below {tmp_path}.\n")
    assert run_cli("runs", "list", tmp_path, "--format", "json").out == "[]\n"


def test_the_list_shows_every_run_with_its_results(two_runs, run_cli):
    ran = run_cli("runs", "list", two_runs)
    assert (ran.code, ran.err) == (0, "")
    for name in "ab":
        run = read(two_runs / name)
        (line,) = (line for line in ran.out.splitlines() if line.strip().startswith(str(two_runs / name)))
        for words in ("digits", run.title, run.when[:10], "finished", "2/2", f"{run.test_figure:.2%}"):
            assert words in line
    rows = json.loads(run_cli("runs", "list", two_runs, "--format", "json").out)
    assert {row["folder"]: row["test_accuracy"] for row in rows} == {
        str(two_runs / name): json.loads((two_runs / name / "report.json").read_text())["test_accuracy"]
        for name in "ab"
    }


def test_torch_is_not_loaded_to_list_and_compare(two_runs, tmp_path, run_python):
    code = """
import json, sys
from effnet.cli.main import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["effnet", *words]
    try:
        main()
    except SystemExit as stopped:
        assert not stopped.code, stopped.code
assert not {"torch", "onnxruntime", "tensorboard"} & sys.modules.keys()
"""
    page = str(tmp_path / "page.html")
    lines = ["runs", "list", str(two_runs)], ["runs", "compare", str(two_runs / "a"), "--out", page]
    ran = run_python("-c", code, json.dumps(lines))
    assert (ran.code, ran.err) == (0, ""), ran


@settings(max_examples=40, deadline=None)
@given(
    st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1), max_leaves=8)
)
def test_flattening_keeps_every_value_under_its_path(data):
    nested = {"root": data}
    flat = flatten(nested)

    def lookup(path):
        found = nested
        for part in path.split("."):
            found = found[part]
        return found

    assert all(lookup(path) == value for path, value in flat.items())

    def leaves(value):
        return sum(map(leaves, value.values())) if isinstance(value, dict) else 1

    assert len(flat) == leaves(nested)
