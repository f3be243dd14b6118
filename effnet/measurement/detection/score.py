"""The score of a detector on annotated images: COCO's figures, classes, sizes, errors, worst images; no torch."""

import math
from collections.abc import Collection, Sequence

import numpy as np

from effnet.data.annotated.record import Annotated
from effnet.errors import DataError
from effnet.measurement.detection.curves import (
    Operating,
    Outcome,
    best_f1,
    confusion,
    curve,
    outcome_of,
)
from effnet.measurement.detection.figures import DetectionFigures, bootstrap, by_class, figures
from effnet.measurement.detection.matching import MAX_DETECTIONS, ClassMatches, match, overlaps
from effnet.measurement.detection.record import (
    CleanDetection,
    CountScore,
    DetectedClass,
    DetectionScore,
    SizeBin,
    Sizes,
)
from effnet.measurement.detection.text import lines, table, warnings_about
from effnet.measurement.detection.worst import worst_images
from effnet.system.text import percent
from effnet.tasks.boxes.record import Detections

__all__ = ["SCORE", "DetectionScore", "lines", "score", "table", "warnings_about"]

SCORE = DetectionScore

_CLASS_POINTS = 40
_EDGES = (0, 4, 8, 16, 32, 64, 128, 256)
# An AP50 below this is nearly nothing.
_NOTHING = 0.05


def score(
    truths: Sequence[Annotated],
    found: Sequence[Detections],
    class_names: Sequence[str],
    *,
    input_size: tuple[int, int],
    stride: int = 8,
    threshold: float | None = None,
    indices: Sequence[int] | None = None,
    leaked: Collection[str] = (),
) -> DetectionScore:
    """Return the score of the detections of each image, all of those with a score above 0.05 or less.

    `input_size` is height and width of the network's input, `stride` that of its finest output. `threshold` is the
    bundle's, chosen on other images; without one, that of the best F1 on these is taken. `indices` are the places of
    the images in their split, by default 0, 1, 2 ...; `leaked` are the paths of images of which training has seen
    copies.

    An average precision counts the best 100 detections of a class in an image, more if an image has more objects.

    Raises:
        DataError: there is no image, or not detections of every image.
    """
    if not truths:
        raise DataError("a detector's score needs at least one image; there is none")
    most_objects = max((int(np.bincount(truth.classes).max()) for truth in truths if len(truth.classes)), default=0)
    most = max(MAX_DETECTIONS[-1], 100 * math.ceil(most_objects / 100))
    limits = (MAX_DETECTIONS[0], MAX_DETECTIONS[1], most)
    matches = match(truths, found, num_classes=len(class_names), max_detections=most)
    overall, spread = figures(matches, max_detections=limits), bootstrap(matches)
    best = best_f1(matches)
    least = threshold if threshold is not None else best.threshold if best else 0.5
    kept = [each.above(least) for each in found]
    outcomes = [outcome_of(truth, each) for truth, each in zip(truths, kept, strict=True)]
    ap50, objects = _or_nan(overall.ap50), sum(int(one.positives[:, 0].sum()) for one in matches)
    return DetectionScore(
        images=len(truths),
        objects=objects,
        difficult=sum(int((truth.crowd | truth.difficult).sum()) for truth in truths),
        ap=_or_nan(overall.ap),
        ap50=ap50,
        ap_interval=spread.get("ap"),
        ap50_interval=spread.get("ap50"),
        max_detections=most,
        most_objects=most_objects,
        figures=overall,
        coco=_by_coco(truths, found, len(class_names)) if most > MAX_DETECTIONS[-1] else None,
        found_nothing=nothing_sentence(truths, found) if ap50 < _NOTHING else "",
        threshold=least,
        chosen=threshold is None,
        operating=_operating(outcomes, least) if objects else None,
        per_class=_per_class(matches, truths, kept, outcomes, class_names),
        curve=tuple(curve(matches)),
        confusion=_as_rows(confusion(truths, found, num_classes=len(class_names), threshold=least)),
        sizes=_sizes(truths, outcomes, input_size=input_size, stride=stride),
        counted=_counted(truths, outcomes),
        clean=_clean(truths, found, class_names, most=most, leaked=leaked) if leaked else None,
        mistakes=tuple(worst_images(truths, kept, outcomes, indices=indices)),
    )


def nothing_sentence(truths: Sequence[Annotated], found: Sequence[Detections]) -> str:
    """Return a sentence on why nearly no object is found: no boxes, boxes elsewhere, other classes, or imprecise boxes.

    Empty if there is no object.
    """
    near, fitting, known, objects = 0, 0, 0, 0
    for truth, each in zip(truths, found, strict=True):
        counts = ~(truth.crowd | truth.difficult)
        ious = overlaps(each.boxes.astype(np.float64), truth.boxes, truth.crowd)[:, counts]
        same = each.classes[:, None] == truth.classes[None, counts]
        objects += int(counts.sum())
        near += int((ious >= 0.1).any(0).sum())
        fitting += int((ious >= 0.5).any(0).sum())
        known += int(((ious >= 0.5) & same).any(0).sum())
    boxes = sum(map(len, found))
    if not objects:
        return ""
    if not boxes:
        return "It finds nearly nothing: no box has a score worth keeping. It needs a longer training."
    things = "1 object" if objects == 1 else f"{objects:,} objects"
    some = f"It finds nearly nothing: of {things}, its boxes ({boxes:,})"
    if near < 0.5 * objects:
        return (
            f"{some} touch {percent(near / objects, 1)}. Boxes that lie elsewhere come from a training that is too "
            "short, or from annotations whose coordinates do not belong to the images."
        )
    if fitting < 0.5 * objects:
        return f"{some} fit {percent(fitting / objects, 1)} by half. It needs a longer training, or a larger input."
    if known < 0.5 * fitting:
        return (
            f"{some} fit {percent(fitting / objects, 1)} by half, but with the right class only "
            f"{percent(known / objects, 1)}. It needs a longer training, or its classes look alike."
        )
    return f"{some} fit {percent(known / objects, 1)} by half, but most boxes of high scores are of no object."


