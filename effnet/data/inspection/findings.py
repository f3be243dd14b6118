"""The report of a data inspection, and its text for a terminal."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from effnet.data.inspection.annotations import AnnotationCount, describe_annotations
from effnet.data.inspection.counts import FEW_IMAGES, SPLITS, ClassCount, OutputCount, describe_outputs
from effnet.data.inspection.leaks import NO_LEAKS, Leaks
from effnet.data.inspection.shapes import Shapes, shapes_warning
from effnet.data.inspection.values import Values
from effnet.data.sound.record import Sound
from effnet.data.sources.source import Skipped
from effnet.system.records import OPTIONAL
from effnet.system.text import printable

IMBALANCED = 3.0
"""Ratio of the largest to the smallest class from which fit.balance is suggested."""
BALANCE_ADVICE = "--set fit.balance=adjust gives rare classes the same weight as frequent ones"

_NUM_SHOWN = 5
# Below this ratio classes count as balanced.
_UNEVEN = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The minimum, median and maximum of a length in pixels."""

    minimum: int
    median: int
    maximum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """Files with the same bytes: paths (or "name[i]" for arrays), and the split and class of each.

    If `similar`, the bytes differ, but it is the same photograph in another size or encoding.
    """

    paths: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]
    similar: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """The result of an inspection; lists and sizes cover the `num_examined` of `num_images` images.

    `classes` are empty for labels that are no classes, `outputs` for labels other than those of several outputs,
    `annotations` None for labels other than boxes and masks.
    `imbalance` is the largest class of train over the smallest; `modes` and `channels` pair a Pillow mode or a number
    of stored channels with the number of images that have it; `small_classes` have few images in train. `leaks` are
    test images with a copy or group member in train or val, as found by `find_leaks`. `values` describes images with
    more than 8 bits, None if there are none; `sound` are the parameters of the spectrograms of sounds, whose width is
    that of one window.
    """

    name: str
    num_images: int
    num_examined: int
    classes: tuple[ClassCount, ...]
    widths: Spread
    heights: Spread
    median_short_side: int
    shapes: Shapes
    modes: tuple[tuple[str, int], ...]
    channels: tuple[tuple[int, int], ...]
    unreadable: tuple[Skipped, ...]
    wrong_suffixes: tuple[Skipped, ...]
    across_splits: tuple[Duplicate, ...]
    across_labels: tuple[Duplicate, ...]
    imbalance: float
    small_classes: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    leaks: Leaks = NO_LEAKS
    values: Values | None = None
    outputs: tuple[OutputCount, ...] = field(default=(), metadata=OPTIONAL)
    sound: Sound | None = None
    annotations: AnnotationCount | None = field(default=None, metadata=OPTIONAL)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serializable dict."""
        return asdict(self)


def describe(report: DataReport) -> list[str]:
    """Return the report as plain lines for a terminal, at most a few per finding."""
    counts = report.classes or [count for output in report.outputs[:1] for count in (output.known, output.unknown)]
    splits = ", ".join(f"{sum(getattr(c, s) for c in counts):,} {s}" for s in SPLITS)
    outputs = "1 output" if len(report.outputs) == 1 else f"{len(report.outputs)} outputs"
    what = f"{len(report.classes)} classes" if report.classes else outputs
    kind = "images" if report.sound is None else "sounds"
    lines = [f"{printable(report.name)}: {report.num_images:,} {kind}{f', {what} ({splits})' if counts else ''}"]
    if report.num_examined < report.num_images:
        lines.append(
            f"Examined a random sample of {report.num_examined:,} images; "
            "sizes, damaged files and duplicates below cover only the sample."
        )
    lines += _describe_classes(report) + describe_outputs(report.outputs) + describe_annotations(report.annotations)
    lines.append(f"Width {_range(report.widths)}, height {_range(report.heights)} pixels (smallest / median / largest)")
    lines += shapes_warning(report.shapes) if report.sound is None else []
    lines.append(
        f"Modes: {', '.join(f'{count:,} {mode}' for mode, count in report.modes)}; "
        f"channels as stored: {', '.join(f'{count:,} with {number}' for number, count in report.channels)}"
    )
    lines += [] if report.values is None else report.values.sentences
    lines += _describe_files("cannot be decoded", report.unreadable)
    lines += _describe_files("were skipped", report.skipped)
    lines += _describe_files("have the suffix of another format (they are read anyway)", report.wrong_suffixes)
    lines += _describe_duplicates(
        "are in more than one split, so the measured accuracy is too high", report.across_splits
    )
    lines += _describe_duplicates("have different labels", report.across_labels)
    lines += [report.leaks.sentence] if report.leaks.names else []
    return lines + list(report.notes)


def _describe_classes(report: DataReport) -> list[str]:
    if not report.classes:
        return []
    width = max(len(printable(count.name)) for count in report.classes)
    shown = report.classes if len(report.classes) <= 20 else report.classes[:10]
    lines = [f"  {printable(c.name):<{width}}  {c.train:>7,} train  {c.val:>6,} val  {c.test:>6,} test" for c in shown]
    if len(shown) < len(report.classes):
        lines.append(f"  and {len(report.classes) - len(shown)} more classes")
    if report.imbalance >= _UNEVEN:
        lines.append(f"Imbalance: the largest class of train has {report.imbalance:.1f} times the smallest")
    if report.imbalance >= IMBALANCED:
        rarest = min(report.classes, key=lambda c: c.train)
        total = sum(c.train for c in report.classes)
        lines.append(
            f"  {printable(rarest.name)} has {rarest.train:,} of {total:,} train images: models predict such classes "
            f"too rarely; {BALANCE_ADVICE} (fit, train)"
        )
    if report.small_classes:
        names = ", ".join(printable(name) for name in report.small_classes[:10])
        more = ", ..." if len(report.small_classes) > 10 else ""
        lines.append(f"Classes with fewer than {FEW_IMAGES} train images ({len(report.small_classes)}): {names}{more}")
    return lines


def _describe_files(what: str, files: Sequence[Skipped]) -> list[str]:
    if not files:
        return []
    lines = [f"{len(files):,} files {what}:"]
    lines += [f"  {printable(file.path)}: {file.reason}" for file in files[:_NUM_SHOWN]]
    return lines + ([f"  and {len(files) - _NUM_SHOWN:,} more"] if len(files) > _NUM_SHOWN else [])


def _describe_duplicates(what: str, groups: Sequence[Duplicate]) -> list[str]:
    equal = [group for group in groups if not group.similar]
    similar = [group for group in groups if group.similar]
    return _describe_copies(f"images with the same bytes {what}", equal) + _describe_copies(
        f"images that are nearly identical (another size or encoding) {what}", similar
    )


def _describe_copies(what: str, groups: Sequence[Duplicate]) -> list[str]:
    if not groups:
        return []
    lines = [f"{len(groups):,} {what}:"]
    for group in groups[:_NUM_SHOWN]:
        copies = [
            f"{printable(path)} ({split}, {printable(label)})"
            for path, split, label in zip(group.paths, group.splits, group.labels, strict=True)
        ]
        more = f" and {len(copies) - _NUM_SHOWN:,} more" if len(copies) > _NUM_SHOWN else ""
        lines.append(f"  {' = '.join(copies[:_NUM_SHOWN])}{more}")
    return lines + ([f"  and {len(groups) - _NUM_SHOWN:,} more"] if len(groups) > _NUM_SHOWN else [])


def _range(spread: Spread) -> str:
    return f"{spread.minimum:,} / {spread.median:,} / {spread.maximum:,}"
