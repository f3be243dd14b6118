"""The pretrained networks that a fit can start from, ordered by expected accuracy."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from effnet.arch.catalog import get_spec
from effnet.arch.channels import tied_widths
from effnet.arch.cost import Count, cost
from effnet.arch.lineage import Lineage
from effnet.arch.spec import Activation, ArchSpec
from effnet.bundle.formats import Precision
from effnet.compression.activations import standins, with_activation
from effnet.compression.importance import Importance, weight_importance
from effnet.compression.prune import Scope, count_of, prune, vector_width
from effnet.data.preprocess import Preprocess
from effnet.errors import BudgetError
from effnet.planner.space import Candidate, in_precision
from effnet.weights.adapt import adapt_statistics
from effnet.weights.catalog import PublishedWeights, entries, preprocess_of
from effnet.weights.download import cached
from effnet.weights.folding import random_weights, unfold_norms
from effnet.weights.pretrained import Pretrained

# Images smaller than this are too small for the features that networks learned on photographs.
LEAST_SIDE = 48
_RESOLUTIONS = (64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 384, 448, 512, 600)
# Accuracy lost at half the resolution, in percentage points, and the exponent of its growth with the octaves: linear
# probes of Lite0 at 224 to 96 pixels (benchmarks/probe.py). It only orders the candidates.
_POINTS, _POWER = 8.0, 1.5
# Accuracy lost by quantization, in percentage points: at most half a point, or the file is refused; usually less. It
# only orders the candidates.
_LOSSES: dict[Precision, float] = {"fp32": 0.0, "fp16": 0.0, "bf16": 0.1, "w8": 0.1, "int8": 0.3}

# Accuracy lost by another activation after fine-tuning, in percentage points; a guess.
_REPLACED_POINTS = 1.0
# The standard deviation of the log importance of a layer's channels: the median over Lite0's layers, by their Taylor
# importance on imagenette_mini at 128 pixels (from 0.2 to 8.4).
_SPREAD = 1.7
# Assumed for weights without a published accuracy.
_UNKNOWN_TOP1 = 75.0
# Keras' and TensorFlow's weights are on the hub as timm's, and lukemelas' are TensorFlow's.
_DOWNLOADED = ("timm", "torchvision")
# Numbers of classes of the pretraining: weights with others transfer as well, but have heads of 20 000 classes.
_CLASSES = (1000, 1001)


@dataclass(frozen=True, slots=True)
class Change:
    """A modification of a network already trained on these classes: pruning to a share, or another activation.

    `kept` is the share of `count` that stays. `points` is the expected accuracy loss after fine-tuning, in percentage
    points; it only orders the candidates.
    """

    count: Count = "macs"
    kept: float = 1.0
    points: float = 0.0
    activation: Activation | None = None

    def applied_to(self, lineage: Lineage) -> Lineage:
        """Return the lineage of a network with this modification."""
        activation = self.activation or lineage.activation
        if self.kept == 1:
            return dataclasses.replace(lineage, activation=activation)
        return dataclasses.replace(lineage, activation=activation, kept=self.kept, kept_of=self.count, pruned_macs=None)


_NONE = Change()


# Lite0 on imagenette_mini lost 0.7 points with 88 % of its parameters, at 128 pixels, and 15 with half of its MACs
# after 40 epochs; the values between are a guess. With more than its 600 images the loss should be smaller.
LIGHT_CHANGES = (Change("params", 0.91, 0.2), Change("params", 0.88, 0.3))  # those that need no training
CHANGES = (
    *LIGHT_CHANGES, Change("params", 0.75, 1.5), Change("macs", 0.85, 3.0), Change("macs", 0.7, 8.0),
    Change("macs", 0.5, 14.0),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One pretrained network: the id or path that `load_pretrained` takes, and its facts known before it is read.

    `spec` has the classes and channels of the data; its resolution is the one at which the weights were tested, and
    its lineage has none.
    """

    source: str
    spec: ArchSpec
    preprocess: Preprocess
    family: str
    top1: float | None


def offer_of(found: Pretrained, *, num_classes: int, channels: int) -> Offer:
    """Return the offer of weights that have been read."""
    spec = dataclasses.replace(found.spec, lineage=dataclasses.replace(found.spec.lineage, resolution=None))
    return _offer(
        spec, found.preprocess, source=found.source, family=spec.name, top1=found.top1, num_classes=num_classes,
        channels=channels,
    )  # fmt: skip


def list_offers(*, num_classes: int, channels: int, cached_only: bool) -> list[Offer]:
    """Return the published weights that effnet can build, or only those that need no download."""
    return [
        _offer(
            _published_spec(entry),
            preprocess_of(entry),
            source=entry.id,
            family=entry.family,
            top1=entry.top1,
            num_classes=num_classes,
            channels=channels,
        )
        for entry in entries()
        if _is_usable(entry) and (cached(entry) is not None if cached_only else entry.scheme in _DOWNLOADED)
    ]


