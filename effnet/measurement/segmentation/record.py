"""The score of a segmenter as a value: what report.json holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effnet.system.records import to_data


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentedClass:
    """The figures of one class, None if it is neither true nor predicted anywhere.

    `share` is its share of the known pixels, `images` are those that have it.
    """

    name: str
    iou: float | None
    dice: float | None
    precision: float | None
    recall: float | None
    boundary_f1: float | None
    share: float
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantMask:
    """The figures if every pixel is answered with `name`, the most frequent class: `accuracy` is its share."""

    name: str
    accuracy: float
    miou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanSegmentation:
    """The result without the `leaked` images, copies of which training has seen; NaN if there are no others."""

    leaked: int
    images: int
    miou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstMask:
    """One of the images with the lowest mIoU; `index` is its place in the split.

    `confused` of its known pixels are of `label` and predicted as `predicted`, the most frequent error. `true` and
    `answered` are small copies of its masks (effnet.measurement.segmentation.small).
    """

    index: int
    source: str
    miou: float
    accuracy: float
    label: str
    predicted: str
    confused: float
    true: str
    answered: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationScore:
    """The result on one split, counted over all known pixels together; `mistakes` come worst first.

    `miou` is the mean IoU of the classes that are true or predicted somewhere, NaN if no pixel is known; its interval
    is of 95 %, of images drawn with replacement. `mean_boundary_f1` is the mean F1 of boundaries that may be off by
    `boundary_pixels`. `chance` is a sentence if it is no better than `constant`, else empty. `confusion` are pixels
    [true class][predicted class].
    """

    images: int
    pixels: int
    miou: float
    miou_interval: tuple[float, float] | None
    mean_dice: float | None
    mean_boundary_f1: float | None
    boundary_pixels: int
    accuracy: float | None
    constant: ConstantMask | None
    chance: str
    per_class: tuple[SegmentedClass, ...]
    confusion: tuple[tuple[int, ...], ...]
    clean: CleanSegmentation | None
    mistakes: tuple[WorstMask, ...]

    @property
    def figure(self) -> float:
        """The mIoU."""
        return self.miou

    @property
    def headline(self) -> Mapping[str, float]:
        """The figure on top of a report."""
        return {"miou": self.miou}

    def to_dict(self) -> dict[str, Any]:
        """Return the score as JSON-able data; numbers that are NaN become None."""
        found: dict[str, Any] = to_data(self)
        return found
