"""The part of a report on an architecture search, as values and in sentences."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from effnet.arch.describe import StageRow
from effnet.system.records import OPTIONAL


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedRow:
    """One network that a search trained: `scaled` if it is a uniformly scaled base, else searched.

    `score` is the objective and `value` the task's figure on the validation images, `share` the part of the whole short
    training, and `rungs` the scores at which it might have been stopped. `figures` are its costs, of which `predicted`
    were not measured.
    """

    name: str
    title: str
    scaled: bool
    generation: int
    seed: int
    score: float
    value: float
    nll: float
    share: float
    rungs: tuple[float, ...]
    figures: Mapping[str, float]
    predicted: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalRow:
    """One network of the final: the task's figure of each of its trainings, and its costs, measured if they can be."""

    name: str
    title: str
    scaled: bool
    winner: bool
    values: tuple[float, ...]
    figures: Mapping[str, float]

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return math.fsum(self.values) / len(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A finished search: its networks in the order of their proposal, its final, and what it found.

    `gain` is the difference of the best searched network to the best scaled one, in the task's figure, with its 95 %
    `interval`; None if one of the kinds was missing. `found` says that the interval lies above 0. `changes` say what
    distinguishes the winner from `base_title`, the best scaled network, whose stages are `base_stages`. If blocks of a
    trained network were assembled, that is the base, `scored` networks were scored untrained, and `networks` are those
    recovered a little. `notes` say what else the search found out.
    """

    algorithm: str
    objective: str
    seconds: float
    networks: tuple[SearchedRow, ...]
    finals: tuple[FinalRow, ...]
    gain: float | None
    interval: tuple[float, float] | None
    found: bool
    base_title: str
    base_stages: tuple[StageRow, ...]
    changes: tuple[str, ...]
    scored: int = field(default=0, metadata=OPTIONAL)
    notes: tuple[str, ...] = field(default=(), metadata=OPTIONAL)

    @property
    def sentence(self) -> str:
        """What the search found, in words."""
        if self.scored:
            return (
                f"The search assembled {self.scored} networks from alternatives of the blocks of {self.base_title}, "
                f"recovered {len(self.networks)} of them a little, and the best one fully; it was not compared with "
                "scaled networks."
            )
        scaled = sum(row.scaled for row in self.networks)
        own = len(self.networks) - scaled
        trained = f"The search ({self.algorithm}) trained {own} networks of its own and {scaled} scaled ones"
        if self.gain is None or self.interval is None:
            return f"{trained}; it cannot say whether its best one is better than a scaled network."
        (low, high), count = self.interval, len(self.finals[0].values)
        beside = (
            f"{100 * self.gain:+.1f} percentage points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}, over "
            f"{count} training{'s' if count > 1 else ''} each"
        )
        if self.found:
            return f"{trained} and found one that was better in the final than the best scaled network ({beside})."
        return (
            f"{trained} and found none that was better in the final than the best scaled network beyond noise "
            f"({beside}); the scaled network was taken."
        )


def changes_of(before: tuple[StageRow, ...], after: tuple[StageRow, ...]) -> tuple[str, ...]:
    """Return what distinguishes the stages of two networks, a sentence for each stage that differs."""
    found = []
    for number in range(max(len(before), len(after))):
        name = "The stem" if number == 0 else f"Stage {number}"
        if number >= len(after):
            found.append(f"{name} ({before[number].operator}) is gone.")
        elif number >= len(before):
            found.append(f"{name} ({after[number].operator}) is new.")
        elif parts := _parts(before[number], after[number]):
            found.append(f"{name}: {', '.join(parts)}.")
    return tuple(found)


def _parts(before: StageRow, after: StageRow) -> list[str]:
    parts = [f"{after.operator} instead of {before.operator}"] if after.operator != before.operator else []
    for name in ("layers", "channels", "stride", "resolution"):
        one, two = getattr(before, name), getattr(after, name)
        if one != two:
            parts.append(f"{one} -> {two} {name if name != 'resolution' else 'px'}")
    return parts


def expected_best(values: tuple[float, ...], number: int) -> float:
    """Return the expected best of `number` draws from a normal distribution with the mean and spread of `values`.

    The expectation of the largest of n standard normal values is about Blom's score (Blom 1958).
    """
    from statistics import NormalDist, fmean, stdev

    spread = stdev(values) if len(values) > 1 else 0.0
    return fmean(values) + spread * (NormalDist().inv_cdf((number - 0.375) / (number + 0.25)) if number > 1 else 0.0)