def _published_spec(entry: PublishedWeights) -> ArchSpec:
    spec = get_spec(entry.network)
    return dataclasses.replace(spec, lineage=dataclasses.replace(spec.lineage, base=entry.id, tag=entry.tag))


def _is_usable(entry: PublishedWeights) -> bool:
    # The widths of pruned networks are known only once their file is there.
    return entry.num_classes in _CLASSES and entry.top1 is not None and not entry.pruned


def _offer(
    spec: ArchSpec,
    preprocess: Preprocess,
    *,
    source: str,
    family: str,
    top1: float | None,
    num_classes: int,
    channels: int,
) -> Offer:
    if preprocess.channels != channels:
        mean, std = (adapt_statistics(values, channels=channels) for values in (preprocess.mean, preprocess.std))
        preprocess = dataclasses.replace(preprocess, mean=mean, std=std)
    spec = dataclasses.replace(spec, num_classes=num_classes, in_channels=channels, resolution=preprocess.resolution)
    return Offer(source=source, spec=spec, preprocess=preprocess, family=family, top1=top1)


def changes_of(spec: ArchSpec, *, can_train: bool) -> tuple[Change, ...]:
    """Return the modifications of a network already trained on these classes; without training only light ones."""
    if not can_train:
        return LIGHT_CHANGES
    replaced = [
        dataclasses.replace(change, activation=found.activation, points=change.points + _REPLACED_POINTS)
        for found in standins(spec)
        for change in (_NONE, *CHANGES)
    ]
    return (*CHANGES, *replaced)


def list_pretrained(
    offers: Sequence[Offer], *, precisions: Sequence[Precision] = ("fp32",), changes: Sequence[Change] = ()
) -> list[Candidate]:
    """Return every offer at its own and at smaller resolutions, in every precision, the most accurate first.

    They are ordered by expected accuracy. With `changes`, modified networks are included: the approximate widths of
    pruned networks are known, the channels that stay are not.
    """
    found: list[tuple[float, Candidate]] = []
    shapes = [(offer, change, changed(offer.spec, change)) for offer in offers for change in (_NONE, *changes)]
    for offer, change, shape in shapes:
        if shape is None:
            continue
        native = offer.preprocess.resolution
        family = " ".join(filter(None, (offer.family, change.activation)))
        for resolution in sorted({native, *(r for r in _RESOLUTIONS if r < native)}, reverse=True):
            own = dataclasses.replace(offer.spec.lineage, resolution=resolution)
            spec = dataclasses.replace(shape, resolution=resolution, lineage=change.applied_to(own))
            whole = None if change == _NONE else dataclasses.replace(offer.spec, resolution=resolution, lineage=own)
            total = cost(spec)
            candidate = Candidate(
                spec=spec, family=family, phi=0.0, cost=total, size_mb=total.weight_bytes("fp32") / 1e6,
                weights=offer.source, preprocess=dataclasses.replace(offer.preprocess, resolution=resolution),
                kept=change.kept, kept_of=change.count, whole=whole,
            )  # fmt: skip
            expected = expected_accuracy(offer.top1, native=native, resolution=resolution) - change.points
            found += [(expected - _LOSSES[p], in_precision(candidate, p)) for p in precisions]
    return [c for _, c in sorted(found, key=lambda pair: (-pair[0], pair[1].cost.macs, pair[1].spec.name))]


def expected_accuracy(top1: float | None, *, native: int, resolution: int) -> float:
    """Return the score that orders pretrained networks: published accuracy, reduced for smaller inputs."""
    octaves: float = max(0.0, math.log2(native / resolution))
    return (top1 or _UNKNOWN_TOP1) - _POINTS * math.pow(octaves, _POWER)


def changed(spec: ArchSpec, change: Change) -> ArchSpec | None:
    """Return the approximate network after a change, whatever the weights; None if it cannot be pruned that far."""
    try:
        left = spec if change.kept == 1 else slimmed(spec, change.count, change.kept)
    except BudgetError:
        return None
    return with_activation(left, change.activation) if change.activation else left


@lru_cache(maxsize=256)
def slimmed(spec: ArchSpec, count: Count, kept: float) -> ArchSpec:
    """Return the approximate network after pruning to a share of the MACs or parameters, whatever the weights.

    If all stages lose the same share of channels, as for MACs (see `scope_of`), it is exact. For parameters, the
    importance of channels is drawn with the spread that trained networks have.
    """
    limit, scope = kept * count_of(spec, count), scope_of(count)
    if scope == "stage":
        importance = weight_importance(spec, unfold_norms(spec, random_weights(spec)))
    else:
        rng = np.random.default_rng(0)
        channels = {tie.name: rng.lognormal(0.0, _SPREAD, tie.channels) for tie in tied_widths(spec)}
        importance = Importance(method="taylor", additive=True, channels=channels, blocks={})
    return prune(spec, importance=importance, limit=limit, count=count, scope=scope, round_to=vector_width()).spec


def scope_of(count: Count) -> Scope:
    """Return the scope of the pruning threshold: global for parameters, one per stage for MACs."""
    return "global" if count == "params" else "stage"
