"""`python -m benchmarks.watch_latency`: how old the frame is that `effnet watch` has just answered.

Three cameras send frames at their own times, and a slow model answers them: its engine sleeps, as the age must depend
on the order of the work, not on the machine. The newest frame of a source wins, and the sources take turns, so that an
answered frame is at most as old as one frame interval and one service time. The figure is the 99th percentile of the
age of a run, divided by that bound, the largest of `n` runs; the details have the greatest age, the frames that each
source had answered, and what the same model does to a queue that drops nothing.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from benchmarks.harness import finish, options
from effnet.watching.outputs.recorder import Recorder
from effnet.watching.record import Frame, Seen
from effnet.watching.rules.monitor import Names
from effnet.watching.rules.read import Rules
from effnet.watching.settings import Settings
from effnet.watching.sources.source import Source
from effnet.watching.watch import Told, Watch

GOAL = 1.0
_RATES, _SERVICE_S, _SECONDS = (25.0, 12.5, 30.0), 0.15, 20.0
_IMAGE = np.zeros((4, 4, 3), np.uint8)


class Ages(Recorder):
    """Keeps the age of each answered frame by source, beside the time that its answer took."""

    def __init__(self) -> None:
        self.found: list[tuple[str, float, float]] = []
        self.arrivals: dict[str, list[float]] = {}

    def interval(self, source: str) -> float:
        """Return the 99th percentile of the seconds between two frames of a source, as they came."""
        return quantile([after - before for before, after in pairwise(self.arrivals[source])])

    def ran(self, source: str, *, seconds: float, age: float) -> None:
        """Keep the time of the model for a frame, and the age of the frame at its answer."""
        self.found.append((source, seconds, age))


def main() -> None:
    """Watch `n` times, and report."""
    args = options(__doc__ or "", n=5)
    report([run() for _ in range(args.n)], args)


def report(runs: Sequence[Ages], args: argparse.Namespace) -> None:
    """Print the details and finish."""
    shares, greatest, counts = [], [], Counter[str]()
    for ages in runs:
        # Interval and service as they were: on a busy machine both take longer.
        shares.append(quantile([age / (ages.interval(source) + seconds) for source, seconds, age in ages.found]))
        greatest.append(max(age for _, _, age in ages.found))
        counts.update(source for source, _, _ in ages.found)
    sent, capacity = sum(_RATES), 1 / _SERVICE_S
    details = {
        "greatest_age_ms": round(1e3 * max(greatest), 1), "service_ms": 1e3 * _SERVICE_S,
        "frames_a_second_sent": sent, "answered": dict(sorted(counts.items())),
        # A queue would grow by what is sent and not answered.
        "queue_age_ms_at_the_end": round(1e3 * _SECONDS * (sent - capacity) / sent, 1),
    }  # fmt: skip
    print(json.dumps(details))
    finish(
        "watch_latency", args, figure=max(shares), goal=GOAL, unit="of a frame interval and a service time",
        better="lower", samples={"p99_share": shares, "greatest_age_s": greatest}, details=details,
    )  # fmt: skip


def run() -> Ages:
    """Watch three cameras for some seconds with one engine, and return the ages."""
    sources = [
        Source(name=f"camera-{i}", kind="device", address=str(i), shown=f"camera {i}") for i in range(len(_RATES))
    ]
    ages = Ages()

    def answer(engine: int, image: np.ndarray) -> Seen:
        time.sleep(_SERVICE_S)
        return Seen(scores=np.zeros(1))

    watch = Watch(
        sources, Settings(model="sleeping", max_fps=0), rules=Rules(), names=Names(labels=("a",)), answer=answer,
        engines=1, told=Told(takers=(), warn=print, recorder=ages), open_=partial(frames, ages),
    )  # fmt: skip
    watch.start()
    watch.wait(_SECONDS)
    watch.stop()
    return ages


def quantile(values: Sequence[float], share: float = 0.99) -> float:
    """Return a quantile."""
    found = sorted(values)
    return found[min(len(found) - 1, int(share * len(found)))]


def frames(ages: Ages, source: Source) -> Iterator[Frame]:
    """Yield frames at the times of a camera, late ones not at all, and keep when they came."""
    interval, begun, number = 1 / _RATES[int(source.address)], time.monotonic(), 0
    while True:
        number = max(number + 1, int((time.monotonic() - begun) / interval))
        time.sleep(max(0.0, begun + number * interval - time.monotonic()))
        now = time.monotonic()
        ages.arrivals.setdefault(source.name, []).append(now)
        yield Frame(at=now - begun, arrived=now, image=lambda: _IMAGE)


if __name__ == "__main__":
    main()
