"""The score of a detector as a value: what report.json holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effnet.measurement.detection.curves import Operating
from effnet.measurement.detection.figures import DetectionFigures
from effnet.system.records import to_data


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectedClass:
    """The figures of one class, which has `support` objects that count in `images` images; None if it has none.

    `precision`, `recall` and `f1` are those at the threshold, `curve` the recalls and precisions of all thresholds.
    """

    name: str
    ap: float | None
    ap50: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    images: int
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeBin:
    """The objects of a size of `low` up to `high` pixels, None for any larger, and those of them that are found.

    The size is the square root of the box's area, in pixels of the network's input.
    """

    low: int
    high: int | None
    objects: int
    found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The objects by size in an input of `height` x `width` pixels, whose finest output has cells of `stride`."""

    height: int
    width: int
    stride: int
    bins: tuple[SizeBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountScore:
    """How far the number of objects in an image is off on average; `constant` is the median of all, which is always so.

    Objects that do not count are left out.
    """

    mean_error: float
    constant: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxRow:
    """A box of a worst image: left, top, right, bottom in its pixels, and the number of its class.

    `right` says that an object is found, or a detection right; None for what does not count.
    """

    box: tuple[float, float, float, float]
    label: int
    right: bool | None
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstImage:
    """One of the images with most errors at the threshold; `index` is its place in the split.

    `right`, `wrong` and `missed` count detections, detections and objects; `objects` and `found` are the boxes, the
    most certain ones if there are thousands.
    """

    index: int
    source: str
    width: int
    height: int
    right: int
    wrong: int
    missed: int
    objects: tuple[BoxRow, ...]
    found: tuple[BoxRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanDetection:
    """The result without the `leaked` images, copies of which training has seen; NaN if there are no others."""

    leaked: int
    images: int
    ap: float
    ap50: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionScore:
    """The result on one split, of `objects` objects that count; `difficult` others and crowds do not.

    `ap` is the mean average precision over overlaps of 0.5 to 0.95, `ap50` that at 0.5, NaN without objects; the
    intervals are of 95 %, of images drawn with replacement. `figures` are COCO's twelve, with the best `max_detections`
    of a class in an image; `coco` are those with COCO's own 100 if that differs, else None. `found_nothing` is a
    sentence if it finds nearly nothing. `threshold` is the score from which a detection counts in what follows:
    `operating`, None if no object counts, `confusion` [true class][detected class], the last of which is the
    background, `sizes`, `counted`, `mistakes`. If it is `chosen` on these very images, for the best F1, these are too
    good.
    """

    images: int
    objects: int
    difficult: int
    ap: float
    ap50: float
    ap_interval: tuple[float, float] | None
    ap50_interval: tuple[float, float] | None
    max_detections: int
    most_objects: int
    figures: DetectionFigures
    coco: DetectionFigures | None
    found_nothing: str
    threshold: float
    chosen: bool
    operating: Operating | None
    per_class: tuple[DetectedClass, ...]
    curve: tuple[Operating, ...]
    confusion: tuple[tuple[int, ...], ...]
    sizes: Sizes
    counted: CountScore
    clean: CleanDetection | None
    mistakes: tuple[WorstImage, ...]

    @property
    def figure(self) -> float:
        """The AP."""
        return self.ap

    @property
    def headline(self) -> Mapping[str, float]:
        """The figures on top of a report."""
        return {"ap": self.ap, "ap50": self.ap50}

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON-able data; numbers that are NaN become None."""
        found: dict[str, Any] = to_data(self)
        return found
