"""Files of weights that nobody means well with, and what reading them may cost."""

import tracemalloc
from contextlib import contextmanager

import pytest

from effnet.errors import WeightsError

PEAK_BYTES = 40 * 10**6


@contextmanager
def refused_cheaply(words):
    """Passes where the block raises a WeightsError of one line that matches `words`, and takes little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=words) as found:
            yield
        assert "\n" not in str(found.value)
        assert len(str(found.value)) < 600
        assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES
    finally:
        tracemalloc.stop()
