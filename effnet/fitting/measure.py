"""How planning measures a network that nobody has trained."""

from functools import lru_cache
from pathlib import Path

from effnet.arch.spec import ArchSpec
from effnet.fitting.candidates import Candidate
from effnet.fitting.target import Target
from effnet.measure.timing import Timing, time_model
from effnet.profiling.graphs import write_graph


def measure_random(candidate: Candidate, scratch: Path, *, target: Target, threads: int) -> Timing:
    """Exports a candidate with random weights into `scratch` and measures the file in the target's runtime."""
    path = write_graph(candidate.spec, scratch, runtime=target.runtime, precision=candidate.precision)
    return time_model(path, threads=threads, rounds=3, seconds=0.1, runtime=target.runtime)


@lru_cache(maxsize=256)
def training_speed(spec: ArchSpec) -> float:
    """Returns training images per second of `spec`, measured once."""
    from effnet.training.speed import train_speed

    return train_speed(spec)
