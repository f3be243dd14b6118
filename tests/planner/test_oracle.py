"""A candidate's latency under background load."""

import dataclasses
import itertools

import pytest

from effnet.errors import BundleError
from effnet.measurement.budget import Budget
from effnet.measurement.timing import Timing
from effnet.planner.oracle import busy_planning, patient
from effnet.planner.space import list_candidates

(CANDIDATE,) = list_candidates(num_classes=10, channels=3, short_side=32)[:1]
CALM = Timing(
    p50_ms=2.0, p95_ms=2.2, rounds_ms=(2.0,), runs=20, load_ms=1.0, memory_mb=20.0, size_mb=1.0, threads=1, batch=1
)


def measured(latencies, budget, **others):
    """Return the result for successive latencies, the number of measurements, and the pauses."""
    taken, pauses = [], []
    given = itertools.chain(latencies, itertools.repeat(latencies[-1]))

    def measure(candidate, pace_ms):
        taken.append(candidate)
        return dataclasses.replace(CALM, p50_ms=next(given), **others)

    found = patient(measure, budget, pause=pauses.append)(CANDIDATE)
    return found.p50_ms, len(taken), pauses


def test_a_near_miss_is_measured_again_and_the_calmest_counts():
    latency, times, pauses = measured([3.0, 2.9, 2.05], Budget(latency_ms=2.3))
    assert (latency, times) == (2.05, 3)
    assert len(pauses) == 2


def test_what_keeps_the_budget_or_misses_it_by_far_is_measured_once():
    assert measured([2.0], Budget(latency_ms=2.3))[:2] == (2.0, 1)
    assert measured([9.0], Budget(latency_ms=2.3))[:2] == (9.0, 1)


def test_a_network_that_misses_another_budget_as_well_is_not_measured_again():
    assert measured([2.5], Budget(latency_ms=2.3, size_mb=0.5))[1] == 1
    assert measured([2.5], Budget(latency_ms=2.3, memory_mb=15.0))[1] == 1


def test_a_miss_that_stays_is_a_miss():
    assert measured([2.5, 2.6, 2.4], Budget(latency_ms=2.3))[:2] == (2.4, 3)


def test_what_a_neighbour_disturbed_is_measured_again_until_the_machine_is_calm():
    """Also if it meets the budget or misses it by far: predictions for others depend on it."""
    given = iter([(4.1, 0.40), (4.0, 0.41), (2.7, 0.29), (2.8, 0.28)])

    def measure(candidate, pace_ms):
        latency, pace = next(given)
        return dataclasses.replace(CALM, p50_ms=latency, pace_ms=pace)

    again = patient(measure, Budget(latency_ms=9.0), calm_ms=0.28, pause=lambda seconds: None)
    assert (again(CANDIDATE).p50_ms, again(CANDIDATE).p50_ms) == (2.7, 2.8)


def test_what_others_hide_is_measured_again_though_the_clock_of_the_machine_is_as_fast_as_ever():
    given = iter([(9.0, 0.6), (8.0, 0.6), (2.2, 0.0)])

    def measure(candidate, pace_ms):
        latency, waited = next(given)
        return dataclasses.replace(CALM, p50_ms=latency, least_ms=2.1, waited=waited, threads=2, pace_ms=0.3)

    again = patient(measure, Budget(latency_ms=9.9), calm_ms=0.3, pause=lambda seconds: None)
    found = again(CANDIDATE)
    assert (found.p50_ms, found.uncertain) == (2.2, False)


def test_it_is_said_how_many_candidates_were_measured_on_a_busy_machine():
    calm = dataclasses.replace(CANDIDATE, latency_ms=2.0, waited=0.02)
    busy = dataclasses.replace(CANDIDATE, latency_ms=2.0, waited=0.52)
    never = dataclasses.replace(CANDIDATE, latency_ms=None, waited=0.0)
    assert busy_planning([calm, never], threads=2) == ""
    said = busy_planning([calm, busy, never], threads=2)
    assert "other processes took up to 52% of the processor time (1 of 2 candidates)" in said
    assert said.endswith("the latency of 2 threads is that of the fastest runs, so plan again on a quiet machine")
    assert busy_planning([busy], threads=1).endswith("one thread counts only the time that it computed")


def test_a_measurement_that_fails_the_second_time_is_that_of_the_first():
    given = iter([2.5])

    def measure(candidate, pace_ms):
        for latency in given:
            return dataclasses.replace(CALM, p50_ms=latency)
        raise BundleError("measuring took more than 600 s")

    assert patient(measure, Budget(latency_ms=2.3), pause=lambda seconds: None)(CANDIDATE).p50_ms == 2.5


@pytest.mark.parametrize("minutes, most", [(10, 45), (1, 12)])
def test_patience_ends_before_it_takes_much_of_the_time(minutes, most):
    pauses = []

    def measure(candidate, pace_ms):
        return dataclasses.replace(CALM, pace_ms=0.5)

    again = patient(measure, Budget(latency_ms=9.0), calm_ms=0.3, minutes=minutes, pause=pauses.append)
    for _ in range(50):
        again(CANDIDATE)
    assert most - 6 < sum(pauses) <= most
