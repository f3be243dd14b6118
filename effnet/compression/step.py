"""The rules of the quantization search: its acceptance criterion, a step's record, and the choice of the winner."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from effnet.bundle.formats import Precision
from effnet.errors import InputError
from effnet.measurement.acceptance import FigureDrop
from effnet.measurement.budget import Budget
from effnet.measurement.paired import MAX_DROP, Paired, refusal
from effnet.runtimes.registry import find_format
from effnet.system.bounds import is_number
from effnet.system.text import both, brief, percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The acceptance criterion: the accuracy that a step must keep, and the gain that it must bring.

    It may lose at most `max_drop` of the accuracy on the validation images (0.005: half a percentage point; of few
    images one, see `refusal`), or of the figure of a task without right answers, such as AP, and must be faster or
    smaller than the accepted steps by `least_gain`: less is measurement noise.
    """

    max_drop: float = MAX_DROP
    least_gain: float = 0.03

    def __post_init__(self) -> None:
        if not (is_number(self.max_drop) and 0 <= self.max_drop < 1):
            raise InputError(
                f"max_drop must be a share of the images from 0 to 1, 1 excluded; got {brief(self.max_drop)}"
            )
        if not 0 <= self.least_gain < 1:
            raise InputError(f"least_gain must be from 0 to 1, 1 excluded; got {self.least_gain!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the quantization search: the artifact, its measurements, and the verdict.

    `paired` compares its predictions with the fp32 artifact's on the same validation images in the same runtime; a
    task without right answers, such as detection, has `lost` in its place, and no accuracy;
    `latency_ms` is the median of one image in the fastest round, `base_ms` that of the fp32 artifact in the same
    rounds, timed in turns, and `speed` their ratio, above 1 if this step is faster; `memory_mb` is its peak memory.
    What was not measured is None. `kept` says that it keeps the accuracy, `accepted` that it is faster or smaller as
    well.
    """

    name: str
    format: str
    done: str
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    paired: Paired | None = None
    lost: FigureDrop | None = None
    latency_ms: float | None = None
    base_ms: float | None = None
    speed: float | None = None
    size_mb: float | None = None
    memory_mb: float | None = None
    kept: bool = False
    accepted: bool = False
    reason: str = ""
    seconds: float = 0.0

    @property
    def compared(self) -> Paired | FigureDrop | None:
        """The comparison with the fp32 artifact; None if it was not measured."""
        return self.lost or self.paired

    @property
    def shown(self) -> str:
        """The accuracy in words, or the task's figure with its name; empty if it was not measured."""
        if self.lost:
            return self.lost.figure.in_words(self.lost.after)
        return "" if self.accuracy is None else both(self.accuracy, self.balanced_accuracy)

    @property
    def judged(self) -> float | None:
        """The accuracy that decides, the balanced one if all classes weigh the same; or the figure, more is better."""
        if self.lost:
            return self.lost.figure.better(self.lost.after)
        return self.balanced_accuracy if self.paired and self.paired.classes else self.accuracy

    @property
    def figures(self) -> dict[str, float | None]:
        """The measured figures of a budget."""
        return {"latency_ms": self.latency_ms, "size_mb": self.size_mb, "memory_mb": self.memory_mb}

    def meets(self, budget: Budget, precision: Precision | None) -> bool:
        """Return whether this step is of the precision, if one is required, and meets the budget."""
        return precision in (None, find_format(self.format).precision) and not budget.failures(self.figures)

    def to_dict(self) -> dict[str, Any]:
        """Return the step as JSON-able data."""
        found = asdict(self) | {"paired": self.paired.to_dict() if self.paired else None}
        del found["lost"]
        return found | ({"lost": self.lost.to_dict()} if self.lost else {})


def judge(
    step: Step, accepted: Sequence[Step], gate: Gate, *, must_beat: float | None = None
) -> tuple[bool, bool, str]:
    """Return whether a measured step keeps the accuracy, whether it is accepted, and why.

    `must_beat` is an accuracy that it must exceed in any case. A step is accepted if no earlier accepted step is both
    as fast and as small.
    """
    found = step.compared
    assert found is not None
    words = found.sentence()
    refused = refusal(found, gate.max_drop) if isinstance(found, Paired) else found.refusal(gate.max_drop)
    if refused:
        return False, False, f"it {refused}"
    if must_beat is not None and known(step.judged) <= must_beat:
        return True, False, f"no better than without this training, {percent(must_beat)}: it {words}"
    for other in accepted:
        faster = known(step.speed) / known(other.speed) - 1
        smaller = 1 - known(step.size_mb) / known(other.size_mb)
        if faster < gate.least_gain and smaller < gate.least_gain:
            return True, False, f"neither faster ({faster:+.0%}) nor smaller ({smaller:+.0%}) than {other.name}"
    return True, True, f"it {words}"


def best_of(accepted: Sequence[Step], budget: Budget, gate: Gate, *, precision: Precision | None = None) -> Step:
    """Return the step that wins.

    With a budget or a precision it is the one with the smallest accuracy drop among those that meet them or, if none
    does, the nearest to the budget; without either the smallest of those within measurement noise of the fastest.
    """
    if budget.asked() or precision:
        meeting = [step for step in accepted if step.meets(budget, precision)]
        if not meeting:
            return min(accepted, key=lambda s: budget.share(s.figures))
        return min(meeting, key=lambda s: (_drop(s), -known(s.speed)))
    fastest = max(known(step.speed) for step in accepted)
    near = [step for step in accepted if known(step.speed) * (1 + gate.least_gain) >= fastest]
    return min(near, key=lambda s: (known(s.size_mb), _drop(s)))


def known(figure: float | None) -> float:
    """Return a figure of a step that was measured."""
    assert figure is not None
    return figure


def _drop(step: Step) -> float:
    assert step.compared is not None
    return step.compared.drop
