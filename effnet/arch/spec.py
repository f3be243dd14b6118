"""A network as a frozen value: absolute integers, no torch; everything else is a function of it."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from effnet.arch.blocks import BlockKind, find_kind
from effnet.arch.decoders.record import Decoder, Detector, Segmenter
from effnet.arch.lineage import Lineage
from effnet.errors import SpecError, nearest, shown

Residual = Literal["none", "identity", "projection"]
Activation = Literal["silu", "relu", "relu6", "hard_swish"]
Gate = Literal["sigmoid", "hard_sigmoid", "none"]
Padding = Literal["same", "symmetric"]
Rounding = Literal["v1", "v2"]

# No network comes near these limits; they keep an untrusted file from taking all memory or time. The largest
# published network, EfficientNet-L2, has 8,256 channels, 100 blocks and 800 pixels; RepLKNet has kernels of 31.
MAX_CHANNELS, MAX_BLOCKS, MAX_KERNEL_SIZE, MAX_STEM_STRIDE = 65_536, 4_096, 31, 32
MAX_CLASSES, MAX_RESOLUTION, MAX_IMAGE_CHANNELS = 100_000, 16_384, 1_024
# A smaller epsilon would vanish beside any variance in fp32.
MIN_NORM_EPSILON = 1e-12


def _must_be_known(what: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SpecError(f"{what} must be one of {', '.join(known)}; got {shown(value)}{nearest(str(value), known)}")


def _must_be_count(what: str, value: object, *, least: int = 1, most: int = MAX_CHANNELS) -> None:
    if type(value) is not int or value < least:
        raise SpecError(f"{what} must be an integer of at least {least}; got {shown(value)}")
    if value > most:
        raise SpecError(f"{what} must be at most {most:,}; got {shown(value)}")


def _must_be_flag(what: str, value: object) -> None:
    if type(value) is not bool:
        raise SpecError(f"{what} must be true or false; got {shown(value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """One block: its kind, its integers and its shortcut.

    `mid_channels` is the width between the block's first and last convolution: the expanded width of an
    mbconv, the input width of a depthwise_separable, the output width of a plain conv. `se_channels` is the
    squeezed width of squeeze-and-excitation, 0 for none; `eca_kernel` the kernel of efficient channel attention (ECA)
    over the same feature map, 0 for none; a block has one of the two at most. `residual` is stored, never derived, so
    that a change of widths can neither create nor drop a shortcut. An `activation` replaces the network's.
    """

    kind: str
    kernel_size: int = 3
    stride: int = 1
    in_channels: int
    mid_channels: int
    out_channels: int
    se_channels: int = 0
    eca_kernel: int = 0
    residual: Residual = "none"
    activation: Activation | Literal[""] = ""

    def __post_init__(self) -> None:
        rules = find_kind(self.kind)
        _must_be_known("residual", self.residual, get_args(Residual))
        _must_be_known("a block's activation", self.activation, (*get_args(Activation), ""))
        for name in ("kernel_size", "stride", "in_channels", "mid_channels", "out_channels"):
            most = MAX_KERNEL_SIZE if name == "kernel_size" else MAX_CHANNELS
            _must_be_count(f"{self.kind} {name}", getattr(self, name), most=most)
        _must_be_count(f"{self.kind} se_channels", self.se_channels, least=0)
        _must_be_count(f"{self.kind} eca_kernel", self.eca_kernel, least=0, most=MAX_KERNEL_SIZE)
        if self.kernel_size % 2 == 0:
            raise SpecError(f"kernel_size must be odd; got {self.kernel_size}")
        if self.eca_kernel and self.eca_kernel % 2 == 0:
            raise SpecError(f"eca_kernel must be odd, or 0 for none; got {self.eca_kernel}")
        if self.stride > 2:
            raise SpecError(f"a block's stride must be 1 or 2; got {self.stride}")
        rules.check(self)
        if self.residual == "identity" and (self.stride != 1 or self.in_channels != self.out_channels):
            raise SpecError(
                "an identity shortcut needs stride 1 and in_channels == out_channels; got "
                f"stride {self.stride}, {self.in_channels} -> {self.out_channels}"
            )

    @property
    def rules(self) -> BlockKind:
        """The record of this block's kind."""
        return find_kind(self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class StemSpec:
    """The first convolution and, for ResNets, the max pooling after it."""

    channels: int
    kernel_size: int = 3
    stride: int = 2
    max_pool: bool = False

    def __post_init__(self) -> None:
        _must_be_count("stem channels", self.channels)
        _must_be_count("stem stride", self.stride, most=MAX_STEM_STRIDE)
        _must_be_count("stem kernel_size", self.kernel_size, most=MAX_KERNEL_SIZE)
        if self.kernel_size % 2 == 0:
            raise SpecError(f"stem kernel_size must be odd; got {self.kernel_size}")
        _must_be_flag("stem max_pool", self.max_pool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How a network grows under `scale`; it does not affect the function that the network computes.

    `rounding` v1 never rounds a width down by more than 10 %, v2 may. `fixed_ends` keeps the stem, the head
    and the repeats of the first and last stage (Lite). `first_expands_from` is the width from which the first block
    expands if that is not its input width, else 0 (EdgeTPU: 24, in a stage without shortcuts).
    """

    rounding: Rounding = "v1"
    fixed_ends: bool = False
    first_expands_from: int = 0

    def __post_init__(self) -> None:
        _must_be_known("rounding", self.rounding, get_args(Rounding))
        _must_be_flag("fixed_ends", self.fixed_ends)
        _must_be_count("first_expands_from", self.first_expands_from, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchSpec:
    """A whole network: stem, stages of explicit blocks, head, and everything else that changes its function.

    `head_channels` 0 means no head convolution, `num_classes` 0 no classifier. The classifier reads the pooled last
    feature map and, after it, the pooled outputs of the stages `pooled`, numbers in ascending order. `resolution` is
    the side of the square input, in pixels, the default for costs and exports, or its width if there is a `height`.
    With a `decoder`, the network detects objects or segments: it has no head, and its classes are those of objects or
    pixels.
    Two specs are equal if they compute the same function of the same input size and scale alike; `lineage`, from which
    the names are made, is ignored.
    """

    lineage: Lineage = field(default=Lineage(), compare=False)
    in_channels: int = 3
    num_classes: int = 1000
    resolution: int
    stem: StemSpec
    stages: tuple[tuple[BlockSpec, ...], ...]
    head_channels: int
    activation: Activation = "silu"
    se_gate: Gate = "sigmoid"
    norm_epsilon: float = 1e-3
    padding: Padding = "same"
    scaling: Scaling = Scaling()
    height: int = 0
    decoder: Decoder | None = None
    pooled: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _must_be_count("in_channels", self.in_channels, most=MAX_IMAGE_CHANNELS)
        _must_be_count("num_classes", self.num_classes, least=0, most=MAX_CLASSES)
        _must_be_count("resolution", self.resolution, most=MAX_RESOLUTION)
        _must_be_count("head_channels", self.head_channels, least=0)
        _must_be_known("activation", self.activation, get_args(Activation))
        _must_be_known("se_gate", self.se_gate, get_args(Gate))
        _must_be_known("padding", self.padding, get_args(Padding))
        if not isinstance(self.norm_epsilon, float) or not MIN_NORM_EPSILON <= self.norm_epsilon < 1:
            raise SpecError(f"norm_epsilon must lie between {MIN_NORM_EPSILON:g} and 1; got {shown(self.norm_epsilon)}")
        if not self.stages or not all(self.stages):
            raise SpecError("a network needs at least one stage, and each stage at least one block")
        if (count := sum(map(len, self.stages))) > MAX_BLOCKS:
            raise SpecError(f"a network must have at most {MAX_BLOCKS:,} blocks; got {count:,}")
        _must_be_count("height", self.height, least=0, most=MAX_RESOLUTION)
        self._check_chain()
        self._check_pooled()
        if self.decoder is not None:
            self._check_decoder(self.decoder)

    def _check_decoder(self, decoder: object) -> None:
        if not isinstance(decoder, Detector | Segmenter):
            raise SpecError(f"a decoder must be a Detector or a Segmenter; got {type(decoder).__name__}")
        if self.head_channels or not self.num_classes or self.pooled:
            raise SpecError(
                "a network with a decoder must have classes, no head convolution and no pooled stages; got "
                f"{self.num_classes} classes, {self.head_channels} head channels, {len(self.pooled)} pooled stages"
            )

    def _check_pooled(self) -> None:
        # Without a head convolution the last stage's output is the last feature map, which is pooled anyway.
        number = len(self.stages) if self.head_channels else len(self.stages) - 1
        known = isinstance(self.pooled, tuple) and all(type(stage) is int for stage in self.pooled)
        if not known or sorted(set(self.pooled) & set(range(number))) != list(self.pooled):
            raise SpecError(
                f"pooled must be numbers of stages, ascending, of at least 0 and less than {number}; got "
                f"{shown(self.pooled)}"
            )

    def _check_chain(self) -> None:
        width = self.stem.channels
        for number, block in enumerate(self.blocks):
            if block.in_channels != width:
                raise SpecError(f"block {number} takes {block.in_channels} channels but receives {width}")
            width = block.out_channels

    @property
    def name(self) -> str:
        """The exact name, as exported files hold it."""
        return self.lineage.name

    @property
    def title(self) -> str:
        """The short name that people read, with the resolution."""
        return self.lineage.title(self.resolution)

    @property
    def input_size(self) -> tuple[int, int]:
        """The height and the width of the input, in pixels."""
        return self.height or self.resolution, self.resolution

    def size_at(self, resolution: int | None) -> tuple[int, int]:
        """Return the height and the width of an input of this width, in the proportions of the network's own.

        Raises SpecError if the resolution is not a positive integer.
        """
        if resolution is None:
            return self.input_size
        if type(resolution) is not int or resolution < 1:
            raise SpecError(f"resolution must be a positive integer, in pixels; got {resolution!r}")
        return max(1, round(self.height * resolution / self.resolution)) if self.height else resolution, resolution

    @property
    def blocks(self) -> tuple[BlockSpec, ...]:
        """All blocks of all stages, in order."""
        return tuple(block for blocks in self.stages for block in blocks)

    @property
    def feature_channels(self) -> int:
        """The width of the pooled features that the classifier reads."""
        last = self.head_channels or self.stages[-1][-1].out_channels
        return last + sum(self.stages[stage][-1].out_channels for stage in self.pooled)

    @property
    def total_stride(self) -> int:
        """The number of input pixels per side that one pixel of the last feature map covers."""
        stride = self.stem.stride * (2 if self.stem.max_pool else 1)
        for block in self.blocks:
            stride *= block.stride
        return stride


def eca_kernel_size(channels: int) -> int:
    """Return the kernel of efficient channel attention over this number of channels: odd, and at least 3.

    Source: Wang et al. 2020, ECA-Net, arXiv 1910.03151, eq. 12: |log2(C) / gamma + b / gamma| with gamma 2 and b 1, to
    the odd number above as in the authors' code; the least of 3 is timm's, since 1 would mix no channels.

    >>> [eca_kernel_size(channels) for channels in (16, 96, 128, 1152)]
    [3, 3, 5, 5]
    """
    nearest_below = int((math.log2(channels) + 1) / 2)
    return max(3, nearest_below + 1 - nearest_below % 2)


def stage(
    kind: str,
    *,
    repeats: int,
    kernel_size: int = 3,
    stride: int = 1,
    expand_ratio: int | float = 1,
    in_channels: int,
    out_channels: int,
    se_ratio: float = 0.0,
    eca: bool = False,
    skip: bool = True,
    expands_from: int = 0,
) -> tuple[BlockSpec, ...]:
    """Return the explicit blocks of one row of the paper's Table 1.

    Only the first block has the stride and the change of width. With `expand_ratio` 1, mbconv becomes
    depthwise_separable and fused_mbconv becomes conv, which have no expansion at all. Squeezed widths are
    taken from the block's input: max(1, int(in_channels * se_ratio)). `eca` gives blocks efficient channel attention
    instead, with the kernel of `eca_kernel_size`.
    Source: tensorflow/tpu efficientnet_model.py, MBConvBlock.

    >>> blocks = stage("mbconv", repeats=2, stride=2, expand_ratio=6, in_channels=16, out_channels=24)
    >>> blocks[0].stride, blocks[1].stride
    (2, 1)
    """
    _must_be_count("repeats", repeats, most=MAX_BLOCKS)
    rules = find_kind(kind)
    if expand_ratio == 1 and rules.unexpanded:
        rules = find_kind(rules.unexpanded)
    # Without a middle there is nothing to squeeze, though TensorFlow's block strings name a ratio.
    squeezes, attends = (bool(wanted) and rules.middle != "output" for wanted in (se_ratio, eca))
    blocks = []
    for index in range(repeats):
        width_in = in_channels if index == 0 else out_channels
        step = stride if index == 0 else 1
        base = expands_from if index == 0 and expands_from else width_in
        tied = rules.tied_channels(width_in, out_channels)
        mid = int(base * expand_ratio) if tied is None else tied
        blocks.append(
            BlockSpec(
                kind=rules.name,
                kernel_size=kernel_size,
                stride=step,
                in_channels=width_in,
                mid_channels=mid,
                out_channels=out_channels,
                se_channels=max(1, int(width_in * se_ratio)) if squeezes else 0,
                eca_kernel=eca_kernel_size(mid) if attends and mid > 0 else 0,
                residual="identity" if skip and step == 1 and width_in == out_channels else "none",
            )
        )
    return tuple(blocks)


def repeat_block(block: BlockSpec, *, expands_from: int = 0, skip: bool = True) -> BlockSpec:
    """Return the block that can follow `block` in its stage: stride 1, equal numbers of input and output channels.

    The ratios of the expansion (relative to `expands_from` if that is not the input width) and of the squeeze are
    kept; the kernel of ECA follows the width. The shortcut becomes an identity, unless `skip` is off or the block lacks
    one that it could have.
    """
    width, base = block.out_channels, expands_from or block.in_channels
    no_skip = not skip or (block.residual == "none" and block.stride == 1 and block.in_channels == width)
    mid = block.rules.tied_channels(width, width)
    if mid is None:
        own = block.rules.middle == "own"
        mid = block.mid_channels if own else max(1, block.mid_channels * width // base)
    squeezed = max(1, block.se_channels * width // block.in_channels) if block.se_channels else 0
    return dataclasses.replace(
        block,
        stride=1,
        in_channels=width,
        mid_channels=mid,
        se_channels=squeezed,
        eca_kernel=eca_kernel_size(mid) if block.eca_kernel else 0,
        residual="none" if no_skip else "identity",
    )


def as_spec(network: ArchSpec | str) -> ArchSpec:
    """Return the spec itself, or that of the network of this name; raise SpecError for anything else."""
    if isinstance(network, ArchSpec):
        return network
    if not isinstance(network, str):
        raise SpecError(
            f"a network must be an ArchSpec or a name of `effnet models list`; got {type(network).__name__}"
        )
    # The catalog derives its families with `scale` and `cost`, which take names themselves.
    from effnet.arch.catalog import get_spec

    return get_spec(network)
