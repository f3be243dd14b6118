"""Transfer weights to another network: to a pruned one, or to a wider, narrower, deeper or shallower one."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from effnet.arch.channels import Keep, kept_blocks, kept_spec, kept_widths, last_norms, weighted
from effnet.arch.layers import Layer, layer_widths, named_layers
from effnet.arch.spec import ArchSpec, BlockSpec
from effnet.errors import WeightsError
from effnet.weights.adapt import Arrays, has_folded_norms

_NORM = ("weight", "bias", "running_mean", "running_var")


class Origin(NamedTuple):
    """The origin of a layer of the target: its name in the source, and the source's channel of each of its own.

    Inputs that are `fresh` have no channel in the source, and their weights are zero. The output of a `silent`
    BatchNorm is zero as well.
    """

    name: str
    outputs: np.ndarray
    inputs: np.ndarray
    fresh: np.ndarray
    silent: bool = False


def transfer(
    state: Mapping[str, np.ndarray], *, source: ArchSpec, target: ArchSpec, keep: Keep | None = None
) -> Arrays:
    """Return weights for `target` made from `state`, those of `source`; both as arrays under effnet's names.

    With a `keep`, `target` is the part of `source` that it keeps: kept channels and blocks have their weights and
    BatchNorm statistics unchanged, so that the network computes the source with its other channels set to zero; only
    the gates of ECA, whose kernel is shared by all channels, are computed from the channels that are left.

    Without, `target` is a scaled `source`, and every block has the weights of the source's block in the same place:

    - Of a narrower width the first channels are taken.
    - Additional channels of a wider one are copies of the first ones, and the layers that read them do so with weights
      of zero: the wider network starts as the same function as the source, and can learn from there. Source: Chen et
      al. 2016, "Net2Net", section 2.2, with zeros instead of shares, so that the copies learn different things.
      With ECA it is nearly the same function: the gates of the last channels read the first copies.
    - The kernel of ECA is cropped, or padded with zeros, about its centre.
    - A block that the source's stage does not have is a copy of the stage's last one whose last BatchNorm is silent, so
      that only its shortcut passes (Net2Net, section 2.3). One without an identity shortcut is a plain copy.
    - Blocks that the target's stage lacks are left out.

    Raises WeightsError if `target` does not match `keep`, if the two are not the same kind of network (kinds,
    kernels, squeezes and shortcuts of their blocks, classes, input), or if `state` does not fit `source`.
    """
    _check_state(state, source)
    origin = _scaled(source, target) if keep is None else _kept(source, target, keep)
    folded = keep is None and has_folded_norms(state, source)
    sources = dict(named_layers(source))
    moved: Arrays = {}
    for name, layer in named_layers(target):
        if layer.op == "fuse":  # one weight for each map that it joins, whatever their channels
            moved[f"{name}.weight"] = state[f"{name}.weight"].copy()
        if weighted(layer):
            found = origin(name, layer)
            theirs = sources[found.name]
            # A depthwise convolution of one channel has one group.
            depthwise = max(layer.groups, theirs.groups) > 1
            stored = found._replace(name=theirs.weights or found.name)
            moved |= _move(state, layer.weights or name, layer, stored, folded=folded, depthwise=depthwise)
    return moved


def _move(
    state: Mapping[str, np.ndarray], name: str, layer: Layer, origin: Origin, *, folded: bool, depthwise: bool
) -> Arrays:
    if layer.op == "norm":
        parts = {part: state[f"{origin.name}.{part}"][origin.outputs] for part in _NORM}
        if origin.silent:
            # Folded BatchNorms have a gain of one; there the convolution before them is set to zero.
            silent = ("bias",) if folded else ("weight", "bias")
            parts |= {part: np.zeros_like(parts[part]) for part in silent}
        return {f"{name}.{part}": array for part, array in parts.items()}
    if layer.op == "channel_conv":
        return {f"{name}.weight": _resized(state[f"{origin.name}.weight"], layer.kernel_size)}
    weight = state[f"{origin.name}.weight"][origin.outputs]
    if not depthwise:
        weight = weight[:, origin.inputs]
        weight[:, origin.fresh] = 0
    if origin.silent and folded:
        weight = np.zeros_like(weight)
    moved = {f"{name}.weight": np.ascontiguousarray(weight)}
    if layer.bias:
        moved[f"{name}.bias"] = state[f"{origin.name}.bias"][origin.outputs]
    return moved


def _resized(kernel: np.ndarray, size: int) -> np.ndarray:
    """Return the centre of a kernel [1, 1, k], or the kernel with zeros around it; `size` and k are odd."""
    change = (size - kernel.shape[-1]) // 2
    if change >= 0:
        return np.pad(kernel, ((0, 0), (0, 0), (change, change)))
    return np.ascontiguousarray(kernel[..., -change:change])


def kept_origins(source: ArchSpec, target: ArchSpec, *, keep: Keep) -> dict[str, Origin]:
    """Return the origin of every layer with parameters of `target`, the part of `source` that `keep` leaves.

    Raises WeightsError if `target` does not match `keep`.
    """
    origin = _kept(source, target, keep)
    return {name: origin(name, layer) for name, layer in named_layers(target) if weighted(layer)}


def _kept(source: ArchSpec, target: ArchSpec, keep: Keep) -> Callable[[str, Layer], Origin]:
    left = kept_spec(source, keep)
    if (left.stem, left.stages, left.head_channels, left.pooled, left.num_classes) != (
        target.stem, target.stages, target.head_channels, target.pooled, target.num_classes,
    ):  # fmt: skip
        raise WeightsError(
            f"the target must be the kept part of {source.name}; {target.name} is not: make it with kept_spec"
        )
    widths = {name: np.array(kept, dtype=np.int64) for name, kept in kept_widths(source, keep).items()}
    blocks = kept_blocks(keep)
    reads_writes = layer_widths(source)
    # A dropped block passes its input on.
    passed = _passed(source, keep)

    def origin(name: str, layer: Layer) -> Origin:
        place = _rename(name, blocks)
        reads, writes = reads_writes[place]
        inputs = widths[passed.get(reads, reads)]
        return Origin(place, widths[passed.get(writes, writes)], inputs, np.zeros(len(inputs), bool))

    return origin


def _passed(source: ArchSpec, keep: Keep) -> dict[str, str]:
    """Return the name of the output that replaces each dropped block's."""
    found, before = {}, "stem"
    for i, row in enumerate(keep.stages):
        for j, kept in enumerate(row):
            width = f"stages.{i}.{j}.out"
            if kept is None:
                found[width] = before
            else:
                before = width
    return found


