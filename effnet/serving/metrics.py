"""The metrics of a server, for Prometheus: base units, few labels, one registry a server."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from effnet.serving.batches.work import Seen
from effnet.serving.drift import Drift
from effnet.serving.versions.version import Version
from effnet.tasks.classification import Prediction

# Source: OpenTelemetry, semantic conventions of HTTP metrics.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_SHORT = (0.0005, 0.001, 0.0025, *_SECONDS[:10])
_IMAGES = (1, 2, 4, 8, 16, 32, 64)
_TENTHS = tuple(tenth / 10 for tenth in range(1, 11))
_MOST_LABELS = 100
_OTHER = "other"


class Metrics:
    """The metrics of one server. `counts` returns the number of requests that wait, and that run."""

    def __init__(self, *, counts: Callable[[], tuple[int, int]]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        given: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("effnet_requests", "Requests.", ("model", "version", "route", "code"), **given)
        self.duration = Histogram(
            "effnet_request_duration_seconds", "Time from a request's header to its answer.", ("model",),
            buckets=_SECONDS, **given,
        )  # fmt: skip
        self.in_flight = Gauge("effnet_requests_in_flight", "Requests that have no answer yet.", **given)
        self.rejected = Counter("effnet_rejected", "Requests that a limit refused.", ("reason",), **given)
        self.queued = Histogram(
            "effnet_queue_duration_seconds", "Time that a request waited for an engine.", ("model",),
            buckets=_SHORT, **given,
        )  # fmt: skip
        self.decoded = Histogram(
            "effnet_decode_duration_seconds", "Time to decode the images of a request.", ("model",), buckets=_SHORT,
            **given,
        )  # fmt: skip
        self.inferred = Histogram(
            "effnet_inference_duration_seconds", "Time of the model for a batch.", ("model",), buckets=_SHORT, **given
        )
        self.batch = Histogram("effnet_batch_size", "Images that ran together.", ("model",), buckets=_IMAGES, **given)
        waiting = Gauge("effnet_queue_length", "Requests that wait for an engine.", **given)
        waiting.set_function(lambda: counts()[0])
        self.predictions = Counter("effnet_predictions", "Answers by best class.", ("model", "label"), **given)
        self.unknown = Counter("effnet_unknown", "Answers of an unknown class.", ("model",), **given)
        self.confidence = Histogram(
            "effnet_confidence", "Probability of the best class.", ("model",), buckets=_TENTHS, **given
        )
        self._life(given)
        self._labels: dict[str, set[str]] = {}
        self._owned: dict[str, _Own] = {}

    def _life(self, given: dict[str, Any]) -> None:
        names = ("model", "version", "format", "runtime", "sha256", "largest_batch")
        self.info = Gauge("effnet_model_info", "The versions that answer now.", names, **given)
        self.ready = Gauge("effnet_model_ready", "Whether a version of the model answers.", ("model",), **given)
        self.loading = Gauge(
            "effnet_model_load_duration_seconds", "Time to load, warm and prove the newest version.", ("model",),
            **given,
        )  # fmt: skip
        self.failures = Counter("effnet_model_load_failures", "Versions that could not be loaded.", ("model",), **given)
        self.drift = Gauge(
            "effnet_drift_stability_index",
            "Population-stability index of the latest 1,000 answers against the bundle's test split.",
            ("model", "version", "of"),
            **given,
        )

    def drifted(self, version: Version, drift: Drift) -> None:
        """Record how far the latest answers are from the expected ones."""
        for of, index in drift.indices().items():
            self.drift.labels(version.name, version.version, of).set(index)

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics as a client accepts them, and their content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def began(self, version: Version) -> None:
        """Record a version that answers from now on."""
        self.info.labels(*_facts(version)).set(1)
        self.ready.labels(version.name).set(1)
        self.loading.labels(version.name).set(version.load_seconds)

    def ended(self, version: Version, *, again: bool) -> None:
        """Record that a version answers no more; with `again`, a version of the same facts does."""
        if not again:
            self.info.remove(*_facts(version))

    def ran(self, seen: Seen) -> None:
        """Record a batch."""
        own = self._of(seen.version.name)
        own.batch.observe(seen.images)
        own.inferred.observe(seen.run)
        for seconds in seen.decode:
            own.decoded.observe(seconds)

    def ended_request(self, model: str, *, seconds: float, queued: float | None) -> None:
        """Record the time of a request of a model, and how long it waited for an engine if it was answered."""
        own = self._of(model)
        own.duration.observe(seconds)
        if queued is not None:
            own.queued.observe(queued)

    def _of(self, model: str) -> "_Own":
        if model not in self._owned:
            self._owned[model] = _Own(self, model)
        return self._owned[model]

    def answered(self, version: Version, found: Prediction, drift: Drift | None) -> None:
        """Record the answer of a classifier."""
        name, best = version.name, max(found.probabilities)
        known = self._labels.setdefault(name, set())
        label = found.labels[0]
        if label not in known and len(known) < _MOST_LABELS:
            known.add(label)
        shown = label if label in known else _OTHER
        self.predictions.labels(name, shown.encode("utf-8", "backslashreplace").decode()).inc()
        self._of(name).confidence.observe(best)
        if not found.known:
            self.unknown.labels(name).inc()
        if drift is not None:
            drift.add(label, best)


class _Own:
    """The metrics of one model that each of its requests changes: looking them up by labels takes as long as that."""

    def __init__(self, all_: Metrics, model: str) -> None:
        self.batch, self.inferred = all_.batch.labels(model), all_.inferred.labels(model)
        self.decoded, self.queued = all_.decoded.labels(model), all_.queued.labels(model)
        self.duration, self.confidence = all_.duration.labels(model), all_.confidence.labels(model)


def _facts(version: Version) -> tuple[str, ...]:
    target = version.first.format
    return version.name, version.version, target.name, target.runtime, version.digest, str(version.largest)
