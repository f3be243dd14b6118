"""The score of a segmenter in words: the lines and the table for a terminal, and the warnings."""

from collections.abc import Iterator
from typing import Any

from effnet.measurement.evaluate import ScoreTable
from effnet.measurement.segmentation.record import CleanSegmentation, ConstantMask, SegmentationScore
from effnet.system.text import percent, printable


def lines(score: SegmentationScore) -> Iterator[str]:
    """Yield the lines of a score other than its table of classes."""
    interval = score.miou_interval
    spread = f" (95 % interval {percent(interval[0], 1)} to {percent(interval[1], 1)})" if interval else ""
    images = f"{score.images:,} image{'' if score.images == 1 else 's'}"
    yield f"mIoU {shown(score.miou)}{spread} on {images}; {shown(score.accuracy)} of the pixels are right"
    for warning in warnings_of(score):
        yield f"WARNING: {warning}"
    yield (
        f"Dice {shown(score.mean_dice)}; F1 of boundaries within {score.boundary_pixels} px "
        f"{shown(score.mean_boundary_f1)}, both means over the classes"
    )
    if score.constant and not score.chance:  # its warning says so as well
        yield (
            f"always {printable(score.constant.name)!r} would reach mIoU {shown(score.constant.miou)} and be right on "
            f"{shown(score.constant.accuracy)} of the pixels"
        )


def table(score: SegmentationScore) -> ScoreTable:
    """Return a table of the classes that are true or predicted somewhere."""
    rows = [each for each in score.per_class if each.iou is not None]
    absent = len(score.per_class) - len(rows)
    return ScoreTable(
        columns=("class", "IoU", "Dice", "precision", "recall", "boundary F1", "pixels", "images"),
        left=("class",),
        rows=[
            (
                printable(each.name),
                *(shown(v) for v in (each.iou, each.dice, each.precision, each.recall, each.boundary_f1, each.share)),
                each.images,
            )
            for each in rows
        ],
        note=f"{absent} more {'class has' if absent == 1 else 'classes have'} no pixel here." if absent else "",
    )


def warnings_about(score: SegmentationScore, dataset: Any, *, balanced: bool) -> list[str]:
    """Return the warnings that users must see first; they need the score alone."""
    return warnings_of(score)


def warnings_of(score: SegmentationScore) -> list[str]:
    """Return the warnings on a score: no pixel is known, it is at chance level, or its images leak."""
    found = [] if score.pixels else ["No pixel of the test images has a known class: the mIoU is unknown."]
    found += [score.chance] * bool(score.chance)
    return found + ([clean_sentence(score.clean)] if score.clean else [])


def clean_sentence(clean: CleanSegmentation) -> str:
    """Return a sentence on the mIoU without the images that leak."""
    images = f"{clean.leaked:,} test images leak: train or val hold a copy of them, or an image of their group"
    if not clean.images:
        return f"All {images}. The mIoU without them is unknown."
    return f"{images}. Without them the mIoU is {shown(clean.miou)} on {clean.images:,} images."


def constant_sentence(miou: float, interval: tuple[float, float] | None, constant: ConstantMask | None) -> str:
    """Return a sentence if a model is no better than the best constant answer, else nothing."""
    if constant is None or interval is None or interval[0] > constant.miou:
        return ""
    return (
        f"It is no better than a constant answer: its mIoU is {shown(miou)} (95 % interval {shown(interval[0])} to "
        f"{shown(interval[1])}), and always answering {printable(constant.name)!r} reaches {shown(constant.miou)}."
    )


def shown(value: float | None) -> str:
    """Return a share as text, "-" if it is unknown."""
    return "-" if value is None or value != value else percent(value, 1)
