"""The score of a detector in words: the lines and the table for a terminal, and the warnings."""

from collections.abc import Iterator
from typing import Any

from effnet.measurement.detection.record import CleanDetection, DetectionScore, Sizes
from effnet.measurement.evaluate import ScoreTable
from effnet.system.text import percent, printable


def lines(score: DetectionScore) -> Iterator[str]:
    """Yield the lines of a score other than its table of classes."""
    yield (
        f"AP {shown(score.ap)}{_interval(score.ap_interval)}, AP50 {shown(score.ap50)}"
        f"{_interval(score.ap50_interval)}, AP75 {shown(score.figures.ap75)}, on {score.images:,} "
        f"{_plural('image', score.images)} with {score.objects:,} {_plural('object', score.objects)}"
    )
    for warning in warnings_of(score):
        yield f"WARNING: {warning}"
    if sentence := limit_sentence(score):
        yield sentence
    own = score.figures
    yield f"AP of small objects {shown(own.ap_small)}, of medium {shown(own.ap_medium)}, of large {shown(own.ap_large)}"
    if score.operating:
        yield f"{threshold_sentence(score)}; {count_sentence(score)}"
    if sentence := small_sentence(score.sizes):
        yield sentence
    if score.difficult:
        yield f"{score.difficult:,} {_plural('object', score.difficult)} marked as difficult or crowd do not count"


def table(score: DetectionScore) -> ScoreTable:
    """Return a table of the classes that have objects."""
    rows = [each for each in score.per_class if each.support]
    absent = len(score.per_class) - len(rows)
    return ScoreTable(
        columns=("class", "AP", "AP50", "precision", "recall", "objects", "images"),
        left=("class",),
        rows=[
            (
                printable(each.name),
                *(shown(value) for value in (each.ap, each.ap50, each.precision, each.recall)),
                each.support,
                each.images,
            )
            for each in rows
        ],
        note=f"{absent} more {_plural('class has', absent, 'classes have')} no object here." if absent else "",
    )


def warnings_about(score: DetectionScore, dataset: Any, *, balanced: bool) -> list[str]:
    """Return the warnings that users must see first; they need the score alone."""
    return warnings_of(score)


def warnings_of(score: DetectionScore) -> list[str]:
    """Return the warnings on a score: it means nothing, finds nearly nothing, or its images leak."""
    found = []
    if not score.objects:
        found.append("No test image has an object that counts: the average precision is unknown.")
    if score.found_nothing:
        found.append(score.found_nothing)
    if score.chosen and score.operating:
        found.append(
            "The threshold was chosen on these images, so precision, recall and counts at it are better than on others."
        )
    if score.clean:
        found.append(clean_sentence(score.clean))
    return found


def clean_sentence(clean: CleanDetection) -> str:
    """Return a sentence on the figures without the images that leak."""
    images = f"{clean.leaked:,} test images leak: train or val hold a copy of them, or an image of their group"
    if not clean.images:
        return f"All {images}. The average precision without them is unknown."
    return f"{images}. Without them AP is {shown(clean.ap)} and AP50 {shown(clean.ap50)} on {clean.images:,} images."


def limit_sentence(score: DetectionScore) -> str:
    """Return a sentence on the detections that count, if they are more than COCO's; else nothing."""
    if score.coco is None:
        return ""
    return (
        f"an image has up to {score.most_objects:,} objects of a class, so the best {score.max_detections:,} of its "
        f"detections count; with COCO's 100, AP is {shown(score.coco.ap)} and AP50 {shown(score.coco.ap50)}"
    )


def threshold_sentence(score: DetectionScore) -> str:
    """Return the figures at the threshold in words."""
    found = score.operating
    assert found is not None
    return (
        f"from a score of {score.threshold:.2f}, precision is {percent(found.precision, 1)}, recall "
        f"{percent(found.recall, 1)}, F1 {found.f1:.3f}"
    )


def count_sentence(score: DetectionScore) -> str:
    """Return the error of the number of objects in words."""
    found = score.counted
    return (
        f"the number of objects in an image is off by {found.mean_error:.2f} on average (always the median: "
        f"{found.constant:.2f})"
    )


def small_sentence(sizes: Sizes) -> str:
    """Return how many objects are smaller than a cell of the finest output, and how many of them are found."""
    small = [each for each in sizes.bins if each.high is not None and each.high <= sizes.stride]
    objects, total = sum(each.objects for each in small), sum(each.objects for each in sizes.bins)
    if not objects:
        return ""
    found = sum(each.found for each in small)
    side = str(sizes.width) if sizes.width == sizes.height else f"{sizes.width} x {sizes.height}"
    return (
        f"{percent(objects / total, 1)} of the objects are under {sizes.stride} px in an input of {side}: "
        f"{percent(found / objects, 1)} of these are found, and {percent(_others_found(sizes, found, objects), 1)} of "
        "the others"
    )


def shown(value: float | None) -> str:
    """Return a share as text, "-" if it is unknown."""
    return "-" if value is None or value != value else percent(value, 1)


def _others_found(sizes: Sizes, found: int, objects: int) -> float:
    others = sum(each.objects for each in sizes.bins) - objects
    return (sum(each.found for each in sizes.bins) - found) / max(1, others)


def _interval(found: tuple[float, float] | None) -> str:
    return "" if found is None else f" (95 % interval {shown(found[0])} to {shown(found[1])})"


def _plural(word: str, count: int, others: str = "") -> str:
    return word if count == 1 else others or f"{word}s"
