"""Split images that have several labels each so that every label has its share of images in every split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np


def iterative_split(
    strata: Sequence[Sequence[str]],
    *,
    seed: int,
    shares: Mapping[str, float],
    groups: Mapping[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """Return sorted int64 indices of each split; `shares` are those of the images, by split, and add up to 1.

    The labels are processed one after the other, the one with the fewest images left first. Each of its images goes to
    the split that lacks most images of this label, of those to the one that lacks most images. So rare labels are
    divided while there still is a choice. Source: Sechidis, Tsoumakas and Vlahavas 2011, "On the stratification of
    multi-label data", algorithm 1.

    Images (by index) with the same number in `groups` stay together, larger groups first. Beyond the paper, an image of
    every label is in the first split: one is moved there if needed.
    """
    draw = _Draw.of(strata, shares, groups or {}, seed)
    unassigned = -1
    while draw.left.any():
        label = int(np.where(draw.left > 0, draw.left, np.inf).argmin())
        for unit in _shuffled(draw, label, seed):
            if draw.side[unit] == unassigned:
                draw.put_(unit, _split_for(draw.lacking[:, label], draw.room, draw.rng))
    for unit in np.flatnonzero(draw.side == unassigned).tolist():  # without labels
        draw.put_(unit, _split_for(draw.room, draw.room, draw.rng))
    _fill_first_(draw)
    side = draw.side[draw.unit_of]
    return {name: np.flatnonzero(side == number) for number, name in enumerate(shares)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draw:
    """The state of the draw of units: groups, or single images.

    `unit_of` is the unit of each image, `labels` and `counts` are the numbers of a unit's labels and of its images of
    each, `units` the units of each label, `side` the split of each unit, -1 before it has one. `left` is the number of
    images of each label without a split, `lacking` [splits, labels] and `room` [splits] the numbers that are wanted.
    """

    names: Sequence[str]
    unit_of: np.ndarray
    sizes: np.ndarray
    labels: list[np.ndarray]
    counts: list[np.ndarray]
    units: list[list[int]]
    side: np.ndarray
    left: np.ndarray
    lacking: np.ndarray
    room: np.ndarray
    rng: np.random.Generator

    @classmethod
    def of(
        cls, strata: Sequence[Sequence[str]], shares: Mapping[str, float], groups: Mapping[int, int], seed: int
    ) -> "_Draw":
        names = sorted({name for some in strata for name in some})
        number = {name: place for place, name in enumerate(names)}
        firsts: dict[int, int] = {}
        first = [firsts.setdefault(groups[i], i) if i in groups else i for i in range(len(strata))]
        unit_of = np.unique(np.array(first, np.int64), return_inverse=True)[1]
        held: list[list[int]] = [[] for _ in range(int(unit_of.max(initial=-1)) + 1)]
        for unit, some in zip(unit_of.tolist(), strata, strict=True):
            held[unit] += [number[name] for name in dict.fromkeys(some)]
        pairs = [np.unique(np.array(some, np.int64), return_counts=True) for some in held]
        units: list[list[int]] = [[] for _ in names]
        left = np.zeros(len(names))
        for unit, (labels, counts) in enumerate(pairs):
            left[labels] += counts
            for label in labels.tolist():
                units[label].append(unit)
        parts = np.array(list(shares.values()))
        return cls(
            names=names,
            unit_of=unit_of,
            sizes=np.bincount(unit_of, minlength=len(held)),
            labels=[labels for labels, _ in pairs],
            counts=[counts for _, counts in pairs],
            units=units,
            side=np.full(len(held), -1),
            left=left,
            lacking=parts[:, None] * left,
            room=parts * len(strata),
            rng=np.random.default_rng(seed),
        )

    def put_(self, unit: int, split: int) -> None:
        """Assign a unit to a split."""
        labels, counts = self.labels[unit], self.counts[unit]
        self.side[unit] = split
        self.left[labels] -= counts
        self.lacking[split, labels] -= counts
        self.room[split] -= self.sizes[unit]


def _shuffled(draw: _Draw, label: int, seed: int) -> list[int]:
    """Return the units of a label in random order, the largest first."""
    rng = np.random.default_rng((seed, crc32(draw.names[label].encode("utf-8", "surrogatepass"))))
    units = rng.permutation(draw.units[label])
    return units[np.argsort(-draw.sizes[units], kind="stable")].tolist()


def _split_for(lacking: np.ndarray, room: np.ndarray, rng: np.random.Generator) -> int:
    """Return the split that lacks most images of a label, then most images, then any of those that are equal."""
    best = np.flatnonzero(lacking == lacking.max())
    if len(best) > 1:
        best = best[room[best] == room[best].max()]
    return int(best[0] if len(best) == 1 else rng.choice(best))


def _fill_first_(draw: _Draw) -> None:
    """Move a unit of each label that the first split lacks into it: the one that brings the fewest images along."""
    here = np.zeros(len(draw.names), bool)
    for unit in np.flatnonzero(draw.side == 0).tolist():
        here[draw.labels[unit]] = True
    for label in np.flatnonzero(~here).tolist():
        if not here[label]:
            unit = min(draw.units[label], key=lambda unit: (int(draw.sizes[unit]), len(draw.labels[unit]), unit))
            draw.put_(unit, 0)
            here[draw.labels[unit]] = True
