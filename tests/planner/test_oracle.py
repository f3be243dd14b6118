"""A candidate's measurement against the budget, and the words about background load."""

import dataclasses
import itertools
from pathlib import Path

import pytest

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.measurement.budget import Budget
from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.measurement.speed.timing import Timing
from effnet.planner.oracle import busy_planning, machine_pace, measure_random
from effnet.planner.space import list_candidates
from effnet.planner.target import Target

(CANDIDATE,) = list_candidates(num_classes=10, channels=3, short_side=32)[-1:]
CALM = Timing(
    p50_ms=2.0, p95_ms=2.2, rounds_ms=(2.0,), runs=20, load_ms=1.0, memory_mb=20.0, size_mb=1.0, threads=1, batch=1
)


@pytest.fixture
def measured(tmp_path):
    """Return a function that measures a candidate with successive latencies: the result, and the pauses."""

    def run(latencies, budget):
        given, pauses = itertools.chain(latencies, itertools.repeat(latencies[-1])), []

        def once(path, *, runtime, **_):
            assert Path(path).is_file()
            assert runtime == "onnxruntime"
            return dataclasses.replace(CALM, p50_ms=next(given))

        stopwatch = Stopwatch(once=once, quiet_pace=lambda threads: 0.3, pause=pauses.append)
        series = stopwatch.series(stopwatch.planning)
        found = measure_random(CANDIDATE, tmp_path, target=Target(), budget=budget, series=series)
        return found.p50_ms, pauses

    return run


def test_a_near_miss_is_measured_again_and_the_calmest_counts(measured):
    assert measured([3.0, 2.9, 2.05], Budget(latency_ms=2.3)) == (2.05, [0.5, 2.0])


def test_what_keeps_the_budget_or_misses_it_by_far_is_measured_once(measured):
    assert measured([2.0], Budget(latency_ms=2.3)) == (2.0, [])
    assert measured([9.0], Budget(latency_ms=2.3)) == (9.0, [])
    assert measured([9.0], Budget(memory_mb=1.0)) == (9.0, [])


def test_a_network_that_misses_another_budget_as_well_is_not_measured_again(measured):
    assert measured([2.5], Budget(latency_ms=2.3, size_mb=0.5))[1] == []
    assert measured([2.5], Budget(latency_ms=2.3, memory_mb=15.0))[1] == []


def test_the_speed_of_the_machine_is_that_of_one_measurement_without_the_time_it_waited():
    clock = iter([10.0, 13.0])
    stopwatch = Stopwatch(
        once=lambda path, **_: dataclasses.replace(CALM, waited=0.2, p50_ms=8.0, least_ms=8.0),
        clock=lambda: next(clock),
    )
    pace = machine_pace(0.5, target=Target(), stopwatch=stopwatch)
    macs = cost(get_spec("lite0")).macs
    assert (pace.read, pace.measure) == (0.5, 3.0)
    assert pace.mac == pytest.approx(8e-3 / 0.8 / macs)


def test_it_is_said_how_many_candidates_were_measured_on_a_busy_machine():
    calm = dataclasses.replace(CANDIDATE, latency_ms=2.0, waited=0.02)
    busy = dataclasses.replace(CANDIDATE, latency_ms=2.0, waited=0.52)
    never = dataclasses.replace(CANDIDATE, latency_ms=None, waited=0.0)
    assert busy_planning([calm, never], threads=2) == ""
    said = busy_planning([calm, busy, never], threads=2)
    assert "other processes took up to 52% of the processor time (1 of 2 candidates)" in said
    assert said.endswith("the latency of 2 threads is that of the fastest runs, so plan again on a quiet machine")
    assert busy_planning([busy], threads=1).endswith("one thread counts only the time that it computed")
