"""The augmentation of training images, a section of recipes."""

from dataclasses import dataclass
from typing import Literal, get_args

from effnet.data.view.resample import Interpolation
from effnet.errors import InputError
from effnet.training.recipe.checks import (
    check_above_zero,
    check_choice,
    check_from_zero,
    check_integers,
    check_positive,
    check_range,
    check_shares,
)

View = Literal["crop", "shift", "none"]
Policy = Literal[
    "none",
    "autoaugment",
    "autoaugment_imagenet",
    "autoaugment_cifar10",
    "randaugment",
    "randaugment_timm",
    "trivialaugment",
]
ErasingFill = Literal["mean", "colour", "noise"]

_MOST_EPS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """The augmentation of training images.

    `view` crop is random resized cropping of at least `min_area` of the image, shift a mild shift, rotation and zoom.
    `flip` mirrors at random. `rotation` is in degrees, `jitter` the spread of brightness, contrast and saturation.
    `erasing` is the share of images in which a rectangle is replaced by `erasing_fill`: the mean, one random colour or
    noise. `mixup` and `cutmix` are the alpha of their beta distributions, 0 for off; if both are on, each batch uses
    one of them.

    `policy` applies a published policy: autoaugment is the EfficientNets' v0, autoaugment_imagenet and
    autoaugment_cifar10 are the paper's tables, randaugment is the EfficientNets' and randaugment_timm timm's.
    RandAugment applies `num_ops` operations at `magnitude` (0 to 30; 10 is the end of AutoAugment's ranges) with the
    standard deviation `magnitude_std`; trivialaugment is the wide variant.

    For images of poor cameras: `blur` and `jpeg` are the shares of images that are blurred or compressed, never both.
    A `noise_share` of all gets Gaussian noise, whose standard deviation is drawn up to `noise`, a share of 255, in
    grains of 1 to 3 pixels (degrade.py).

    `adversarial` is the share of each batch that is attacked by FGSM from a random start, within `adversarial_eps`
    levels of 255, and trained with BatchNorm of its own, which is not exported (adversarial/auxiliary.py).
    """

    view: View = "crop"
    min_area: float = 0.35
    flip: bool = True
    interpolation: Interpolation = "bicubic"
    rotation: float = 0.0
    jitter: float = 0.0
    policy: Policy = "none"
    num_ops: int = 2
    magnitude: float = 9.0
    magnitude_std: float = 0.0
    erasing: float = 0.0
    erasing_fill: ErasingFill = "mean"
    mixup: float = 0.0
    cutmix: float = 0.0
    noise: float = 0.0
    noise_share: float = 0.5
    blur: float = 0.0
    jpeg: float = 0.0
    adversarial: float = 0.0
    adversarial_eps: float = 1.0

    def __post_init__(self) -> None:
        check_choice("augment.view", self.view, get_args(View))
        check_choice("augment.policy", self.policy, get_args(Policy))
        check_choice("augment.interpolation", self.interpolation, get_args(Interpolation))
        check_choice("augment.erasing_fill", self.erasing_fill, get_args(ErasingFill))
        check_integers(self, "augment", {"num_ops": 1})
        check_above_zero(self, "augment", "min_area")
        check_shares(self, "augment", "jitter")
        check_from_zero(self, "augment", "magnitude_std", "mixup", "cutmix")
        check_range(self, "augment", 0, 30, "magnitude")
        check_range(self, "augment", 0, 180, "rotation")
        check_range(self, "augment", 0, 1, "erasing", "noise", "noise_share", "blur", "jpeg")
        check_range(self, "augment", 0, 0.5, "adversarial")
        check_positive(self, "augment", "adversarial_eps")
        if self.blur + self.jpeg > 1:
            raise InputError(
                f"augment.blur and augment.jpeg are shares of different images and must be at most 1 together; got "
                f"{self.blur:g} and {self.jpeg:g}"
            )
        if self.adversarial_eps > _MOST_EPS:
            raise InputError(f"augment.adversarial_eps must be at most {_MOST_EPS}; got {self.adversarial_eps:g}")
