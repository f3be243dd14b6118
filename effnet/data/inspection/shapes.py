"""Choose the resize mode that suits the shapes of the images: centre crop, squash or pad."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from effnet.data.preprocess import Mode, Preprocess

Resize = Literal["auto", "center", "squash", "pad"]
"""The values of fit.resize; "auto" leaves the choice to `suited_mode`."""

# A centre crop of 16:9 loses 44 % of the median image, which is usual for classifiers of photographs.
_MOST_LOST = 0.45
# If the middle 90 % of the aspect ratios are within this factor, nearly all images have one aspect ratio: squashing
# then changes all of them alike, and wastes no pixel.
_ONE_ASPECT = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Width over height of the images: the median, and the `low` and `high` bounds of the middle 90 %.

    `crop_loss` is the share of the median image that the largest centred square leaves out.
    """

    low: float
    median: float
    high: float
    crop_loss: float


def shapes_of(sizes: Sequence[tuple[int, int]]) -> Shapes:
    """Return the shapes of images, from their (width, height) in pixels."""
    width, height = np.asarray(sizes, np.float64).T
    low, median, high = (round(float(value), 4) for value in np.quantile(width / height, (0.05, 0.5, 0.95)))
    lost = np.median(1 - np.minimum(width, height) / np.maximum(width, height))
    return Shapes(low=low, median=median, high=high, crop_loss=round(float(lost), 4))


def suited_mode(shapes: Shapes) -> Mode:
    """Return "center" if a centre crop loses no more than from 16:9, else "squash" for one aspect ratio, or "pad"."""
    if shapes.crop_loss <= _MOST_LOST:
        return "center"
    return "squash" if shapes.high <= _ONE_ASPECT * shapes.low else "pad"


def loss_sentence(shapes: Shapes) -> str:
    """Return the loss of a centre crop, as the beginning of a sentence."""
    side = "width" if shapes.median >= 1 else "height"
    return f"A centre crop would lose {shapes.crop_loss:.0%} of the {side} of the median image"


def shapes_warning(shapes: Shapes) -> list[str]:
    """Return a line for a terminal if images are too wide or too tall for a centre crop, else an empty list."""
    mode = suited_mode(shapes)
    if mode == "center":
        return []
    done = "squashes whole images into a square" if mode == "squash" else "pads whole images to a square"
    return [f"{loss_sentence(shapes)}: fit {done} (--set fit.resize={mode}) unless another one is given"]


def resize_note(resize: Resize, shapes: Shapes) -> str:
    """Return how images are resized and why, as a sentence; empty if "auto" chooses a centre crop."""
    mode = suited_mode(shapes) if resize == "auto" else resize
    if resize == "auto" and mode == "center":
        return ""
    ways = {"center": "cropped to their centre", "squash": "squashed whole", "pad": "padded whole with the mean colour"}
    done = f"Images are {ways[mode]} to the network's square input"
    loss = loss_sentence(shapes)
    if resize != "auto":
        return f"{done}, as set by fit.resize={resize}. {loss}."
    alike = "nearly all have one aspect ratio" if mode == "squash" else "their aspect ratios differ"
    return f"{done}: a{loss[1:]}, and {alike}."


def resized_as(preprocess: Preprocess, resize: Resize, shapes: Shapes) -> Preprocess:
    """Return the preprocessing, of pretrained weights or a network trained from scratch, with the mode of `resize`.

    If "auto" chooses a centre crop, it is returned unchanged. Spectrograms are always squashed: their edges are the
    lowest and the highest tones.
    """
    if preprocess.sound is not None:
        return dataclasses.replace(preprocess, mode="squash", crop=1.0)
    mode = suited_mode(shapes) if resize == "auto" else resize
    if mode == preprocess.mode or (resize == "auto" and mode == "center"):
        return preprocess
    return dataclasses.replace(preprocess, mode=mode, crop=preprocess.crop if mode == "center" else 1.0)