def _by_coco(truths: Sequence[Annotated], found: Sequence[Detections], num_classes: int) -> DetectionFigures:
    return figures(match(truths, found, num_classes=num_classes))


def _operating(outcomes: Sequence[Outcome], threshold: float) -> Operating:
    right, wrong, missed = (
        sum(int(getattr(each, name).sum()) for each in outcomes) for name in ("right", "wrong", "missed")
    )
    return Operating(
        threshold=threshold,
        precision=right / max(1, right + wrong),
        recall=right / max(1, right + missed),
        f1=2 * right / max(1, 2 * right + wrong + missed),
    )


def _per_class(
    matches: Sequence[ClassMatches],
    truths: Sequence[Annotated],
    kept: Sequence[Detections],
    outcomes: Sequence[Outcome],
    class_names: Sequence[str],
) -> tuple[DetectedClass, ...]:
    number = len(class_names)
    right, wrong, missed = (np.zeros(number, np.int64) for _ in range(3))
    for truth, each, outcome in zip(truths, kept, outcomes, strict=True):
        right += np.bincount(each.classes[outcome.right], minlength=number)
        wrong += np.bincount(each.classes[outcome.wrong], minlength=number)
        missed += np.bincount(truth.classes[outcome.missed], minlength=number)
    return tuple(
        DetectedClass(
            name=name,
            ap=own.ap,
            ap50=own.ap50,
            precision=_share(right[i], right[i] + wrong[i]),
            recall=_share(right[i], right[i] + missed[i]),
            f1=_share(2 * right[i], 2 * right[i] + wrong[i] + missed[i]) if own.support else None,
            support=own.support,
            images=int((matches[i].positives[:, 0] > 0).sum()),
            curve=_thinned(curve([matches[i]])),
        )
        for i, (name, own) in enumerate(zip(class_names, by_class(matches), strict=True))
    )


def _thinned(points: Sequence[Operating]) -> tuple[tuple[float, float], ...]:
    """Return the recall and precision of some points, the ends among them."""
    places = np.unique(np.linspace(0, len(points) - 1, min(len(points), _CLASS_POINTS)).round().astype(int))
    return tuple((round(points[i].recall, 4), round(points[i].precision, 4)) for i in places.tolist())


def _sizes(
    truths: Sequence[Annotated], outcomes: Sequence[Outcome], *, input_size: tuple[int, int], stride: int
) -> Sizes:
    height, width = input_size
    sizes, missed = [np.empty(0)], [np.empty(0, bool)]
    for truth, outcome in zip(truths, outcomes, strict=True):
        counts = ~(truth.crowd | truth.difficult)
        sides = truth.boxes[counts, 2:] - truth.boxes[counts, :2]
        sizes.append(min(height / truth.height, width / truth.width) * np.sqrt(sides.prod(1)))
        missed.append(outcome.missed[counts])
    places = np.searchsorted(_EDGES, np.concatenate(sizes), side="right") - 1
    objects = np.bincount(places, minlength=len(_EDGES))
    lost = np.bincount(places[np.concatenate(missed)], minlength=len(_EDGES))
    highs = (*_EDGES[1:], None)
    return Sizes(
        height=height,
        width=width,
        stride=stride,
        bins=tuple(
            SizeBin(low=low, high=high, objects=int(all_), found=int(all_ - out))
            for low, high, all_, out in zip(_EDGES, highs, objects, lost, strict=True)
        ),
    )


def _counted(truths: Sequence[Annotated], outcomes: Sequence[Outcome]) -> CountScore:
    numbers = np.array([int((~(truth.crowd | truth.difficult)).sum()) for truth in truths])
    off = np.array([int(outcome.wrong.sum()) - int(outcome.missed.sum()) for outcome in outcomes])
    return CountScore(mean_error=float(np.abs(off).mean()), constant=float(np.abs(numbers - np.median(numbers)).mean()))


def _clean(
    truths: Sequence[Annotated],
    found: Sequence[Detections],
    class_names: Sequence[str],
    *,
    most: int,
    leaked: Collection[str],
) -> CleanDetection:
    known = frozenset(leaked)
    kept = [i for i, truth in enumerate(truths) if truth.path not in known]
    matches = match(
        [truths[i] for i in kept], [found[i] for i in kept], num_classes=len(class_names), max_detections=most
    )
    own = figures(matches, max_detections=(*MAX_DETECTIONS[:2], most))
    return CleanDetection(leaked=len(truths) - len(kept), images=len(kept), ap=_or_nan(own.ap), ap50=_or_nan(own.ap50))


def _as_rows(counts: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(int, row)) for row in counts)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None
