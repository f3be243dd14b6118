"""The pace of the machine."""

import itertools
import threading

import pytest
from clocks import FakeClock

from effnet.measurement.speed import pace
from effnet.measurement.speed.pace import Clock, calm_pace_ms, pace_ms, pace_of, waited_share


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(pace, "usable_cores", lambda: 2)


def test_one_piece_of_work_that_was_held_up_does_not_count():
    laps = itertools.accumulate(itertools.chain.from_iterable((0.0, lap) for lap in (2, 2, 90, 2, 2, 2, 50)))
    worked = iter([0.0, 15.0])
    found = pace_of(clock=Clock(wall=lambda: next(laps), worked=lambda: next(worked)))
    assert found.ms == 2000
    assert found.waited == pytest.approx(0.9)


def test_several_threads_compute_at_once(two_cores, monkeypatch):
    """All cores are used: else a process on another core would not be noticed."""
    seen, hashed, met = set(), pace._hash, threading.Barrier(2, timeout=300)

    def hash_and_tell():
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            met.wait()
        hashed()

    monkeypatch.setattr(pace, "_hash", hash_and_tell)
    before = threading.active_count()
    assert pace_of(2).ms > 0
    assert len(seen) == 2
    assert threading.active_count() == before


@pytest.mark.parametrize("worked, waited", [(2.0, 0.0), (1.5, 0.25), (1.0, 0.5)])
def test_a_process_on_the_other_core_is_seen_by_what_is_left_of_both(worked, waited, two_cores, monkeypatch):
    """While a piece of this thread takes 1 ms, two threads compute for 2 ms if they have a core each."""
    fake, me = FakeClock(), threading.get_ident()
    monkeypatch.setattr(pace, "_hash", lambda: fake.take(1e-3, worked * 1e-3) if threading.get_ident() == me else None)
    found = pace_of(2, clock=fake.clock)
    assert found.waited == pytest.approx(waited)
    assert found.ms == pytest.approx(1)


def test_no_more_threads_compute_than_there_are_cores(two_cores, monkeypatch):
    started, thread = [], threading.Thread

    def start(**options):
        started.append(options)
        return thread(**options)

    monkeypatch.setattr(pace.threading, "Thread", start)
    for threads, others in ((1, 0), (0, 1), (8, 1)):
        started.clear()
        pace_of(threads)
        assert len(started) == others


def test_a_system_that_does_not_count_what_processes_work_is_never_busy():
    assert waited_share(1.0, 0.0) == 0
    assert waited_share(0.0, 0.0) == 0
    assert waited_share(1.0, 1.1) == 0


def test_the_calmest_moment_counts():
    found = iter([0.5, 0.4, 0.3, 0.6, *itertools.repeat(0.6, 1000)])
    assert calm_pace_ms(seconds=0.1, measure=lambda threads: next(found), pause=lambda seconds: None) == 0.3


@pytest.mark.parametrize("times", [itertools.repeat(0.0), itertools.count(0, -3600), iter([0, -1e9] * 10**6)])
def test_a_clock_that_stands_still_or_is_set_back_ends_the_search_for_a_calm_moment(times):
    """Before the fix the search for the pace never ended."""
    taken = []
    calm_pace_ms(
        seconds=1.0,
        measure=lambda threads: taken.append(threads) or 1.0,
        clock=lambda: next(times),
        pause=lambda seconds: None,
    )
    assert 1 < len(taken) <= 101


def test_a_pace_is_a_time():
    assert pace_ms() > 0
    assert calm_pace_ms(seconds=0.02) > 0
