"""Fake devices that are measured without time."""

from effnet.measurement.speed.timing import Timing


def timing(latency_ms: float) -> Timing:
    """Return the measurement of some file."""
    return Timing(
        p50_ms=latency_ms, p95_ms=latency_ms, rounds_ms=(latency_ms,), runs=20, load_ms=1.0, memory_mb=12.0,
        size_mb=0.03, threads=1, batch=1,
    )  # fmt: skip
