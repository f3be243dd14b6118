"""Training throughput, measured with clocks that may jump."""

import pytest

from effnet.arch.catalog import get_spec
from effnet.arch.scale import scale
from effnet.errors import EffnetError
from effnet.training import speed
from effnet.training.speed import train_speed

SPEC = scale(get_spec("b0", num_classes=3), phi=-20, resolution=16)


def test_a_clock_that_is_set_back_costs_one_step(monkeypatch):
    """Before the fix the speed was negative, and every network too slow."""
    times = iter([0, 1, 1, -3599, *(i // 2 + i % 2 for i in range(100))])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(times))
    assert train_speed(SPEC) == 32


def test_a_clock_that_stands_still_is_an_error(monkeypatch):
    monkeypatch.setattr(speed.time, "perf_counter", lambda: 0.0)
    with pytest.raises(EffnetError, match="the clock must run while training is timed; it stood still"):
        train_speed(SPEC)