def _rename(name: str, blocks: Mapping[str, str]) -> str:
    if not name.startswith("stages."):
        return name
    block = ".".join(name.split(".")[:3])
    return blocks[block] + name[len(block) :]


def _scaled(source: ArchSpec, target: ArchSpec) -> Callable[[str, Layer], Origin]:
    _check_alike(source, target)
    blocks, silent = {}, set()
    deeper = any(len(ours) > len(theirs) for theirs, ours in zip(source.stages, target.stages, strict=True))
    norms, added = (last_norms(target), dict(named_layers(target))) if deeper else ({}, {})
    for i, (theirs, ours) in enumerate(zip(source.stages, target.stages, strict=True)):
        for j, block in enumerate(ours):
            like = min(j, len(theirs) - 1)
            name, place = f"stages.{i}.{j}", f"stages.{i}.{like}"
            _check_block(place, theirs[like], block, added=j >= len(theirs))
            blocks[name] = place
            if j >= len(theirs) and block.residual == "identity":
                silent |= {norms[name], added[norms[name]].inputs[0]}
    layers = dict(named_layers(source))

    def origin(name: str, layer: Layer) -> Origin:
        place = _rename(name, blocks)
        outputs, _ = _spread(layers[place].out_channels, layer.out_channels)
        inputs, fresh = _spread(layers[place].in_channels, layer.in_channels)
        return Origin(place, outputs, inputs, fresh, name in silent)

    return origin


def _spread(have: int, want: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the source's channel of each of `want` channels, and which of these are new."""
    places = np.arange(want)
    return places % have, places >= have


def _check_alike(source: ArchSpec, target: ArchSpec) -> None:
    for what in ("in_channels", "num_classes", "activation", "se_gate", "norm_epsilon", "padding", "pooled"):
        got, wanted = getattr(source, what), getattr(target, what)
        if got != wanted:
            raise WeightsError(
                f"weights move between networks that compute alike; {what} of {source.name} is {got!r}, "
                f"of {target.name} {wanted!r}"
            )
    if source.pooled and source.feature_channels != target.feature_channels:
        raise WeightsError(
            f"weights do not move to other widths of a network whose classifier reads several stages; {source.name} "
            f"has {source.feature_channels} features, {target.name} {target.feature_channels}"
        )
    shapes = [
        (len(spec.stages), spec.stem.kernel_size, spec.stem.max_pool, bool(spec.head_channels))
        for spec in (source, target)
    ]
    if shapes[0] != shapes[1]:
        raise WeightsError(
            f"weights move between networks of as many stages, with the same stem and with or without a head alike; "
            f"stages, kernel, pooling and head of {source.name} are {shapes[0]}, of {target.name} {shapes[1]}"
        )


def _check_block(name: str, theirs: BlockSpec, ours: BlockSpec, *, added: bool) -> None:
    """Raise WeightsError if the blocks are of different kinds; a copy that was `added` may have its own shortcut."""
    for what in ("kind", "kernel_size", "residual", "activation"):
        if what == "residual" and added and ours.residual != "projection":
            continue
        if getattr(theirs, what) != getattr(ours, what):
            raise WeightsError(
                f"{name} must be the same kind of block on both sides; its {what} is {getattr(theirs, what)!r} in the "
                f"source and {getattr(ours, what)!r} in the target"
            )
    if bool(theirs.se_channels) != bool(ours.se_channels):
        raise WeightsError(
            f"{name} must squeeze on both sides or on none; it has {theirs.se_channels} squeezed channels in the "
            f"source and {ours.se_channels} in the target"
        )
    if bool(theirs.eca_kernel) != bool(ours.eca_kernel):
        raise WeightsError(
            f"{name} must have ECA on both sides or on none; its eca_kernel is {theirs.eca_kernel} in the source and "
            f"{ours.eca_kernel} in the target"
        )


def _check_state(state: Mapping[str, np.ndarray], source: ArchSpec) -> None:
    for name, layer in named_layers(source):
        if not weighted(layer) and layer.op != "fuse":
            continue
        parts = _NORM if layer.op == "norm" else ("weight", "bias") if layer.bias else ("weight",)
        for part in parts:
            key = f"{layer.weights or name}.{part}"
            if key not in state:
                raise WeightsError(f"the weights of {source.name} must have {key}; they lack it")
            shape = _shape(layer, part)
            if state[key].shape != shape:
                raise WeightsError(f"{key} of {source.name} must have shape {shape}; got {state[key].shape}")


def _shape(layer: Layer, part: str) -> tuple[int, ...]:
    if layer.op == "norm" or part == "bias":
        return (layer.out_channels,)
    if layer.op == "channel_conv":
        return (1, 1, layer.kernel_size)
    if layer.op == "fuse":
        return (len(layer.inputs),)
    shape = (layer.out_channels, layer.in_channels // layer.groups)
    return shape + (layer.kernel_size,) * 2 if layer.op == "conv" else shape
