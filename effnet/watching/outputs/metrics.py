"""The metrics of a watch, for Prometheus: those of a server for its model, and those of its sources."""

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from effnet.serving.batches.work import Seen
from effnet.serving.metrics import Metrics
from effnet.serving.versions.version import Version
from effnet.watching.outputs.recorder import Recorder

_AGES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Recorded(Recorder):
    """The metrics of one watch. `counts` returns the number of frames that wait, and that are in work."""

    def __init__(self, version: Version, sources: Sequence[str], *, counts: Callable[[], tuple[int, int]]) -> None:
        self._version = version
        self._server = Metrics(counts=counts)
        self._server.began(version)
        given: dict[str, Any] = {"registry": self._server.registry}
        self._frames = Counter("effnet_watch_frames", "Frames that were read.", ("source", "outcome"), **given)
        self._age = Histogram(
            "effnet_watch_frame_age_seconds", "Time from a frame's arrival to its answer.", ("source",),
            buckets=_AGES, **given,
        )  # fmt: skip
        self._up = Gauge("effnet_watch_source_up", "Whether a source sends frames.", ("source",), **given)
        self._lost = Counter("effnet_watch_source_lost", "Times that a source broke off.", ("source",), **given)
        self._events = Counter("effnet_watch_events", "Events.", ("source", "event"), **given)
        self._webhook = Counter("effnet_watch_webhook_events", "Events for the webhook.", ("outcome",), **given)
        for source in sources:
            self._up.labels(source).set(0)
            self._lost.labels(source)

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics as a client accepts them, and their content type."""
        return self._server.page(accept)

    def frame(self, source: str, outcome: str) -> None:
        """Count a frame."""
        self._frames.labels(source, outcome).inc()

    def ran(self, source: str, *, seconds: float, age: float) -> None:
        """Record the time of the model for a frame, and the age of the frame at its answer."""
        self._server.ran(Seen(version=self._version, images=1, decode=(), run=seconds))
        self._age.labels(source).observe(age)

    def up(self, source: str, is_up: bool) -> None:
        """Record that a source sends frames, or no more."""
        self._up.labels(source).set(is_up)

    def event(self, source: str, kind: str) -> None:
        """Count an event."""
        self._events.labels(source, kind).inc()
        if kind == "lost":
            self._lost.labels(source).inc()

    def webhook(self, outcome: str) -> None:
        """Count an event for the webhook."""
        self._webhook.labels(outcome).inc()
