"""The fields of a recipe for training on feature maps that are computed once."""

from dataclasses import dataclass

from effnet.training.recipe.checks import check_from_zero, check_integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Training of the later layers alone, before all of a pretrained network is trained.

    With `views`, the feature maps of this many views of each image are computed once and kept, and what follows them is
    trained on them for `epochs` epochs at the rate `lr`, 0 for that of train.lr. They are those after the first
    `stages` stages; a detector keeps the maps that its decoder reads, and trains the decoder. If this is trained
    `alone`, no epochs on all of the network follow.
    """

    views: int = 0
    epochs: int = 30
    lr: float = 0.0
    stages: int = 0
    alone: bool = False

    def __post_init__(self) -> None:
        check_integers(self, "kept", {"views": 0, "epochs": 1, "stages": 0})
        check_from_zero(self, "kept", "lr")
