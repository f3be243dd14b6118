"""The pace of the machine."""

import itertools

from effnet.measure import pace
from effnet.measure.pace import calm_pace_ms, pace_ms


def test_one_piece_of_work_that_was_held_up_does_not_count(monkeypatch):
    laps = iter(itertools.accumulate(itertools.chain.from_iterable((0.0, lap) for lap in (2, 2, 90, 2, 2, 2, 50))))
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(laps))
    assert pace_ms() == 2000


def test_the_pace_is_a_short_time_and_the_calmest_is_no_longer():
    some = [pace_ms() for _ in range(20)]
    assert 0 < calm_pace_ms(seconds=0.1) <= max(some) < 500


def test_the_calmest_moment_counts(monkeypatch):
    found = iter([0.5, 0.4, 0.3, 0.6, *itertools.repeat(0.6, 1000)])
    monkeypatch.setattr(pace, "pace_ms", lambda: next(found))
    assert calm_pace_ms(seconds=0.1) == 0.3
