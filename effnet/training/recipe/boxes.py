"""The fields of a recipe that only detection has."""

from dataclasses import dataclass
from typing import Literal, get_args

from effnet.training.recipe.checks import (
    check_choice,
    check_from_zero,
    check_range,
    check_shares,
)

Assigner = Literal["atss", "tal"]

_LEAST_ZOOM, _MOST_ZOOM = 0.05, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """The views of images with objects, and what a detector of points learns from them.

    Whole images are resized to fit into the input, then by a factor from `zoom_out` to `zoom_in`, alike on a
    logarithmic scale, and cropped such that an object remains. `mosaic` is the share of the views that are composed of
    four images; the last 15 % of the epochs have none. `assigner` chooses the points that learn an object: atss by
    their distance and size, tal by their answers. `weight` is that of the boxes' loss beside the scores'.
    """

    zoom_out: float = 0.7
    zoom_in: float = 1.5
    mosaic: float = 0.0
    assigner: Assigner = "atss"
    weight: float = 2.0

    def __post_init__(self) -> None:
        check_range(self, "boxes", _LEAST_ZOOM, 1, "zoom_out")
        check_range(self, "boxes", 1, _MOST_ZOOM, "zoom_in")
        check_shares(self, "boxes", "mosaic")
        check_choice("boxes.assigner", self.assigner, get_args(Assigner))
        check_from_zero(self, "boxes", "weight")
