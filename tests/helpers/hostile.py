"""Hostile files of weights, and the limits of time and memory for reading them."""

import tracemalloc
from contextlib import contextmanager

import pytest

from effnet.errors import WeightsError

PEAK_BYTES = 40 * 10**6


@contextmanager
def refused_cheaply(words):
    """Pass if the block raises a WeightsError of one line that matches `words`, and needs little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=words) as found:
            yield
        assert "\n" not in str(found.value)
        assert len(str(found.value)) < 600
        assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES
    finally:
        tracemalloc.stop()
