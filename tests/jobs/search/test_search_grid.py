"""The grid of compound scaling on images: every network is trained, the best third again, and the answer is printed."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
from procedures import UNTIMED

from effnet.arch.cost import cost
from effnet.arch.scale import scale
from effnet.errors import InputError
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.job import job_of
from effnet.jobs.search import grid
from effnet.nas.algorithms.grid import equal_cost_grid
from effnet.planner.space import list_candidates

BASE = scale("b0", phi=-6)


@pytest.fixture
def trained(monkeypatch):
    """The networks that were trained; deep ones are better, by a point for each block, whatever their seed."""
    found = []

    def train(spec, job, dataset, report, *, images, seed):
        found.append((spec, images, seed))
        return SimpleNamespace(best=0.5 + 0.01 * len(spec.blocks) + 1e-4 * (seed % 7))

    monkeypatch.setattr(grid, "train_briefly", train)
    monkeypatch.setattr(grid, "training_speed", lambda spec: 1000.0)
    return found


def run(out, **options):
    return grid.search_grid(BASE, "digits", out=out, procedure=UNTIMED, **{"minutes": 60.0} | options)


def test_every_network_of_equal_cost_is_trained_and_the_best_again(trained, tmp_path):
    found = run(tmp_path / "out")
    assert found.base.resolution == 16
    assert (found.base.in_channels, found.base.num_classes) == (1, 10)
    base = cost(found.base).macs
    assert all(abs(cost(spec).macs / base / 2 - 1) <= 0.03 for spec, _, _ in trained)
    points = len(equal_cost_grid(found.base))
    assert len(trained) == points + max(1, round(points / 3))
    assert len({seed for _, _, seed in trained}) == len(trained)
    assert len(found.scores[0]) == 2  # the published one
    deepest = max(range(points), key=lambda i: len(found.points[i].spec.blocks))
    assert len(found.answer.best.spec.blocks) == len(found.points[deepest].spec.blocks)
    written = json.loads((tmp_path / "out" / "grid.json").read_text())
    assert written["sentence"] == found.sentence
    assert [len(row["values"]) for row in written["points"]] == [len(found.scores[i]) for i in range(points)]


def test_an_interrupted_grid_goes_on(trained, tmp_path):
    whole = run(tmp_path / "whole")
    number, trained[:] = len(trained), []

    class Stopped(BaseException):
        pass

    def stop(event):
        if len(trained) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        run(tmp_path / "out", listener=stop)
    again = run(tmp_path / "out", resume=True)
    assert again.scores == whole.scores
    assert len(trained) == number + 1  # the one that was interrupted


def test_too_little_time_is_refused_with_what_suffices(trained, tmp_path):
    with pytest.raises(InputError, match=r"on 800 images, about .* minutes here; got 0.1. Give more"):
        run(tmp_path / "out", minutes=0.1)
    assert not trained


def test_the_answer_in_words(trained, tmp_path):
    found = run(tmp_path / "out")
    assert found.sentence.startswith(f"alpha {found.answer.alpha:.3g}, ")
    better = "is better than" if found.answer.beats_published else "is not better beyond noise than"
    assert better in found.sentence
    alone = dataclasses.replace(found, answer=dataclasses.replace(found.answer, gain=None))
    assert "published" not in alone.sentence
    assert math.isclose(found.answer.gain, -0.0, abs_tol=0.5)


def test_the_command_prints_the_accuracies_and_the_powers(trained, run_cli, tmp_path):
    spec = tmp_path / "base.json"
    run_cli("models", "scale", "b0", "--phi", "-6", "--out", str(spec))
    out = run_cli("models", "scale", str(spec), "--grid", "--data", "digits", "--out", str(tmp_path / "grid"))
    assert "published, phi" in out.out
    assert "Use it with --powers " in out.out
    assert "%" in out.out


def test_a_fit_scales_by_the_answer(tmp_path):
    config = FitConfig("digits", out=tmp_path / "out", powers=(1.4, 1.0, 1.2))
    space = job_of(config).procedure.space
    assert space.powers == (1.4, 1.0, 1.2)
    found = list_candidates(num_classes=10, channels=3, short_side=224, space=space)
    assert {c.spec.stem.channels for c in found if c.phi > 0 and c.family == "b0"} == {32}  # beta 1 widens nothing
    with pytest.raises(InputError, match=r"fit\.powers must be three numbers from 1 to 10"):
        job_of(dataclasses.replace(config, powers=(1.4, 0.5, 1.2)))
