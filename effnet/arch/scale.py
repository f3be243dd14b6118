"""Derive specs from specs: compound scaling, its inverse, and the changes that small images need."""

import dataclasses
import math
from collections.abc import Callable

from effnet.arch.cost import Cost, cost
from effnet.arch.lineage import Lineage
from effnet.arch.spec import ArchSpec, BlockSpec, Rounding, as_spec, eca_kernel_size, repeat_block
from effnet.errors import SpecError
from effnet.system.bounds import is_number
from effnet.system.text import brief

# The published grid search at phi = 1. Source: arXiv 1905.11946v5, section 4.
ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15

# Larger factors and resolutions are typing errors that would fill the memory with blocks.
_LARGEST = 10_000


def round_channels(channels: float, *, rounding: Rounding = "v1", divisor: int = 8) -> int:
    """Return the multiple of `divisor` nearest to `channels`, at least `divisor`.

    v1 rounds up if rounding down would remove more than 10 %; v2 does not.
    Source: round_filters in tensorflow/tpu efficientnet_model.py and google/automl effnetv2_model.py.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    if rounding == "v1" and rounded < 0.9 * channels:
        rounded += divisor
    return rounded


def scale(
    spec: ArchSpec | str,
    *,
    phi: float | None = None,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    width: float | None = None,
    depth: float | None = None,
    resolution: int | None = None,
    name: str | None = None,
) -> ArchSpec:
    """Return `spec`, or the network of that name, scaled by depth alpha^phi, width beta^phi and resolution gamma^phi.

    `phi` is any real number; negative values give smaller networks. `width` and `depth` (factors) and
    `resolution` (pixels) override phi. Shortcuts are kept as stored: scaling creates none.
    Source: arXiv 1905.11946v5, eq. 3. Raises SpecError for factors that are not positive or absurdly large, and for a
    network with a decoder, which has no such rule.

    >>> from effnet.arch.cost import cost
    >>> larger = scale("b0", phi=1)
    >>> larger.resolution, cost(larger).params
    (258, 9109994)
    """
    spec = as_spec(spec)
    if spec.decoder is not None:
        raise SpecError(
            f"a network to scale must be a classifier; {spec.name} has a decoder: scale its backbone instead"
        )
    for what, value in (("phi", phi), ("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if value is not None and not (is_number(value) and (value > 0 or what == "phi")):
            wanted = "finite" if what == "phi" else "finite and above 0"
            raise SpecError(f"{what} must be {wanted}; got {brief(value)}")
    exponent = 0.0 if phi is None else phi
    try:
        width = beta**exponent if width is None else width
        depth = alpha**exponent if depth is None else depth
        side = spec.resolution * gamma**exponent if resolution is None else resolution
    except (OverflowError, ZeroDivisionError) as error:
        raise SpecError(f"phi {phi} with alpha {alpha}, beta {beta}, gamma {gamma} has no finite power") from error
    for what, value in (("width", width), ("depth", depth), ("resolution", side)):
        if isinstance(value, complex) or not 0 < value <= _LARGEST:
            raise SpecError(f"the {what} of a scaled network must lie above 0 and be at most {_LARGEST}; got {value!r}")
    scaled = _scale_width(_scale_depth(spec, depth), width)
    lineage = Lineage(base=name) if name else _scaled_lineage(spec.lineage, phi, width, depth, resolution)
    return dataclasses.replace(scaled, resolution=max(1, round(side)), lineage=lineage)


def _scaled_lineage(before: Lineage, phi: float | None, width: float, depth: float, resolution: int | None) -> Lineage:
    words = f"phi {phi:g}" if phi is not None else f"width {width:g} depth {depth:g}"
    return dataclasses.replace(
        before,
        scaled=f"{before.scaled} {words}".lstrip(),
        width=before.width * width,
        depth=before.depth * (1.0 if phi is not None else depth),
        resolution=resolution,
    )


def _scale_depth(spec: ArchSpec, depth: float) -> ArchSpec:
    """Scale the repeats to ceil(depth * repeats); a stage grows by copies of its last block."""
    last = len(spec.stages) - 1
    stages = []
    for index, blocks in enumerate(spec.stages):
        fixed = spec.scaling.fixed_ends and index in (0, last)
        repeats = len(blocks) if fixed else math.ceil(depth * len(blocks))
        first = spec.scaling.first_expands_from if index == 0 else 0
        extra = repeat_block(blocks[-1], expands_from=first if len(blocks) == 1 else 0, skip=not first)
        more = (extra,) * (repeats - len(blocks))
        stages.append(_shorten(blocks, repeats) + more)
    return dataclasses.replace(spec, stages=tuple(stages))


def _shorten(blocks: tuple[BlockSpec, ...], repeats: int) -> tuple[BlockSpec, ...]:
    """Drop blocks from the end, but not one that changes width or size, which the next block needs."""
    kept = list(blocks)
    for index in reversed(range(len(blocks))):
        block = blocks[index]
        if len(kept) > repeats and block.stride == 1 and block.in_channels == block.out_channels:
            del kept[index]
    return tuple(kept)


def _scale_width(spec: ArchSpec, width: float) -> ArchSpec:
    if width == 1.0:  # rounding would move the widths of a pruned network
        return spec
    scaling = spec.scaling

    def widen(channels: int) -> int:
        return round_channels(channels * width, rounding=scaling.rounding)

    stem = spec.stem if scaling.fixed_ends else dataclasses.replace(spec.stem, channels=widen(spec.stem.channels))
    fed, stages = stem.channels, []
    expands_from = scaling.first_expands_from
    for blocks in spec.stages:
        row = []
        for block in blocks:
            row.append(_widen_block(block, fed, widen, expands_from))
            fed, expands_from = row[-1].out_channels, 0
        stages.append(tuple(row))
    head = spec.head_channels
    if head and not scaling.fixed_ends:
        head = widen(head)
    first = scaling.first_expands_from
    return dataclasses.replace(
        spec,
        stem=stem,
        stages=tuple(stages),
        head_channels=head,
        scaling=dataclasses.replace(scaling, first_expands_from=widen(first) if first else 0),
    )


def _widen_block(block: BlockSpec, fed: int, widen: Callable[[int], int], expands_from: int) -> BlockSpec:
    """Scale one block that receives `fed` channels; integer expansion ratios are kept, the ECA's kernel follows."""
    out = widen(block.out_channels)
    base = expands_from or block.in_channels
    mid = block.rules.tied_channels(fed, out)
    if mid is None and block.rules.middle == "expansion" and block.mid_channels % base == 0:
        mid = (widen(base) if expands_from else fed) * (block.mid_channels // base)
    elif mid is None:
        mid = widen(block.mid_channels)
    squeezed = max(1, block.se_channels * fed // block.in_channels) if block.se_channels else 0
    residual = block.residual
    if residual == "identity" and fed != out:  # after a stem that does not scale
        residual = "projection" if block.rules.projects else "none"
    kernel = eca_kernel_size(mid) if block.eca_kernel else 0
    return dataclasses.replace(
        block, in_channels=fed, mid_channels=mid, out_channels=out, se_channels=squeezed, eca_kernel=kernel,
        residual=residual,
    )  # fmt: skip


def solve_phi(
    spec: ArchSpec | str,
    *,
    max_macs: int | None = None,
    max_params: int | None = None,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
    resolution: int | None = None,
    tolerance: float = 1e-4,
) -> float:
    """Return the largest phi, to `tolerance`, whose scaling of `spec`, or of a network's name, meets every limit.

    Costs never fall as phi rises if alpha, beta and gamma are at least 1, so bisection is exact. Raises SpecError
    if even the smallest network (phi = -32) exceeds a limit, or if no limit is given.
    """
    spec = as_spec(spec)
    if max_macs is None and max_params is None:
        raise SpecError("solving for phi needs max_macs or max_params")
    if not min(alpha, beta, gamma) >= 1:
        raise SpecError(f"solving for phi needs alpha, beta and gamma of at least 1; got {alpha}, {beta}, {gamma}")

    def measure(phi: float) -> Cost:
        return cost(scale(spec, phi=phi, alpha=alpha, beta=beta, gamma=gamma, resolution=resolution))

    def fits(phi: float) -> bool:
        found = measure(phi)
        return (max_macs is None or found.macs <= max_macs) and (max_params is None or found.params <= max_params)

    low, high = -32.0, 16.0
    if not fits(low):
        least = measure(low)
        raise SpecError(
            f"no scaling of {spec.name} meets these limits: the smallest has {least.macs} MACs and "
            f"{least.params} parameters; requested: at most {'any' if max_macs is None else max_macs} MACs "
            f"and {'any' if max_params is None else max_params} parameters"
        )
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    # The short decimal that a person would type, if it gives the same network.
    short = math.floor(low * 100) / 100
    return short if measure(short) == measure(low) else low


def with_total_stride(spec: ArchSpec, total_stride: int) -> ArchSpec:
    """Return `spec` with strides removed, from the front, until its total stride is at most `total_stride`.

    Small images need it: at 32 pixels a stride of 32 leaves a feature map of one pixel. Raises SpecError for a
    total stride below 1.
    """
    if not total_stride >= 1:
        raise SpecError(f"total_stride must be at least 1; got {total_stride!r}")
    if spec.total_stride <= total_stride:
        return spec
    stem = spec.stem
    if stem.max_pool:
        stem = dataclasses.replace(stem, max_pool=False)
    elif stem.stride > 1:
        stem = dataclasses.replace(stem, stride=1)
    if stem is not spec.stem:
        return with_total_stride(dataclasses.replace(spec, stem=stem), total_stride)
    stages, done = [], False
    for blocks in spec.stages:
        row = []
        for block in blocks:
            if block.stride > 1 and not done:
                block, done = dataclasses.replace(block, stride=1), True
            row.append(block)
        stages.append(tuple(row))
    return with_total_stride(dataclasses.replace(spec, stages=tuple(stages)), total_stride)


def truncate(spec: ArchSpec, num_stages: int) -> ArchSpec:
    """Return `spec` with only its first `num_stages` stages; stem, head and classifier, which reads no others, stay."""
    if type(num_stages) is not int or not 1 <= num_stages <= len(spec.stages):
        raise SpecError(f"{spec.name} has {len(spec.stages)} stages; cannot keep {num_stages}")
    left = num_stages if spec.head_channels else num_stages - 1
    pooled = tuple(stage for stage in spec.pooled if stage < left)
    return dataclasses.replace(spec, stages=spec.stages[:num_stages], pooled=pooled)


def with_expand_ratio(spec: ArchSpec, expand_ratio: int) -> ArchSpec:
    """Return `spec` with every expansion limited to `expand_ratio` times the block's input."""
    if type(expand_ratio) is not int or expand_ratio < 1:
        raise SpecError(f"expand_ratio must be an integer of at least 1; got {expand_ratio!r}")

    def slim(block: BlockSpec) -> BlockSpec:
        if block.rules.middle != "expansion":
            return block
        mid = min(block.mid_channels, expand_ratio * block.in_channels)
        return dataclasses.replace(block, mid_channels=mid, eca_kernel=eca_kernel_size(mid) if block.eca_kernel else 0)

    return dataclasses.replace(spec, stages=tuple(tuple(map(slim, blocks)) for blocks in spec.stages))


def with_eca(spec: ArchSpec | str) -> ArchSpec:
    """Return `spec`, or the network of that name, with ECA in place of every squeeze-and-excitation.

    Its kernel is that of `eca_kernel_size`.

    >>> with_eca("b0").blocks[-1].eca_kernel
    5
    """
    spec = as_spec(spec)

    def replace(block: BlockSpec) -> BlockSpec:
        if not block.se_channels:
            return block
        return dataclasses.replace(block, se_channels=0, eca_kernel=eca_kernel_size(block.mid_channels))

    lineage = dataclasses.replace(spec.lineage, note=f"{spec.lineage.note} ECA".lstrip())
    return dataclasses.replace(spec, stages=tuple(tuple(map(replace, row)) for row in spec.stages), lineage=lineage)
