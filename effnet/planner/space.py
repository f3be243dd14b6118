"""The networks that a plan chooses from: family x activation x phi x resolution x precision."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from effnet.arch.catalog import get_spec
from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.cost import Cost, Count, cost
from effnet.arch.scale import ALPHA, BETA, GAMMA, scale, truncate, with_expand_ratio, with_total_stride
from effnet.arch.spec import Activation, ArchSpec, Gate
from effnet.bundle.formats import Precision
from effnet.data.preprocess import Preprocess
from effnet.errors import InputError

Status = Literal["listed", "rejected", "unmeasured", "fits", "taken", "failed"]

# The value of a network's MACs relative to the same network with SiLU in fp32. A rule of thumb: it only orders the
# candidates; trials and the finished file decide.
_WORTH_ACTIVATION = {"relu6": 0.85, "hard_swish": 0.97}
WORTH_PRECISION: dict[Precision, float] = {"fp32": 1.0, "fp16": 0.99, "bf16": 0.97, "w8": 0.98, "int8": 0.85}
# Below this phi, stages and expansion may be reduced as well: widths cannot shrink further.
_SLIM_BELOW, _SLIM_EXPAND, _LEAST_STAGES = -16, 3, 3
# Strides may be removed for images of at most this shorter side, and for inputs that show nearly all their pixels.
_SMALL, _NEARLY_ALL = 64, 0.75
_KNOWN = (
    "family",
    "phi",
    "size_mb",
    "latency_ms",
    "memory_mb",
    "weights",
    "status",
    "reason",
    "precision",
    "kept",
    "kept_of",
    "trial_accuracy",
    "trial_rounds",
    "worth",
    "waited",
)
# The type in which a file stores the weights.
_STORED_AS: dict[Precision, Literal["fp32", "fp16", "int8"]] = {
    "fp32": "fp32", "fp16": "fp16", "bf16": "fp16", "w8": "int8", "int8": "int8",
}  # fmt: skip
# The range of a network's input relative to the resolution that compound scaling pairs with its phi.
_LEAST_RATIO, _MOST_RATIO, _LEAST_PAIRED = 0.6, 3.0, 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """The axes of the networks that are trained from scratch; a plan combines them.

    `variants` are families with another activation and gate, for int8: runtimes compute them faster than SiLU and
    sigmoid; which ones depends on the runtime. Depth, width and resolution grow by the `powers` of phi; `phis` are
    finer where most devices are.
    """

    families: tuple[str, ...] = ("b0", "lite0", "v2_b0")
    variants: tuple[tuple[str, Activation, Gate], ...] = (
        ("b0", "relu6", "hard_sigmoid"),
        ("b0", "hard_swish", "hard_sigmoid"),
    )
    powers: tuple[float, float, float] = (ALPHA, BETA, GAMMA)
    phis: tuple[float, ...] = (
        6, 5, 4, 3, 2.5, 2, 1.5, 1, 0.5, 0, -0.5, -1, -1.5, -2, -2.5, -3, -3.5, -4, -5, -6, -7, -8, -9, -10, -12, -14,
        -16, -20, -24, -32,
    )  # fmt: skip
    resolutions: tuple[int, ...] = (16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)


SPACE = SearchSpace()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One network that the plan considers, its known figures and its status.

    `latency_ms`, `memory_mb` are None until measured; `size_mb` is the size of the weights until then. `weights` are
    its pretrained weights, as an id or a path, and `preprocess` is the preprocessing that they expect; empty and None
    for training from scratch. `precision` is that of the file on the device. `kept` is the share of `kept_of` (MACs or
    parameters) that pruning leaves of `whole`, the network of its weights; 1 and None without pruning. Of two
    candidates the one with more MACs times `worth` is expected to be more accurate. `trial_accuracy` is the validation
    accuracy of a trial of `trial_rounds` rounds; None without one. `waited` is the share of the processor time that
    other processes took while it was measured.
    """

    spec: ArchSpec
    family: str
    phi: float
    cost: Cost
    size_mb: float
    latency_ms: float | None = None
    memory_mb: float | None = None
    weights: str = ""
    preprocess: Preprocess | None = None
    precision: Precision = "fp32"
    kept: float = 1.0
    kept_of: Count = "macs"
    whole: ArchSpec | None = None
    worth: float = 1.0
    trial_accuracy: float | None = None
    trial_rounds: int = 0
    waited: float = 0.0
    status: Status = "listed"
    reason: str = ""

    @property
    def title(self) -> str:
        """The network's short name, and the precision unless it is fp32."""
        return title_of(self.spec, self.precision)

    @property
    def figures(self) -> dict[str, float | None]:
        """Its known figures, by the keys of the budget."""
        return {
            "latency_ms": self.latency_ms,
            "params": self.cost.params,
            "macs": self.cost.macs,
            "size_mb": self.size_mb,
            "memory_mb": self.memory_mb,
        }

    def to_row(self) -> dict[str, Any]:
        """Return the candidate as a row of the report."""
        row = {
            "name": self.spec.name,
            "title": self.title,
            "family": self.family,
            "phi": self.phi,
            "resolution": self.spec.resolution,
            "weights": self.weights,
            "precision": self.precision,
            "kept": self.kept,
            "kept_of": self.kept_of,
            "trial_accuracy": self.trial_accuracy,
            "trial_rounds": self.trial_rounds,
            "waited": round(self.waited, 3),
        }
        return row | self.figures | {"status": self.status, "reason": self.reason}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data that `candidate_from_dict` reads."""
        preprocess = self.preprocess.to_dict() if self.preprocess else None
        whole = spec_to_dict(self.whole) if self.whole else None
        return self.to_row() | {
            "spec": spec_to_dict(self.spec),
            "preprocess": preprocess,
            "whole": whole,
            "worth": self.worth,
        }


def title_of(spec: ArchSpec, precision: Precision) -> str:
    """Return the short name that people read of a network in this precision, such as "V2-B0 x0.32, 16 px, int8"."""
    return spec.title + ("" if precision == "fp32" else f", {precision}")


def candidate_from_dict(data: dict[str, Any]) -> Candidate:
    """Return the candidate that `to_dict` wrote; raise InputError for a value that it cannot have written."""
    spec = spec_from_dict(data["spec"])
    known = {key: data[key] for key in _KNOWN}
    _check_known(known)
    preprocess = Preprocess.from_dict(data["preprocess"]) if data["preprocess"] else None
    whole = spec_from_dict(data["whole"]) if data["whole"] else None
    return Candidate(spec=spec, cost=cost(spec), preprocess=preprocess, whole=whole, **known)


def is_amount(value: Any) -> bool:
    """Return whether a value from a file is a finite number of at least 0."""
    return type(value) in (int, float) and 0 <= value < math.inf


def _check_known(known: dict[str, Any]) -> None:
    for name in ("size_mb", "kept", "worth", "waited", "trial_rounds"):
        if not is_amount(known[name]):
            raise InputError(f"a candidate's {name} must be a number of at least 0; got {known[name]!r}")
    for name in ("latency_ms", "memory_mb", "trial_accuracy"):
        if known[name] is not None and not is_amount(known[name]):
            raise InputError(f"a candidate's {name} must be null or a number of at least 0; got {known[name]!r}")
    if type(known["phi"]) not in (int, float):
        raise InputError(f"a candidate's phi must be a number; got {known['phi']!r}")
    for name in ("family", "weights", "reason"):
        if not isinstance(known[name], str):
            raise InputError(f"a candidate's {name} must be a text; got {known[name]!r}")
    for name, allowed in (("status", Status), ("precision", Precision), ("kept_of", Count)):
        if known[name] not in get_args(allowed):
            raise InputError(f"a candidate's {name} must be one of {get_args(allowed)}; got {known[name]!r}")


def list_candidates(
    *,
    num_classes: int,
    channels: int,
    short_side: int,
    precisions: Sequence[Precision] = ("fp32",),
    space: SearchSpace = SPACE,
) -> list[Candidate]:
    """Return every network of `space` worth considering for images of this shorter side, most promising first.

    They are ordered by MACs times `worth`.

    Inputs are never much larger than the images, nor far from the resolution that compound scaling pairs
    with the network's phi. For small images strides are removed, so that the last feature map is not a single pixel;
    for large ones never: MACs are better spent on pixels of the image than on an enlarged thumbnail.
    """
    found: dict[ArchSpec, Candidate] = {}
    for family, base in _bases(space, num_classes, channels, variants="int8" in precisions):
        for phi in space.phis:
            alpha, beta, gamma = space.powers
            for shaped in _shapes(scale(base, phi=phi, alpha=alpha, beta=beta, gamma=gamma), phi):
                for resolution in usable_resolutions(short_side, phi=phi, space=space):
                    for spec in _at_resolution(shaped, phi, resolution, short_side):
                        found.setdefault(spec, _candidate(spec, family, phi))
    return by_promise([in_precision(c, precision) for c in found.values() for precision in precisions])


def by_promise(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates with the most promising first."""
    return sorted(candidates, key=lambda c: (-c.worth * c.cost.macs, -c.cost.params, c.spec.name))


