import argparse
import ast
import json
from pathlib import Path

import pytest

from benchmarks import harness

ROOT = Path(__file__).resolve().parent.parent
RECORDS = sorted((ROOT / "benchmarks" / "records").glob("*.json"))
NO_BENCHMARKS = (
    "__init__",
    "assemble_rivals",
    "cifar",
    "detect_fits",
    "detect_rivals",
    "detect_rivals_effdet",
    "detect_rivals_networks",
    "detect_rivals_speed",
    "fashion",
    "harness",
    "nas_tables",
    "open_loop",
    "label_draws",
    "peers",
    "readme",
    "sentences",
    "sentences_dense",
    "sentences_serving",
    "unknowns_file",
    "timm_cifar",
    "record",
    "screenshots",
    "timm_finetune",
    "timm_minutes",
    "train_steps",
)
SCRIPTS = [p for p in sorted((ROOT / "benchmarks").glob("*.py")) if p.stem not in NO_BENCHMARKS]


def finish(tmp_path, monkeypatch, *, figure, better="lower", check=False):
    monkeypatch.setattr(harness, "RECORDS", tmp_path)
    monkeypatch.setattr("sys.argv", ["/somewhere/benchmarks/name.py", "/data/photos", "--n", "3", "--record"])
    args = argparse.Namespace(check=check, record=True, n=3)
    samples = {"ours": [1.0, 2.0, 3.0], "theirs": [4.0, 5.0, 6.0]}
    harness.finish("name", args, figure=figure, goal=2.0, unit="s", better=better, samples=samples)


def test_the_last_line_and_the_record_hold_figure_and_goal(tmp_path, monkeypatch, capsys):
    finish(tmp_path, monkeypatch, figure=1.5)
    assert capsys.readouterr().out.splitlines()[-1] == "name: 1.5 s (goal at most 2 s)"
    record = json.loads((tmp_path / "name.json").read_text())
    assert (record["figure"], record["goal"], record["n"], record["reached"]) == (1.5, 2.0, 3, True)
    assert record["command"] == "python -m benchmarks.name photos --n 3"
    assert record["samples"] == {"ours": [1.0, 2.0, 3.0], "theirs": [4.0, 5.0, 6.0]}


def test_a_run_is_added_to_the_record_of_earlier_ones_if_they_compare(tmp_path, monkeypatch, capsys):
    finish(tmp_path, monkeypatch, figure=1.5)
    record = json.loads((tmp_path / "name.json").read_text())
    record["details"] = {"minutes": 4, "a:20": 1.0, "a:100": 2.0}
    (tmp_path / "name.json").write_text(json.dumps(record))
    samples, details = harness.added("name", {"theirs": [7.0]}, {"minutes": 4, "a:100": 3.0}, same=("minutes",))
    assert samples == {"ours": [1.0, 2.0, 3.0], "theirs": [7.0]}
    run = {key: record[key] for key in ("command", "commit", "created")}
    assert details == {"minutes": 4, "a:20": 1.0, "a:100": 3.0, "earlier": [run]}
    with pytest.raises(SystemExit, match="2"):
        harness.added("name", {}, {"minutes": 10}, same=("minutes",))
    assert "minutes must be that of the record, 4, not 10" in capsys.readouterr().err


def test_a_finished_run_is_found_again_and_one_with_other_settings_is_run(tmp_path):
    made = []

    def run(seconds):
        return harness.cached(
            tmp_path / "new" / "run.json", lambda: {"number": made.append(0) or len(made)}, asked={"seconds": seconds}
        )

    assert [run(3), run(3), run(4), run(4)] == [
        {"number": 1, "seconds": 3},
        {"number": 1, "seconds": 3},
        {"number": 2, "seconds": 4},
        {"number": 2, "seconds": 4},
    ]


@pytest.mark.parametrize(("figure", "better"), [(2.5, "lower"), (1.5, "higher")])
def test_a_missed_goal_exits_with_1_only_when_checked(tmp_path, monkeypatch, figure, better):
    finish(tmp_path, monkeypatch, figure=figure, better=better)
    with pytest.raises(SystemExit) as caught:
        finish(tmp_path, monkeypatch, figure=figure, better=better, check=True)
    assert caught.value.code == 1


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_record_is_whole_and_names_no_path(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert {"name", "figure", "goal", "command", "commit", "versions", "machine", "n", "samples"} <= record.keys()
    assert record["name"] == path.stem
    assert len(record["commit"]) == 40, "records are made from a clean checkout"
    assert all(len(values) >= record["n"] >= 1 for values in record["samples"].values())
    assert "/" not in record["command"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_benchmark_says_what_it_measures_and_can_be_checked_and_recorded(path):
    text = path.read_text(encoding="utf-8")
    assert f"python -m benchmarks.{path.stem}" in (ast.get_docstring(ast.parse(text)) or "")
    assert "finish(" in text
    assert "options(" in text or '"--check"' in text
