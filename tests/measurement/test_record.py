"""The record behind every published number."""

import json
import subprocess

import pytest

from benchmarks.record import BenchmarkRecord, commit
from effnet.system.machine import machine, usable_cores, versions


def record(**changes):
    known = {
        "name": "cold_help", "figure": 0.2, "goal": 0.3, "unit": "s", "better": "lower", "command": "python -m x",
        "commit": "abc", "samples": {"ours": [0.2, 0.21], "theirs": [0.5]},
    }  # fmt: skip
    return BenchmarkRecord(**known | changes)


@pytest.mark.parametrize(
    "figure, better, reached",
    [(0.2, "lower", True), (0.3, "lower", True), (0.31, "lower", False), (0.2, "higher", False), (0.3, "higher", True)],
)
def test_a_goal_is_reached_from_its_own_side(figure, better, reached):
    assert record(figure=figure, better=better).reached is reached


def test_n_is_that_of_the_side_measured_least():
    assert record().n == 1
    assert record(samples={}).n == 0


def test_a_record_is_written_with_all_that_its_number_depends_on(tmp_path):
    record(details={"é": 1}).write(tmp_path / "new" / "folder" / "cold_help.json")
    found = json.loads((tmp_path / "new" / "folder" / "cold_help.json").read_text(encoding="utf-8"))
    assert (found["figure"], found["n"], found["reached"], found["details"]) == (0.2, 1, True, {"é": 1})
    assert found["samples"] == {"ours": [0.2, 0.21], "theirs": [0.5]}
    assert found["machine"].keys() == machine().keys()
    assert found["versions"] == versions()
    assert found["created"].endswith("+00:00")


def test_the_machine_and_the_versions_are_known():
    found = machine()
    assert found["cpu"]
    assert found["cores"] == usable_cores() >= 1
    assert found["memory_gb"] > 0.1
    assert {"python", "effnet", "numpy", "onnxruntime"} <= versions().keys()


def test_a_commit_is_marked_where_files_were_changed_since(tmp_path):
    def git(*words):
        who = ("-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "effnet").mkdir()
    (tmp_path / "effnet" / "a.py").write_text("1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    clean = commit(tmp_path)
    assert len(clean) == 40
    (tmp_path / "notes.txt").write_text("which no benchmark reads\n")
    assert commit(tmp_path) == clean
    (tmp_path / "effnet" / "a.py").write_text("2\n")
    assert commit(tmp_path) == clean + "+"


def test_a_folder_without_history_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit(tmp_path) == "unknown"
    assert commit(tmp_path / "absent") == "unknown"
