"""The page that compares runs: real runs of the digits, and its numbers against those in the runs' own files."""

import itertools
import json
import re
import shutil
import time
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import NASTY, check_page, words_of

from effnet.errors import InputError
from effnet.report import text as wording
from effnet.report.runs.compare import difference, render_comparison, results, short_names, write_comparison
from effnet.report.runs.curves import curves_svg, look, spread
from effnet.report.runs.read import Run, flatten, read_run


def read(*folders):
    return [read_run(folder, now=time.time() + 3600) for folder in folders]


@pytest.fixture
def both(two_runs):
    return read(two_runs / "a", two_runs / "b")


def made(folder, *, epochs=3, recipe=None, measured=None, accuracy=0.5, **facts):
    """A made-up run for hostile contents of a page."""
    history = [
        {"epoch": i + 1, "loss": 2 - i / 9, "val_loss": 1.5, "val_accuracy": 0.4 + i / 99, "learning_rate": 0.1,
         "seconds": 60.0, "images_per_second": 100.0}
        for i in range(epochs)
    ]  # fmt: skip
    return Run(
        folder=Path(folder), when="2026-11-22T14:00:00+00:00", state="finished", epochs=epochs,
        figures={"val_accuracy": accuracy},
        measured=measured or {}, settings={"data": "digits"}, recipe=recipe or {}, history=history, problems=(),
        **facts,
    )  # fmt: skip


