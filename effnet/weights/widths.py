"""The widths of a network read off the shapes of its weights, as pruning left them."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from effnet.arch.layers import layer_widths
from effnet.arch.spec import ArchSpec, BlockSpec
from effnet.errors import WeightsError
from effnet.weights.schemes import Scheme, foreign_names, foreign_shapes
from effnet.weights.schemes.shared import from_tensorflow, is_depthwise, parametrised

Shape = tuple[int, ...]


def read_widths(base: ArchSpec, shapes: Mapping[str, Shape], scheme: Scheme) -> ArchSpec:
    """Return `base` with the widths that these foreign shapes have.

    All foreign names of `base` must be present. An identity shortcut stays if the widths still allow it. Raises
    WeightsError if no widths give these shapes, SpecError if they form no valid network.
    """
    channels = _channels(base, shapes, scheme)
    width, stages = channels["stem"], []
    for i, blocks in enumerate(base.stages):
        row = []
        for j, block in enumerate(blocks):
            row.append(_read_block(block, width, channels, f"stages.{i}.{j}"))
            width = row[-1].out_channels
        stages.append(tuple(row))
    spec = dataclasses.replace(
        base,
        stem=dataclasses.replace(base.stem, channels=channels["stem"]),
        stages=tuple(stages),
        head_channels=channels.get("head", 0),
    )
    for key, shape in foreign_shapes(spec, scheme).items():
        if shapes[key] != shape:
            raise WeightsError(f"{key} must have shape {shape} to fit the layers around it; got {shapes[key]}")
    return spec


def _channels(base: ArchSpec, shapes: Mapping[str, Shape], scheme: Scheme) -> dict[str, int]:
    """Return the channels of every width, those of the first convolution that writes it."""
    found: dict[str, int] = {}
    names, widths = foreign_names(base, scheme), layer_widths(base)
    for name, layer in parametrised(base):
        if layer.op != "conv":
            continue
        shape = shapes[names[f"{name}.weight"]]
        if len(shape) != 4:
            raise WeightsError(f"{names[f'{name}.weight']} must have four axes; got {shape}")
        if scheme in ("keras", "tensorflow"):
            shape = from_tensorflow(np.broadcast_to(np.float32(0), shape), depthwise=is_depthwise(name)).shape
        found.setdefault(widths[name][1], shape[0])
    return found


def _read_block(block: BlockSpec, width: int, channels: Mapping[str, int], prefix: str) -> BlockSpec:
    out = channels[f"{prefix}.out"]
    tied = block.rules.tied_channels(width, out)
    lost = block.residual == "identity" and width != out
    return dataclasses.replace(
        block,
        in_channels=width,
        mid_channels=channels[f"{prefix}.mid"] if tied is None else tied,
        out_channels=out,
        se_channels=channels.get(f"{prefix}.se", 0),
        residual="none" if lost else block.residual,
    )
