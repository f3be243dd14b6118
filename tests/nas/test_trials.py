"""Trials: candidates that meet the budget are trained briefly, weak ones are stopped early, and the best is taken."""

import dataclasses

import pytest
from devices import timing

from effnet.errors import InputError
from effnet.measurement.budget import Budget
from effnet.nas.trials import ROUNDS, Trials, run_trials
from effnet.planner.events import Measured, Said
from effnet.planner.plan import make_plan
from effnet.planner.space import list_candidates
from effnet.progress import ignore

CANDIDATES = [c for c in list_candidates(num_classes=10, channels=3, short_side=32) if c.cost.macs < 50e6]


def measure(found):
    return dataclasses.replace(timing(found.cost.macs * 1e-7), size_mb=found.size_mb)


@pytest.fixture(scope="module")
def planned():
    return make_plan(CANDIDATES, Budget(latency_ms=2.0), measure=measure, train_speed=lambda spec: 1e9, listener=ignore)


class Trainer:
    """A training whose result is known: networks of the favoured family are better, and all get better with time."""

    def __init__(self, favourite="lite0"):
        self.favourite, self.rounds = favourite, {}

    def __call__(self, candidate, heard):
        best = 0.0
        for number in range(1, ROUNDS + 1):
            best = (0.8 if candidate.family == self.favourite else 0.4) * (0.5 + number / (2 * ROUNDS))
            self.rounds[candidate.spec] = number
            if not heard(number, best):
                break
        return best


def run(table, folder, score, *, number=8, listener=ignore, **options):
    settings = {"budget": Budget(latency_ms=2.0), "key": "one"} | options
    trials = Trials(number=number, seconds=600.0)
    return run_trials(table, trials=trials, measure=measure, score=score, folder=folder, listener=listener, **settings)


def taken(table):
    (found,) = [c for c in table if c.status == "taken"]
    return found


def test_the_best_of_the_trials_is_taken_and_says_so(planned, tmp_path):
    table = [c for c in planned if c.status != "unmeasured"]
    best = taken(run(table, tmp_path, Trainer()))
    assert best.family == "lite0"
    assert best.trial_accuracy == pytest.approx(0.8)
    assert best.reason == "meets every budget; 80.0% after 9 of 9 rounds of trials"
    assert best.latency_ms <= 1.8


def test_the_largest_of_the_best_kind_is_taken_though_it_was_not_tried(planned, tmp_path):
    """The plan has measured few networks of a kind, so the best of the trials may leave much of the budget."""
    trained, measured = Trainer(), []

    def ask(found):
        measured.append(found.spec)
        return measure(found)

    trials = Trials(number=2, seconds=600.0)
    table = run_trials(
        planned, Budget(latency_ms=2.0), trials, measure=ask, score=trained, folder=tmp_path, key="one", listener=ignore
    )  # fmt: skip
    best, winner = taken(table), max((c for c in table if c.trial_accuracy), key=lambda c: c.trial_accuracy)

    def kind(c):
        return c.family, c.precision, c.spec.resolution, c.spec.total_stride, len(c.spec.stages)

    within = [c for c in table if kind(c) == kind(winner) and c.cost.macs * 1e-7 <= 1.8]
    assert best.cost.macs == max(c.cost.macs for c in within) > winner.cost.macs
    assert best.latency_ms == pytest.approx(best.cost.macs * 1e-7)
    assert best.trial_accuracy is None
    assert best.reason == f"meets every budget; the largest like {winner.title}, the best of the trials"
    assert winner.status == "fits"
    assert len([spec for spec in measured if spec not in trained.rounds]) <= 4


def test_trials_end_with_their_time_and_not_by_the_clock_on_the_wall(planned, tmp_path):
    now, trainer = [0.0], Trainer()

    def score(candidate, heard):
        now[0] += 250.0
        return trainer(candidate, heard)

    run(planned, tmp_path, score, clock=lambda: now[0])
    assert len(trainer.rounds) == 3  # of 600 seconds


def test_a_clock_that_is_set_back_ends_trials_by_their_number(planned, tmp_path):
    now, trainer = [0.0], Trainer()

    def score(candidate, heard):
        now[0] -= 3600.0
        return trainer(candidate, heard)

    run(planned, tmp_path, score, number=4, clock=lambda: now[0])
    assert 1 < len(trainer.rounds) <= 4


def test_what_falls_behind_is_stopped_early(planned, tmp_path):
    trainer = Trainer()
    run(planned, tmp_path, trainer, number=12)
    rounds = sorted(trainer.rounds.values())
    assert rounds[0] in (1, 3)
    assert rounds[-1] == ROUNDS
    assert sum(rounds) < 0.8 * ROUNDS * len(rounds)


def test_what_breaks_the_budget_once_measured_is_never_trained(planned, tmp_path):
    trainer, events = Trainer(), []
    table = run(planned, tmp_path, trainer, number=20, listener=events.append)
    assert any(isinstance(event, Measured) and event.candidate.status == "rejected" for event in events)
    assert all(measure(c).p50_ms <= 1.8 for c in table if c.spec in trainer.rounds)
    assert all(c.trial_accuracy is None for c in table if c.status == "rejected")
    assert len({c.spec for c in table if c.trial_accuracy is not None}) == len(trainer.rounds)
    assert any(isinstance(event, Said) and event.text.startswith("Trial: ") for event in events)


def test_an_interrupted_search_goes_on_where_it_was(planned, tmp_path):
    first, second = Trainer(), Trainer()
    run(planned, tmp_path, first, number=3)
    table = run(planned, tmp_path, second, number=8)
    assert not first.rounds.keys() & second.rounds.keys()
    assert taken(table).family == "lite0"
    third = Trainer()
    again = run(planned, tmp_path, third, number=8)
    assert taken(again) == taken(table)
    assert not third.rounds
    assert [c.latency_ms for c in again if c.trial_accuracy] == [c.latency_ms for c in table if c.trial_accuracy]


def test_a_resumed_search_draws_what_an_uninterrupted_one_does(planned, tmp_path):
    """A sampler with a seed would draw its first candidates again."""
    whole = run(planned, tmp_path / "whole", Trainer(), number=12)
    for number in (2, 5, 12):
        parts = run(planned, tmp_path / "parts", Trainer(), number=number)
    assert parts == whole


def test_trials_with_other_options_are_not_resumed(planned, tmp_path):
    other = Trainer()
    run(planned, tmp_path, Trainer(), number=4)
    run(planned, tmp_path, other, number=4, key="two")
    assert len(other.rounds) >= 3  # a drawn one may exceed the budget


def test_a_damaged_log_is_named(planned, tmp_path):
    run(planned, tmp_path, Trainer(), number=1)
    (log,) = tmp_path.glob("trials-*.log")
    log.write_text("{\n{\n")
    with pytest.raises(InputError, match=r"trials-\w+\.log must hold a search; it cannot be read"):
        run(planned, tmp_path, Trainer())
