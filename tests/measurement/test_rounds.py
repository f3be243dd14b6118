"""Runs are timed as on a free core, with clocks that may jump."""

import pytest
from clocks import FakeClock

from effnet.errors import EffnetError
from effnet.measurement.speed.rounds import is_uncertain, run_seconds, time_round


def timed(*laps, threads=1, seconds=0.1, **options):
    """Return a round of runs that take and compute the given seconds each, the last one repeated."""
    fake = FakeClock()
    runs = fake.runs(*laps)
    return time_round(lambda: next(runs), seconds=seconds, threads=threads, clock=fake.clock, **options)


def test_a_run_that_waited_for_other_processes_counts_what_it_worked():
    assert run_seconds(0.020, 0.0199, threads=1) == 0.020
    assert run_seconds(0.050, 0.020, threads=1) == 0.020
    assert run_seconds(0.050, 0.020, threads=2) == 0.050, "threads wait for each other"
    assert run_seconds(0.00030, 0.00022, threads=1) == 0.00030, "handed from one thread to another"
    assert run_seconds(0.050, 0.0, threads=1) == 0.050, "a system that does not count what processes work"


def test_one_thread_takes_as_long_on_a_busy_machine_as_on_a_calm_one():
    """Before the fix a network of 10 ms was measured at 52, and a smaller one trained."""
    calm, busy = timed((0.010, 0.010)), timed((0.052, 0.010))
    assert calm.median_ms == busy.median_ms == 10
    assert calm.waited == 0
    assert busy.waited == pytest.approx(1 - 10 / 52)


def test_what_several_threads_take_lies_between_the_fastest_run_and_the_median():
    busy = timed((0.010, 0.020), (0.052, 0.030), threads=2, seconds=1)
    assert (busy.least_ms, busy.median_ms) == (10, 52)
    assert is_uncertain(busy.median_ms, busy.least_ms, waited=0.5, threads=2)
    assert not is_uncertain(busy.median_ms, busy.least_ms, waited=0.05, threads=2), "nobody else was there"
    assert not is_uncertain(10.5, 10, waited=0.5, threads=2), "they did not get in the way"
    assert not is_uncertain(busy.median_ms, busy.least_ms, waited=0.5, threads=1)


def test_a_round_lasts_as_long_as_asked_and_longer_for_its_least_runs():
    assert len(timed((0.010, 0.010), seconds=0.1).laps_ms) == pytest.approx(10, abs=1)
    assert len(timed((0.010, 0.010), seconds=0.1, least_runs=20, patience=10).laps_ms) == 20
    assert len(timed((0.100, 0.100), seconds=0.1, least_runs=20, patience=10).laps_ms) == pytest.approx(11, abs=1)
    assert len(timed((5.0, 5.0), seconds=0.1, least_runs=20, patience=10).laps_ms) == 3


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_a_clock_that_is_set_costs_one_run(jump):
    """Before the fix a round ended an hour later, or its runs took negative time."""
    found = timed((0.010, 0.010), (jump, 0.010), (0.010, 0.010))
    assert found.median_ms == found.least_ms == 10
    assert 3 <= len(found.laps_ms) <= 12


def test_a_clock_that_stands_still_is_an_error():
    """Before the fix it never ended."""
    with pytest.raises(EffnetError, match="the clock must advance while a model is timed; it did not in 101 runs"):
        timed((0.0, 0.010))
