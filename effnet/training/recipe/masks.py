"""The fields of a recipe that only segmentation has."""

from dataclasses import dataclass

from effnet.training.recipe.checks import check_from_zero, check_range

_LEAST_ZOOM, _MOST_ZOOM = 0.05, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """The views of images with masks, and the loss of their pixels.

    `scale` is that of the preprocessing which the recipe is for: images are shown in windows, or whole if it is 0. In
    training they are resized by a further factor from `zoom_out` to `zoom_in`, alike on a logarithmic scale, and
    cropped to the input: to a part with a pixel of the foreground or, with `even_classes`, of a class that is drawn
    evenly from those in the image. `quarter_turns` turns views by 0, 90, 180 or 270 degrees, for images without an up,
    such as aerial ones; only by 180 if the input is not square. `dice` is the weight of the Dice loss beside
    cross-entropy, in which classes weigh by frequency^-`class_weights`: 0 for all alike, 0.5 for 1 / sqrt.
    """

    scale: float = 0.0
    zoom_out: float = 0.5
    zoom_in: float = 2.0
    quarter_turns: bool = False
    even_classes: bool = False
    dice: float = 1.0
    class_weights: float = 0.0

    def __post_init__(self) -> None:
        check_from_zero(self, "masks", "dice")
        check_range(self, "masks", 0, 1, "class_weights")
        check_range(self, "masks", 0, _MOST_ZOOM, "scale")
        check_range(self, "masks", _LEAST_ZOOM, 1, "zoom_out")
        check_range(self, "masks", 1, _MOST_ZOOM, "zoom_in")
