"""Count what is known of each output of a data set: images of its classes and tags, the range of its numbers."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from effnet.data.datasets import Dataset
from effnet.data.several.outputs import SEVERAL, Kind, Placed, outputs_of, placed
from effnet.data.several.values import KIND_WORDS
from effnet.system.text import percent, printable

SPLITS = ("train", "val", "test")

FEW_IMAGES = 20
"""A class or tag with fewer images than this in train is reported as small."""

_MOST_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCount:
    """The number of images of a class in each split."""

    name: str
    train: int
    val: int
    test: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberSpread:
    """The minimum, median and maximum of an output's known numbers, in all splits."""

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCount:
    """What is known of one output: `known` and `unknown` are the numbers of images where it is and is not, by split.

    `classes` are the counts of its classes or tags, `small` the names of those with few images in train, `spread` that
    of a number. `none` is the number of images that are known to have no tag.
    """

    name: str
    kind: Kind
    known: ClassCount
    unknown: ClassCount
    classes: tuple[ClassCount, ...] = ()
    small: tuple[str, ...] = ()
    none: int = 0
    spread: NumberSpread | None = None


def count_outputs(dataset: Dataset) -> tuple[OutputCount, ...]:
    """Return the counts of each output; nothing for labels of another kind."""
    if dataset.label_kind is not SEVERAL:
        return ()
    return tuple(_count(place, dataset) for place in placed(outputs_of(dataset.class_names)))


def _count(place: Placed, dataset: Dataset) -> OutputCount:
    spec, parts = place.spec, [getattr(dataset, name).labels[:, place.targets] for name in SPLITS]
    known = [part[~np.isnan(part[:, 0])] for part in parts]
    if spec.kind == "one":
        counts = [np.bincount(part[:, 0].astype(np.int64), minlength=len(spec.classes)) for part in known]
    else:
        counts = [part.sum(axis=0).astype(np.int64) if spec.kind == "many" else part[:, 0] for part in known]
    classes = tuple(_by_split(name, (count[number] for count in counts)) for number, name in enumerate(spec.classes))
    return OutputCount(
        name=spec.name,
        kind=spec.kind,
        known=_by_split("known", map(len, known)),
        unknown=_by_split("unknown", (len(part) - len(own) for part, own in zip(parts, known, strict=True))),
        classes=classes,
        small=tuple(count.name for count in classes if count.train < FEW_IMAGES),
        none=sum(int((part == 0).all(axis=1).sum()) for part in known) if spec.kind == "many" else 0,
        spread=_spread(np.concatenate(known)) if spec.kind == "number" and any(map(len, known)) else None,
    )


def _by_split(name: str, counts: Iterable[int]) -> ClassCount:
    train, val, test = map(int, counts)
    return ClassCount(name=name, train=train, val=val, test=test)


def _spread(values: np.ndarray) -> NumberSpread:
    return NumberSpread(minimum=float(values.min()), median=float(np.median(values)), maximum=float(values.max()))


def describe_outputs(outputs: tuple[OutputCount, ...]) -> list[str]:
    """Return lines on each output for a terminal."""
    return [line for output in outputs for line in _describe(output)]


def _describe(output: OutputCount) -> list[str]:
    unknown, known = (sum(getattr(count, split) for split in SPLITS) for count in (output.unknown, output.known))
    lacking = f", {percent(unknown / (known + unknown), 1)} unknown" if unknown else ""
    name = f"{KIND_WORDS[output.kind]} {printable(output.name)}"
    if output.spread is not None:
        low, middle, high = output.spread.minimum, output.spread.median, output.spread.maximum
        return [f"{name}: {low:g} / {middle:g} / {high:g} (smallest / median / largest){lacking}"]
    what = "tags" if output.kind == "many" else "classes"
    none = f", {output.none:,} images without any" if output.none else ""
    lines = [f"{name}: {len(output.classes):,} {what}{none}{lacking}"]
    shown = output.classes if len(output.classes) <= 2 * _MOST_SHOWN else output.classes[:_MOST_SHOWN]
    width = max((len(printable(count.name)) for count in shown), default=0)
    lines += [f"  {printable(c.name):<{width}}  {c.train:>7,} train  {c.val:>6,} val  {c.test:>6,} test" for c in shown]
    if len(shown) < len(output.classes):
        lines.append(f"  and {len(output.classes) - len(shown):,} more {what}")
    if output.small:
        names = ", ".join(printable(small) for small in output.small[:_MOST_SHOWN])
        more = ", ..." if len(output.small) > _MOST_SHOWN else ""
        lines.append(f"  {what} with fewer than {FEW_IMAGES} train images ({len(output.small)}): {names}{more}")
    return lines