def in_precision(candidate: Candidate, precision: Precision) -> Candidate:
    """Return a candidate with its file in this precision."""
    worth = candidate.worth * WORTH_PRECISION[precision] / WORTH_PRECISION[candidate.precision]
    found = dataclasses.replace(candidate, precision=precision, worth=worth)
    return dataclasses.replace(found, size_mb=weights_mb(found))


def weights_mb(candidate: Candidate) -> float:
    """Return the size of a candidate's weights, in 10^6 bytes, as its file stores them."""
    return candidate.cost.weight_bytes(_STORED_AS[candidate.precision]) / 1e6


def _bases(space: SearchSpace, num_classes: int, channels: int, *, variants: bool) -> Iterator[tuple[str, ArchSpec]]:
    """Yield each family's base network, and with `variants` those with other activations, each with its name."""
    for family in space.families:
        base = get_spec(family, num_classes=num_classes, in_channels=channels)
        yield family, dataclasses.replace(base, padding="symmetric")
    for family, activation, gate in space.variants if variants else ():
        base = get_spec(family, num_classes=num_classes, in_channels=channels)
        lineage = dataclasses.replace(base.lineage, variant=activation)
        other = dataclasses.replace(base, lineage=lineage, padding="symmetric", activation=activation, se_gate=gate)
        yield f"{family} {activation}", other