class Tables(HTMLParser):
    """Collects the rows of each section's tables as lists of texts, and which cells stand out."""

    def __init__(self, text):
        super().__init__()
        self.section, self.rows, self.marked, self.cell = "", {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "section":
            self.section = dict(attrs)["id"]
        elif tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        elif tag in ("td", "th"):
            self.cell = []
        if self.cell is not None and {"best", "other"} & set((dict(attrs).get("class") or "").split()):
            self.marked.append((self.section, len(self.rows[self.section]) - 1, len(self.rows[self.section][-1])))

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("".join(self.cell).strip().replace("\xa0", " "))
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell.append(data)


def test_the_page_holds_the_numbers_of_the_reports(two_runs, both, tmp_path):
    write_comparison(both, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    check_page(text)
    tables = Tables(text)
    rows = {row[0]: row[1:] for row in tables.rows["results"]}
    reports = [json.loads((two_runs / name / "report.json").read_text()) for name in "ab"]
    assert rows[""] == ["a", "b"]
    for label, values in {
        "Test accuracy": [f"{100 * r['test_accuracy']:.1f} %" for r in reports],
        "Validation accuracy": [
            f"{100 * max(e['val_accuracy'] for e in r['training']['epochs']):.1f} %" for r in reports
        ],
        "Epochs": ["2", "2"],
        "Parameters": [f"{r['network']['params']:,}" for r in reports],
        "Trained on": ["cpu", "cpu"],
        "Latency": ["1.00 ms", "1.00 ms"],
    }.items():
        assert rows[label] == values, label
    better = max((0, 1), key=lambda i: reports[i]["test_accuracy"])
    line = [row[0] for row in tables.rows["results"]].index("Test accuracy")
    assert {place for place in tables.marked if place[:2] == ("results", line)} == {("results", line, better + 1)}


def test_only_the_settings_that_differ_are_in_the_table_and_marked(both):
    text = render_comparison(both)
    tables = Tables(text)
    differing = {row[0]: row[1:] for row in tables.rows["differences"] if len(row) == 3}
    assert differing.pop("") == ["a", "b"]
    assert differing["train.seed"] == ["0", "1"]
    # Another seed gives another split, so the mean differs.
    assert differing.keys() <= {"train.seed", "preprocess.mean", "preprocess.std"}
    assert len([place for place in tables.marked if place[0] == "differences"]) == len(differing)
    alike = {row[0]: row[1] for row in tables.rows["differences"] if len(row) == 2}
    assert alike["train.epochs"] == "2"
    assert alike.keys() | differing.keys() >= flatten(both[0].recipe).keys()
    assert not alike.keys() & differing.keys()


def test_recipes_in_groups_differ_under_dotted_names_and_by_what_only_one_has():
    first = made(
        "a",
        recipe={
            "train": {"lr": 0.1, "epochs": 3},
            "augment": {"policies": ["crop", "flip"]},
            "stages": [{"share": 1}, {"share": 2}],
        },
    )
    second = made(
        "b",
        recipe={
            "train": {"lr": 0.30000000000000004, "epochs": 3},
            "augment": {"policies": []},
            "bn": True,
            "stages": [{"share": 1}],
        },
    )
    assert difference([first, second]) == {
        "train.lr": ["0.1", "0.3"],
        "augment.policies": ["crop, flip", "none"],
        "stages.2.share": ["2", "–"],
        "bn": ["–", "yes"],
    }
    assert difference([first]) == difference([first, first]) == {}


def test_curves_go_through_the_epochs_of_the_runs(both):
    """The y of each point of a path is linear in the loss, and its x in the seconds."""
    svg = curves_svg(both, ["a", "b"], "loss", title="Training loss", against="seconds")
    for index, run in enumerate(both):
        colour, _ = look(index)
        drawn = re.search(rf'<path d="([^"]*)"[^>]*style="fill: none; stroke: [^"]*{colour}', svg)[1]
        points = [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", drawn)]
        assert len(points) == len(run.history)
        both[index] = (points, run)
    (first, one), (second, other) = both
    seconds = [(one.history[0]["seconds"], first[0][0]), (sum(row["seconds"] for row in one.history), first[1][0])]
    scale = (seconds[1][1] - seconds[0][1]) / (seconds[1][0] - seconds[0][0])
    x = seconds[0][1] + scale * (other.history[0]["seconds"] - seconds[0][0])
    assert second[0][0] == pytest.approx(x, abs=0.01)
    rows = one.history
    scale = (first[1][1] - first[0][1]) / (rows[1]["loss"] - rows[0]["loss"])
    assert scale < 0
    assert second[0][1] == pytest.approx(first[0][1] + scale * (other.history[0]["loss"] - rows[0]["loss"]), abs=0.01)


def test_every_line_is_named_at_its_end_while_the_names_have_room():
    few, many = ([made(f"run {i}", accuracy=0.1) for i in range(count)] for count in (8, 9))
    for runs, named in ((few, True), (many, False)):
        names = short_names([run.folder for run in runs])
        svg = curves_svg(runs, names, "val_accuracy", title="Accuracy", against="epochs", share=True)
        texts = "".join(ElementTree.fromstring(svg).itertext())
        assert all((name in texts) == named for name in names)
    assert len({look(index) for index in range(20)}) == 20


@given(st.lists(st.floats(0, 1), max_size=8))
def test_names_are_spread_apart_in_their_order_and_stay_beside_the_plot(heights):
    placed = spread(heights, gap=0.085)
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    ranked = [placed[i] for i in order]
    assert all(second - first >= 0.085 - 1e-9 for first, second in itertools.pairwise(ranked))
    assert all(-1e-9 <= place <= 1 for place in placed)
    apart = [heights[i] for i in order]
    if all(second - first >= 0.085 for first, second in itertools.pairwise(apart)):
        assert placed == heights


def test_what_is_absent_is_left_out(both):
    bare = made("bare", epochs=0, accuracy=0.6)
    page = check_page(render_comparison([both[0], bare]))
    assert "No curves, because no epoch was trained: bare." in words_of(page)
    one = check_page(render_comparison([bare]))
    assert "bare: accuracy 60.0 % on the validation images." in words_of(one)
    assert "There is only one run." in words_of(one)
    labels = [row.label for row in results([bare])]
    assert labels == ["Validation accuracy", "Epochs"]
    assert "test accuracy" not in words_of(one).lower()
    strange = made("strange")
    strange.history[1].update(loss=float("nan"), val_loss=None, seconds="x", epoch=None)
    assert curves_svg([strange], ["strange"], "loss", title="Loss", against="epochs") is not None
    strange.history[:] = [{"epoch": 1, "loss": float("inf")}]
    assert curves_svg([strange], ["strange"], "loss", title="Loss", against="epochs") is None


def test_no_name_breaks_the_page():
    runs = [
        made(
            f"runs/{name.replace('/', '|')}x",
            recipe={name: name, "nested": {name: {}}},
            network=name,
            title=name,
            data=name,
        )
        for name in NASTY
    ]
    check_page(render_comparison(runs))
    for some in (runs[:6], runs[6:]):  # few enough for names beside the lines
        svg = curves_svg(some, short_names([run.folder for run in some]), "loss", title="Loss", against="epochs")
        ElementTree.fromstring(svg)


def test_the_best_is_marked_only_where_some_are_better():
    runs = [made("a", accuracy=0.5, measured={"params": 5}), made("b", accuracy=0.7, measured={"params": 5})]
    found = {row.label: row for row in results([*runs, made("c", accuracy=None)])}
    assert found["Validation accuracy"].best == [False, True, False]
    assert found["Validation accuracy"].texts[2] == wording.ABSENT
    assert found["Parameters"].best == [False, False, False]


@pytest.mark.parametrize(
    "folders, names",
    [
        (["/x/a", "/x/b"], ["a", "b"]),
        (["/x/a/out", "/x/b/out"], ["a/out", "b/out"]),
        (["/x/a/run/attempt-1", "/x/a/run/attempt-2"], ["attempt-1", "attempt-2"]),
        (["/x/a", "/x/a/a", "/y/a"], ["x/a", "a/a", "y/a"]),
        (["/a", "/b/a"], ["/a", "b/a"]),
        (["/only/one"], ["one"]),
    ],
)
def test_runs_are_called_by_what_tells_them_apart(folders, names):
    assert short_names([Path(folder) for folder in folders]) == names


def test_compare_writes_the_page_and_prints_a_table(two_runs, tmp_path, run_cli):
    a, b, page = two_runs / "a", two_runs / "b", tmp_path / "page.html"
    ran = run_cli("runs", "compare", a, b, a, "--out", page)
    assert (ran.code, ran.err) == (0, "")
    for name in "ab":
        (line,) = re.findall(rf"^ {name} +.*%.*$", ran.out, re.MULTILINE)
        assert f"{json.loads((two_runs / name / 'report.json').read_text())['test_accuracy']:.2%}" in line
    assert re.search(r"^ train\.seed +0 +1 *$", ran.out, re.MULTILINE)
    assert ran.out.endswith(f"Page: {page}\n")
    assert check_page(page.read_text(encoding="utf-8")).tags["section"] == 4
    assert "Comparison of 2 runs" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["a", "absent"],
            r"RUN must be a folder that effnet fit or train wrote to; \S*absent has neither run/plan.json",
        ),
        (["a", "--out", "."], r"--out must be the page to write, such as \S*compare.html; \S* is a folder"),
        (
            ["a", "--out", "no/such/page.html"],
            r"--out must lie in a folder that exists; there is no folder \S*no/such",
        ),
        (["a", "--out", "a/report.json/x.html"], r"--out must lie in a folder that exists"),
        (["begun"], r"each RUN must have finished an epoch; \S*begun has not. `effnet runs list` shows their progress"),
    ],
)
def test_what_cannot_be_compared_is_refused(two_runs, tmp_path, run_cli, words, message):
    shutil.copytree(two_runs / "a", tmp_path / "a")
    (tmp_path / "begun" / "run").mkdir(parents=True)
    shutil.copy(two_runs / "a" / "run" / "plan.json", tmp_path / "begun" / "run")
    ran = run_cli("runs", "compare", *(word if word.startswith("--") else tmp_path / word for word in words))
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert re.match(f"effnet: {message}", ran.err), ran.err
    assert ran.out == ""


def test_a_page_that_cannot_be_written_is_refused_and_leaves_nothing(both, tmp_path, monkeypatch):
    def fail(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("effnet.system.files.os.replace", fail)
    with pytest.raises(InputError, match=r"--out must be a file that can be written; .*page.html cannot: Permission"):
        write_comparison(both, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_no_run_at_all_is_refused(tmp_path, run_cli):
    with pytest.raises(InputError, match="at least one RUN to compare; got none"):
        write_comparison([], tmp_path / "page.html")
    ran = run_cli("runs", "compare")
    assert ran.code == 2
    assert "Missing argument 'RUN" in ran.err
