"""What a network has instead of pooling and a classifier: the neck and the heads of a detector, a segmenter's decoder.

A decoder reads feature maps of the backbone by their level: the side of level l is that of the image over 2^l.
"""

from dataclasses import dataclass
from typing import Literal

from effnet.errors import SpecError, shown

Fusion = Literal["sum", "fast"]

# Published networks have at most 384 channels, 8 cells, 5 repeats and levels up to 8.
_MOST_CHANNELS, _MOST_REPEATS, _MOST_LEVEL = 4_096, 32, 12


def _must_lie(what: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise SpecError(f"{what} must be an integer from {least} to {most:,}; got {shown(value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pyramid:
    """A bidirectional feature pyramid (BiFPN) of `cells` cells over the levels from `min_level` to `max_level`.

    `fusion` is how a node joins its inputs: their sum, or "fast", a mean with learnt weights that are not negative.
    With `redundant_bias`, convolutions before a BatchNorm have a bias too, as in the original code.
    Source: Tan et al. 2020, EfficientDet, arXiv 1911.09070, section 3.3; google/automl efficientdet_arch.py.
    """

    channels: int
    cells: int
    min_level: int = 3
    max_level: int = 6
    fusion: Fusion = "sum"
    redundant_bias: bool = False

    def __post_init__(self) -> None:
        _must_lie("the channels of a pyramid", self.channels, 1, _MOST_CHANNELS)
        _must_lie("the cells of a pyramid", self.cells, 1, _MOST_REPEATS)
        _must_lie("the least level of a pyramid", self.min_level, 1, _MOST_LEVEL)
        _must_lie("the largest level of a pyramid", self.max_level, self.min_level + 1, _MOST_LEVEL)
        if self.fusion not in ("sum", "fast"):
            raise SpecError(f"fusion must be sum or fast; got {shown(self.fusion)}")
        if type(self.redundant_bias) is not bool:
            raise SpecError(f"redundant_bias must be true or false; got {shown(self.redundant_bias)}")

    @property
    def levels(self) -> range:
        """The levels of its feature maps."""
        return range(self.min_level, self.max_level + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointHead:
    """The heads of a detector with one prior, a point, in each cell; `repeats` convolutions before the last one."""

    repeats: int

    def __post_init__(self) -> None:
        _must_lie("the repeats of a head", self.repeats, 0, _MOST_REPEATS)

    @property
    def priors(self) -> int:
        """The number of boxes of each cell."""
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorHead:
    """The heads of EfficientDet: boxes of `octaves` sizes and of `ratios` of width and height in each cell.

    The least size is `scale` x the stride of the level.
    """

    repeats: int
    scale: float = 4.0
    octaves: int = 3
    ratios: tuple[tuple[float, float], ...] = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))

    def __post_init__(self) -> None:
        _must_lie("the repeats of a head", self.repeats, 0, _MOST_REPEATS)
        _must_lie("the octaves of anchors", self.octaves, 1, _MOST_REPEATS)
        object.__setattr__(self, "ratios", tuple(tuple(pair) for pair in self.ratios))
        numbers = [self.scale, *(number for pair in self.ratios for number in pair)]
        pairs = bool(self.ratios) and all(len(pair) == 2 for pair in self.ratios)
        if not pairs or not all(type(number) in (int, float) and 0 < number < 1e3 for number in numbers):
            raise SpecError(
                "the scale of anchors must be a positive number and their ratios pairs of such; got "
                f"{shown(self.scale)} and {shown(self.ratios)}"
            )

    @property
    def priors(self) -> int:
        """The number of boxes of each cell."""
        return self.octaves * len(self.ratios)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A detector: the network's classes are those of objects, its outputs `boxes` and `scores` of each prior."""

    neck: Pyramid
    head: PointHead | AnchorHead

    @property
    def taps(self) -> tuple[int, ...]:
        """The levels that it may read from the backbone; it makes those above the backbone's last one."""
        return tuple(self.neck.levels)


@dataclass(frozen=True, slots=True, kw_only=True)
class PyramidDecoder:
    """A feature pyramid whose levels are summed at the stride of `to_level`, then one separable convolution."""

    neck: Pyramid
    channels: int
    to_level: int = 2

    def __post_init__(self) -> None:
        _must_lie("the channels of a decoder", self.channels, 1, _MOST_CHANNELS)
        _must_lie("the level of a decoder's output", self.to_level, 1, self.neck.min_level)

    @property
    def taps(self) -> tuple[int, ...]:
        """The levels that it may read from the backbone."""
        return tuple(range(self.to_level, self.neck.max_level + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class UNet:
    """The decoder of a U-Net: from the backbone's last level on, each block doubles the sides and reads a skip.

    `channels` are those of its blocks. With `separable`, their convolutions are depthwise and pointwise. The last one,
    with a kernel of `last_kernel`, gives the classes. `skips_stem` reads the stem at level 1, not the first stage.
    `early` are levels that are read before their last block: pairs of a level and the number of a block of the network.
    `activation` is that of the decoder, the network's if empty.
    Source: Ronneberger et al. 2015, arXiv 1505.04597; segmentation_models_pytorch, decoders/unet.
    """

    channels: tuple[int, ...]
    separable: bool = True
    last_kernel: int = 1
    skips_stem: bool = False
    activation: str = ""
    early: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "early", tuple(tuple(pair) for pair in self.early))
        for pair in self.early:
            if len(pair) != 2 or not all(type(number) is int and number >= 0 for number in pair):
                raise SpecError(f"early must be pairs of a level and a block's number; got {shown(self.early)}")
        if not 1 <= len(self.channels) <= _MOST_LEVEL:
            raise SpecError(f"a U-Net must have 1 to {_MOST_LEVEL} blocks; got {len(self.channels)}")
        for width in self.channels:
            _must_lie("the channels of a decoder", width, 1, _MOST_CHANNELS)
        if self.last_kernel not in (1, 3):
            raise SpecError(f"the last kernel of a decoder must be 1 or 3; got {shown(self.last_kernel)}")
        if self.activation not in ("", "silu", "relu", "relu6", "hard_swish"):
            raise SpecError(f"a decoder's activation must be that of a network; got {shown(self.activation)}")
        for name in ("separable", "skips_stem"):
            if type(getattr(self, name)) is not bool:
                raise SpecError(f"{name} must be true or false; got {shown(getattr(self, name))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmenter:
    """A segmenter: the network's classes are those of pixels, its output `mask` the logits of each."""

    decoder: PyramidDecoder | UNet


Decoder = Detector | Segmenter
