"""The one policy for a noisy machine, with scripted measurements and a fake clock."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from devices import timing

from effnet.errors import BundleError
from effnet.measurement.speed.pace import DISTURBED
from effnet.measurement.speed.stopwatch import FINISHED, PLANNING, Compared, Patience, Stopwatch, joined
from effnet.measurement.speed.timing import Timing

FILE = Path("model.onnx")
CALM = dataclasses.replace(timing(2.0), memory_mb=20.0, size_mb=1.0)


class Machine:
    """A stopwatch on a machine that follows a script; the last measurement is repeated for ever.

    Each is a Timing, a latency in ms or an error; `takes` are the seconds of a measurement by the fake clock.
    """

    def __init__(self, *script, quiet=(math.inf,), takes=0.0):
        self.script, self.quiet, self.takes = self._endless(script), self._endless(quiet), takes
        self.now, self.calls, self.pauses, self.asked = 0.0, [], [], 0

    @staticmethod
    def _endless(values):
        return itertools.chain(values, itertools.repeat(values[-1]))

    def once(self, path, **options):
        self.calls.append((path, options))
        self.now += self.takes
        found = next(self.script)
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, Timing) else dataclasses.replace(CALM, p50_ms=found)

    def pause(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    def quiet_pace(self, threads):
        self.asked += 1
        return next(self.quiet)

    @property
    def watch(self):
        return Stopwatch(once=self.once, quiet_pace=self.quiet_pace, clock=lambda: self.now, pause=self.pause)

    @property
    def paces(self):
        return [options["pace_ms"] for _, options in self.calls]


def plan(machine, *, limit=math.inf, **options):
    """Measure one candidate of a plan; a latency above the limit is doubtful."""
    series = machine.watch.series(PLANNING, **options)
    return series.measure(FILE, doubtful=lambda found: found.latency_ms > limit)


def finish(machine, *, limit=math.inf, **options):
    """Measure a finished file for as long as its latency is above the limit."""
    return machine.watch.measure(FILE, doubtful=lambda found: found.p50_ms > limit, **options)


def test_productions_policy_is_the_default():
    assert Stopwatch().planning is PLANNING
    assert Stopwatch().finished is FINISHED
    assert (PLANNING.rounds, PLANNING.seconds, PLANNING.pauses, PLANNING.looks) == (3, 0.1, (0.5, 2.0, 5.0), 2)
    assert (PLANNING.most_seconds, PLANNING.most_share) == (45.0, 0.2)
    assert (FINISHED.rounds, FINISHED.seconds, FINISHED.pauses) == (5, 0.3, (1, 2, 4, 6, 8, 10))


def test_a_candidate_is_measured_once_on_a_quiet_machine():
    machine = Machine(2.0, quiet=(0.3,))
    assert plan(machine, threads=2).counts.p50_ms == 2.0
    options = {"threads": 2, "rounds": 3, "seconds": 0.1, "runtime": None, "pace_ms": DISTURBED * 0.3}
    assert (machine.calls, machine.pauses, machine.asked) == ([(FILE, options)], [], 1)


def test_a_doubtful_candidate_is_measured_again_and_the_quietest_counts():
    machine = Machine(3.0, 2.9, 2.05)
    found = plan(machine, limit=2.1)
    assert (found.counts.p50_ms, machine.pauses) == (2.05, [0.5, 2.0])
    assert [each.p50_ms for each in found.timings] == [3.0, 2.9, 2.05]


def test_a_candidate_that_stays_doubtful_on_a_quiet_machine_is_measured_three_times():
    machine = Machine(2.5, 2.6, 2.4)
    assert plan(machine, limit=2.1).counts.p50_ms == 2.4
    assert machine.pauses == [0.5, 2.0]


def test_what_background_load_disturbed_is_measured_again_until_the_machine_is_quiet():
    """Also if nothing is doubtful: predictions for other candidates depend on it."""
    given = [(4.1, 0.40), (4.0, 0.41), (2.7, 0.29), (2.8, 0.28)]
    machine = Machine(*(dataclasses.replace(CALM, p50_ms=ms, pace_ms=pace) for ms, pace in given), quiet=(0.28,))
    series = machine.watch.series(PLANNING)
    assert [series.measure(FILE).counts.p50_ms for _ in range(2)] == [2.7, 2.8]
    assert machine.asked == 1, "the series knows the quiet machine"


def test_a_faster_pace_than_known_shows_how_fast_the_quiet_machine_is():
    given = [(2.0, 0.2), (3.0, 0.3), (2.1, 0.2)]
    machine = Machine(*(dataclasses.replace(CALM, p50_ms=ms, pace_ms=pace) for ms, pace in given), quiet=(0.3,))
    series = machine.watch.series(PLANNING)
    assert [series.measure(FILE).counts.p50_ms for _ in range(2)] == [2.0, 2.1]
    assert machine.paces == pytest.approx([DISTURBED * 0.3, DISTURBED * 0.2, DISTURBED * 0.2])


def test_a_hidden_latency_is_measured_again_though_the_pace_is_as_fast_as_ever():
    given = [(9.0, 0.6), (8.0, 0.6), (2.2, 0.0)]
    script = [
        dataclasses.replace(CALM, p50_ms=ms, least_ms=2.1, waited=waited, threads=2, pace_ms=0.3)
        for ms, waited in given
    ]
    found = plan(Machine(*script, quiet=(0.3,))).counts
    assert (found.p50_ms, found.uncertain) == (2.2, False)


def test_a_repetition_that_fails_leaves_the_earlier_measurement():
    machine = Machine(2.5, BundleError("measuring took more than 600 s"))
    assert plan(machine, limit=2.1).counts.p50_ms == 2.5
    with pytest.raises(BundleError, match="more than 600 s"):
        plan(machine)


@pytest.mark.parametrize("minutes, most", [(math.inf, 45), (10, 45), (1, 12)])
def test_the_patience_of_a_plan_ends_before_it_takes_much_of_the_time(minutes, most):
    machine = Machine(dataclasses.replace(CALM, pace_ms=0.5), quiet=(0.3,))
    series = machine.watch.series(PLANNING, minutes=minutes)
    for _ in range(50):
        series.measure(FILE)
    assert most - 6 < sum(machine.pauses) <= most


def test_repeated_measurements_take_of_the_patience_too():
    machine = Machine(dataclasses.replace(CALM, pace_ms=0.5), quiet=(0.3,), takes=4.0)
    series = machine.watch.series(PLANNING)
    for _ in range(50):
        series.measure(FILE)
    # 19.5 s for three repetitions with their pauses, twice; 6 s are left for one of 4.5 s, then none.
    assert machine.pauses == [0.5, 2.0, 5.0] * 2 + [0.5, 0.5]


def test_rounds_are_added_under_background_load_only_if_there_is_time_for_them():
    machine = Machine(2.0, quiet=(0.3,))
    for left in (41, 40):
        plan(machine, left=lambda left=left: left)
    assert machine.paces == [DISTURBED * 0.3, math.inf]


def test_a_finished_file_that_is_not_doubtful_is_measured_once_whatever_the_machine_does():
    machine = Machine(dataclasses.replace(CALM, pace_ms=9.0), quiet=(0.3,))
    assert finish(machine).counts.p50_ms == 2.0
    options = {"threads": 1, "rounds": 5, "seconds": 0.3, "runtime": None, "pace_ms": math.inf}
    assert (machine.calls, machine.asked) == ([(FILE, options)], 0)


def test_a_finished_file_is_measured_again_with_longer_and_longer_pauses():
    machine = Machine(3.0, quiet=(0.5, 0.4, 0.6))
    assert len(finish(machine, limit=2.1).timings) == 7
    assert machine.pauses == [1, 2, 4, 6, 8, 10]
    # The pace of the quiet machine is that of the quietest moment so far.
    assert machine.paces == pytest.approx([math.inf, DISTURBED * 0.5] + [DISTURBED * 0.4] * 5)
    machine = Machine(3.0, 3.1, 2.0)
    assert finish(machine, limit=2.1).counts.p50_ms == 2.0
    assert machine.pauses == [1, 2]


def test_the_measurement_that_counts_is_the_callers_choice_and_knows_the_fastest_run_of_all():
    script = [dataclasses.replace(CALM, p50_ms=ms, least_ms=least) for ms, least in ((3.0, 1.9), (2.5, 2.4))]
    found = finish(Machine(*script), limit=2.1, rank=lambda timing: abs(timing.p50_ms - 3.0))
    assert (found.counts.p50_ms, found.counts.least_ms, found.timing.least_ms) == (3.0, 1.9, 1.9)
    found = finish(Machine(*script), limit=2.1)
    assert (found.timing.p50_ms, found.timing.least_ms) == (2.5, 1.9)


@pytest.mark.parametrize("left, times", [(62, 2), (61, 2), (60, 1)])
def test_a_finished_file_is_measured_again_only_if_thrice_the_time_of_the_last_is_left(left, times):
    """A measurement took 20 s; it is measured again after 1 s, if it may take 60 s."""
    machine = Machine(3.0, takes=20.0)
    end = 20 + left
    assert len(finish(machine, limit=2.1, left=lambda: end - machine.now).timings) == times


def test_files_take_turns_forwards_and_backwards_and_one_that_fails_is_not_tried_again():
    calls, told = [], []

    def once(path, **options):
        calls.append(path.name)
        assert options == {"threads": 2, "batch": 4, "rounds": 1, "seconds": 0.3}
        if path.name == "dead":
            raise BundleError("it is no model")
        return timing(2.0)

    paths = {name: Path(name) for name in ("a", "dead", "b")}
    found = Stopwatch(once=once).in_turns(paths, threads=2, batch=4, progress=lambda: told.append(None))
    assert calls == ["a", "dead", "b", "b", "a", "a", "b"]
    assert len(told) == 9
    assert str(found["dead"]) == "it is no model"
    assert found["a"].rounds_ms == (2.0, 2.0, 2.0)


def test_two_files_are_compared_by_the_median_of_their_rounds():
    given = {"first": iter((1.0, 2.0, 4.0)), "second": iter((0.5, 1.5, 2.0))}
    stopwatch = Stopwatch(once=lambda path, **_: timing(next(given[path.name])))
    compared = stopwatch.compare(Path("first"), Path("second"), rounds=3)
    assert compared.ratio == 0.5
    assert (compared.first.p50_ms, compared.second.p50_ms) == (1.0, 0.5)
    assert isinstance(compared, Compared)
    failing = Stopwatch(once=Machine(BundleError("it is no model")).once)
    with pytest.raises(BundleError, match="it is no model"):
        failing.compare(Path("first"), Path("second"))


def test_the_rounds_of_a_file_are_put_together():
    found = joined(
        [
            dataclasses.replace(CALM, p50_ms=p50, p95_ms=9 - p50, rounds_ms=(p50,), load_ms=10 * p50)
            for p50 in (4.0, 2.0, 3.0)
        ]
    )
    assert (found.p50_ms, found.p95_ms, found.rounds_ms, found.runs) == (2, 7, (4, 2, 3), 60)
    assert (found.load_ms, found.memory_mb) == (30, 20)
    assert np.isclose(found.images_per_second, 500)


def test_a_patience_without_pauses_measures_once():
    machine = Machine(3.0)
    once = Patience(rounds=1, seconds=0.01)
    assert len(machine.watch.measure(FILE, patience=once, doubtful=lambda found: True).timings) == 1