def usable_resolutions(short_side: int, *, phi: float, space: SearchSpace = SPACE) -> list[int]:
    """Return the resolutions that suit images of this shorter side; only tiny networks downscale small images."""
    least = min(128, short_side) / 4
    if short_side <= _SMALL and phi > _SLIM_BELOW:
        least = _NEARLY_ALL * short_side
    return [r for r in space.resolutions if least <= r <= max(32, 1.15 * short_side)]


def _shapes(spec: ArchSpec, phi: float) -> Iterator[ArchSpec]:
    """Yield a scaled network and, if widths cannot shrink further, slimmer ones."""
    yield spec
    if phi < _SLIM_BELOW:
        slim = with_expand_ratio(spec, _SLIM_EXPAND)
        slim = dataclasses.replace(slim, lineage=dataclasses.replace(spec.lineage, expand=_SLIM_EXPAND))
        for shape in (spec, slim):
            for kept in range(_LEAST_STAGES, len(shape.stages)):
                lineage = dataclasses.replace(shape.lineage, stages=kept)
                yield dataclasses.replace(truncate(shape, kept), lineage=lineage)
        yield slim


def usable_strides(resolution: int, *, whole: int, short_side: int) -> list[int]:
    """Return the total strides, of at most `whole`, that leave a last feature map of at least 4 pixels, and of 2.

    Strides are removed only for small images and for inputs that show nearly all their pixels.
    """
    may_remove = short_side <= _SMALL or resolution >= _NEARLY_ALL * short_side
    found = [max(s for s in (1, 2, 4, 8, 16, 32) if s == 1 or -(-resolution // s) >= least) for least in (4, 2)]
    return [stride for stride in found if stride >= whole or may_remove]


def paired_resolution(phi: float) -> float:
    """Return the resolution that compound scaling pairs with a network of this phi, in pixels."""
    return max(_LEAST_PAIRED, 224 * math.pow(GAMMA, phi))


def _at_resolution(shaped: ArchSpec, phi: float, resolution: int, short_side: int) -> Iterator[ArchSpec]:
    """Yield `shaped` at one resolution, with each total stride that is usable."""
    paired, whole = paired_resolution(phi), shaped.total_stride
    for stride in usable_strides(resolution, whole=whole, short_side=short_side):
        spec = dataclasses.replace(with_total_stride(shaped, stride), resolution=resolution)
        left = None if spec.total_stride == 32 else spec.total_stride
        spec = dataclasses.replace(spec, lineage=dataclasses.replace(spec.lineage, resolution=resolution, stride=left))
        seen_as = resolution * whole / spec.total_stride  # with all strides, this input gives the same feature maps
        if _LEAST_RATIO <= seen_as / paired <= _MOST_RATIO:
            yield spec


def only_candidate(spec: ArchSpec) -> Candidate:
    """Return the candidate of a network that the user named."""
    return _candidate(spec, spec.name, 0.0)


def _candidate(spec: ArchSpec, family: str, phi: float) -> Candidate:
    found = cost(spec)
    worth = _WORTH_ACTIVATION.get(spec.lineage.variant, 1.0)
    return Candidate(
        spec=spec, family=family, phi=phi, cost=found, size_mb=found.weight_bytes("fp32") / 1e6, worth=worth
    )
