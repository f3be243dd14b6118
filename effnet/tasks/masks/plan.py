"""How an image is shown to a segmenter: whole, in a letterbox, or in overlapping windows, and how both are undone."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from effnet.data.view.letterbox import letterbox
from effnet.data.view.resample import Interpolation, resample
from effnet.data.view.windows import Blend, starts
from effnet.errors import DataError
from effnet.tasks.masks.enlarge import classes_of
from effnet.tasks.masks.record import Segmented, segmented

# Windows begin at multiples of this, so that their logits lie on one grid at every stride that decoders have.
_ALIGNED = 8
# The share of a window that adjacent ones see too.
OVERLAP = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An image of `height` x `width` pixels, resized to `inner_height` x `inner_width`, in windows of the input's size.

    `places` are the top and the left of each window in the resized image; what lies beyond it is filled.
    """

    height: int
    width: int
    inner_height: int
    inner_width: int
    input_height: int
    input_width: int
    places: tuple[tuple[int, int], ...]


def plan(
    height: int, width: int, *, input_height: int, input_width: int, scale: float = 0.0, overlap: float = OVERLAP
) -> Plan:
    """Return how an image is shown: resized by `scale` and cut into windows, or whole if `scale` is 0.

    >>> len(plan(1000, 1000, input_height=320, input_width=320, scale=0.5).places)
    4
    """
    if scale < 0 or not np.isfinite(scale):
        raise DataError(f"the scale of windows must be above 0, or 0 for whole images; got {scale:g}")
    if not scale:
        box = letterbox(height, width, input_height=input_height, input_width=input_width)
        inner = box.inner_height, box.inner_width
        places: tuple[tuple[int, int], ...] = ((0, 0),)
    else:
        inner = max(1, round(height * scale)), max(1, round(width * scale))
        tops, lefts = (
            starts(-(-side // _ALIGNED), window // _ALIGNED, overlap=overlap)
            for side, window in zip(inner, (input_height, input_width), strict=True)
        )
        places = tuple((top * _ALIGNED, left * _ALIGNED) for top in tops for left in lefts)
    return Plan(
        height=height, width=width, inner_height=inner[0], inner_width=inner[1], input_height=input_height,
        input_width=input_width, places=places,
    )  # fmt: skip


def windows(
    image: np.ndarray, shown: Plan, *, fill: tuple[int, ...], interpolation: Interpolation = "bilinear"
) -> np.ndarray:
    """Return the windows of an image, uint8 [windows, input height, input width, C]."""
    whole = resample(image, width=shown.inner_width, height=shown.inner_height, interpolation=interpolation)
    found = np.empty((len(shown.places), shown.input_height, shown.input_width, image.shape[2]), np.uint8)
    found[:] = fill
    for window, (top, left) in zip(found, shown.places, strict=True):
        part = whole[top : top + shown.input_height, left : left + shown.input_width]
        window[: part.shape[0], : part.shape[1]] = part
    return found


def joined(logits: np.ndarray, shown: Plan) -> np.ndarray:
    """Return the logits of the resized image, float32 [classes, rows, columns], from those of its windows.

    `logits` are [windows, classes, h, w]; where windows overlap, the middle of one counts more than the border of
    another.
    """
    stride = _stride(logits, shown)
    rows, columns = -(-shown.inner_height // stride), -(-shown.inner_width // stride)
    if len(shown.places) == 1:
        return np.asarray(logits[0, :, :rows, :columns], np.float32)
    blend = Blend(rows, columns, channels=logits.shape[1])
    for values, (top, left) in zip(logits, shown.places, strict=True):
        blend.add(values.transpose(1, 2, 0), top=top // stride, left=left // stride)
    return np.ascontiguousarray(blend.values().transpose(2, 0, 1))


def classes_in(logits: np.ndarray, shown: Plan) -> np.ndarray:
    """Return the class of each pixel of the image, uint8 [height, width], from [windows, classes, h, w]."""
    stride = _stride(logits, shown)
    extent = shown.inner_height / stride, shown.inner_width / stride
    return classes_of(joined(logits, shown), height=shown.height, width=shown.width, extent=extent)


def segment(
    image: np.ndarray,
    run: Callable[[np.ndarray], np.ndarray],
    *,
    input_height: int,
    input_width: int,
    fill: tuple[int, ...],
    scale: float = 0.0,
    batch_size: int = 1,
    interpolation: Interpolation = "bilinear",
) -> Segmented:
    """Return the classes of an image, uint8 [height, width, C].

    `run` maps windows, uint8 [n, input height, input width, C], to logits [n, classes, h, w]; it gets at most
    `batch_size` at once. Images whose resized sides exceed the input are cut into overlapping windows if `scale`, the
    pixels of the input per pixel of the image, is not 0; else the whole image is fitted into the input.
    """
    shown = plan(*image.shape[:2], input_height=input_height, input_width=input_width, scale=scale)
    cut = windows(image, shown, fill=fill, interpolation=interpolation)
    logits = np.concatenate([run(cut[first : first + batch_size]) for first in range(0, len(cut), batch_size)])
    return segmented(classes_in(logits, shown), num_classes=logits.shape[1])


def _stride(logits: np.ndarray, shown: Plan) -> int:
    """Return the pixels of the input per logit; raise DataError if the logits are those of another input."""
    if logits.ndim != 4 or len(logits) != len(shown.places):
        raise DataError(f"logits must be [{len(shown.places)} windows, classes, h, w]; got {list(logits.shape)}")
    stride, rest = divmod(shown.input_height, int(logits.shape[2]))
    if rest or logits.shape[3] * stride != shown.input_width or stride not in (1, 2, 4, 8):
        raise DataError(
            f"logits must have a stride of 1, 2, 4 or 8 in an input of {shown.input_height} x {shown.input_width}; got "
            f"{logits.shape[2]} x {logits.shape[3]}"
        )
    return stride
