"""Split a listing into train, val and test: stratified, and reproducible by seed."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.data.groups import numbers_within
from effnet.data.labels import CLASSES
from effnet.data.several.iterative_split import iterative_split
from effnet.data.sources.source import Group, Part
from effnet.errors import DataError

Strata = Callable[[Sequence[str]], Sequence[str] | Sequence[tuple[str, ...]]]

HELD_OUT = 0.15
"""The fraction of the images for val, and again for test, if the source does not give these splits."""


def stratified_split(
    labels: Sequence[str], *, seed: int, names: Sequence[str], groups: Mapping[int, int] | None = None
) -> dict[str, np.ndarray]:
    """Return sorted int64 indices of each split: `names` are the held-out splits, the rest is "train".

    Every class gives about 15 % to each held-out split, at least one image if it has enough; a class with one image
    stays in train, and a class with two gives one to the last name. The order depends only on the seed and the class,
    so that adding a class does not change the split of the others.

    Images (by index) with the same number in `groups` stay together. Then "about" is as close as whole groups allow,
    and "one image" is one group.
    """
    draw = _Draw.of(labels, groups or {})
    chosen: dict[str, list[int]] = {name: [] for name in ("train", *names)}
    by_class: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        by_class.setdefault(label, []).append(index)
    # If groups span classes, the order of the classes matters: it must not depend on the order of the files.
    for label in sorted(by_class):
        key = zlib.crc32(label.encode("utf-8", "surrogatepass"))
        shuffled = np.random.default_rng((seed, key)).permutation(by_class[label]).tolist()
        units = list(dict.fromkeys(draw.unit_of[index] for index in shuffled))
        for later, name in reversed(list(enumerate(names))):
            draw.take_(units, label, split=name, keep=later + 1)
    for index, unit in enumerate(draw.unit_of):
        chosen[draw.side.get(unit, "train")].append(index)
    return {name: np.array(indices, dtype=np.int64) for name, indices in chosen.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draw:
    """The state of the draw of units, which are images or groups; a group has the number of its first image.

    `unit_of` is the unit of each image, `counts` the number of images of each class in a group, `left` the number of
    units of a class not drawn yet, `taken` the number of images drawn for (split, class), `wanted` the target number.
    """

    labels: Sequence[str]
    unit_of: list[int]
    counts: dict[int, Counter[str]]
    left: Counter[str]
    taken: Counter[tuple[str, str]]
    wanted: dict[str, int]
    side: dict[int, str]

    @classmethod
    def of(cls, labels: Sequence[str], groups: Mapping[int, int]) -> "_Draw":
        unit_of = list(range(len(labels)))
        first: dict[int, int] = {}
        counts: dict[int, Counter[str]] = {}
        for index in sorted(groups):
            unit_of[index] = first.setdefault(groups[index], index)
            counts.setdefault(unit_of[index], Counter())[labels[index]] += 1
        left = Counter(labels)
        for found in counts.values():
            for label, count in found.items():
                left[label] -= count - 1
        wanted = {label: max(1, int(HELD_OUT * count + 0.5)) for label, count in Counter(labels).items()}
        return cls(labels=labels, unit_of=unit_of, counts=counts, left=left, taken=Counter(), wanted=wanted, side={})

    def counts_of(self, unit: int) -> Mapping[str, int]:
        """Return the number of images of each class in a unit."""
        return self.counts.get(unit) or {self.labels[unit]: 1}

    def take_(self, units: Sequence[int], label: str, *, split: str, keep: int) -> None:
        """Draw units of a class into `split` in order, while that brings its classes closer to their share.

        `keep` units of the class are left for the following splits and for train, except when the first is drawn.
        """
        for unit in units:
            if self.taken[split, label] >= self.wanted[label]:
                return
            if unit not in self.side and self._may(unit, label, split, keep) and self._gain(unit, split) > 0:
                self._put_(unit, split)
        if not self.taken[split, label]:  # every group is too large: the smallest, rather than none
            open_ = [unit for unit in units if unit not in self.side and self._may(unit, label, split, keep)]
            if open_:
                self._put_(min(open_, key=lambda unit: sum(self.counts_of(unit).values())), split)

    def _may(self, unit: int, label: str, split: str, keep: int) -> bool:
        """Return whether every class of the unit keeps enough other units: one for train, and `keep` of `label`."""
        least = keep if self.taken[split, label] else 1
        return all(self.left[name] > (least if name == label else 1) for name in self.counts_of(unit))

    def _gain(self, unit: int, split: str) -> int:
        """Return the number of images by which the unit would bring its classes closer to their share."""
        return sum(
            abs(self.wanted[name] - self.taken[split, name]) - abs(self.wanted[name] - self.taken[split, name] - count)
            for name, count in self.counts_of(unit).items()
        )

    def _put_(self, unit: int, split: str) -> None:
        self.side[unit] = split
        for name, count in self.counts_of(unit).items():
            self.taken[split, name] += count
            self.left[name] -= 1


def arrange(
    parts: dict[str, Part],
    *,
    seed: int,
    groups: Iterable[Group] = (),
    strata: Strata = CLASSES.strata,
) -> tuple[dict[str, Part], tuple[str, ...], list[str]]:
    """Return the parts "train", "val" and "test", the names of generated splits, and notes about them.

    The images of a group stay on one side of a generated split, which is stratified by the `strata` of the labels; of
    labels with several strata each, iteratively.

    Raises:
        DataError: there are too few images to hold any out.
    """
    given = {name: part for name, part in parts.items() if part.sources}
    share = f"{HELD_OUT:.0%}"
    train = given.get("", given.get("train"))
    if train is None:
        raise DataError(
            f"the split train must hold images, but only {', '.join(sorted(given)) or 'none'} has any; add some to "
            "train on (effnet evaluate takes such data)"
        )
    if "val" in given and "test" in given:
        return given, (), ["The splits train, val and test are used as given."]
    if "val" in given or "test" in given:
        carved = _carve(train, seed=seed, names=("val",), groups=groups, strata=strata)
        held_out = given.get("test", given.get("val"))
        assert held_out is not None
        note = (
            f"There is no val split, so {share} of train, stratified with seed {seed}, became val."
            if "test" in given
            else f"There is no test split, so the given val is the held-out test, and {share} of train, "
            f"stratified with seed {seed}, became val."
        )
        return {**carved, "test": held_out}, ("val",), [note]
    rest = f"{1 - 2 * HELD_OUT:.0%}"
    note = f"The images were split {rest} train, {share} val, {share} test, stratified with seed {seed}."
    carved = _carve(train, seed=seed, names=("val", "test"), groups=groups, strata=strata)
    return carved, ("val", "test"), [note]


def _carve(
    part: Part, *, seed: int, names: tuple[str, ...], groups: Iterable[Group], strata: Strata
) -> dict[str, Part]:
    together = numbers_within(part, groups)
    indices = _split(strata(part.labels), seed=seed, names=names, groups=together)
    for name in names:
        if not len(indices[name]):
            num_units = len(part.sources) - len(together) + len(set(together.values()))
            kept = f" ({num_units} without copies and groups)" if together else ""
            classes = _num_classes(strata(part.labels))
            raise DataError(
                f"no class has enough images to hold some out for {name}: {_number(len(part.sources), 'image')}{kept} "
                f"in {_number(classes, 'class', 'classes')}; add images, at least {len(names) + 1} in a class"
            )
    return {
        name: Part(
            sources=tuple(part.sources[i] for i in chosen),
            labels=tuple(part.labels[i] for i in chosen),
        )
        for name, chosen in indices.items()
    }


def _number(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def _num_classes(strata: Sequence[str] | Sequence[tuple[str, ...]]) -> int:
    return len({name for some in strata for name in ((some,) if isinstance(some, str) else some)})


def _split(
    strata: Sequence[str] | Sequence[tuple[str, ...]], *, seed: int, names: tuple[str, ...], groups: Mapping[int, int]
) -> dict[str, np.ndarray]:
    if all(isinstance(stratum, str) for stratum in strata):
        return stratified_split(strata, seed=seed, names=names, groups=groups)  # type: ignore[arg-type]
    shares = {"train": 1 - HELD_OUT * len(names), **dict.fromkeys(names, HELD_OUT)}
    return iterative_split(strata, seed=seed, shares=shares, groups=groups)  # type: ignore[arg-type]
