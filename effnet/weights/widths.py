"""The widths of a network read off the shapes of its weights, as pruning left them."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from effnet.arch.spec import ArchSpec, BlockSpec
from effnet.errors import WeightsError
from effnet.weights.schemes import Scheme, foreign_names, foreign_shapes
from effnet.weights.schemes.shared import from_tensorflow, is_depthwise, parametrised

Shape = tuple[int, ...]

# The layers that give a block's middle width and its output width.
_MIDDLE = {
    "mbconv": "depthwise.conv", "depthwise_separable": "depthwise.conv", "fused_mbconv": "expand.conv",
    "conv": "conv", "basic": "conv1.conv", "bottleneck": "conv1.conv",
}  # fmt: skip
_LAST = {
    "mbconv": "project.conv", "depthwise_separable": "project.conv", "fused_mbconv": "project.conv",
    "conv": "conv", "basic": "conv2.conv", "bottleneck": "conv3.conv",
}  # fmt: skip


def read_widths(base: ArchSpec, shapes: Mapping[str, Shape], scheme: Scheme) -> ArchSpec:
    """Return `base` with the widths that these foreign shapes have.

    All foreign names of `base` must be present. An identity shortcut stays if the widths still allow it. Raises
    WeightsError if no widths give these shapes, SpecError if they form no valid network.
    """
    outputs = _outputs(base, shapes, scheme)
    width, stages = outputs["stem.conv"], []
    for i, blocks in enumerate(base.stages):
        row = []
        for j, block in enumerate(blocks):
            row.append(_read_block(block, width, outputs, f"stages.{i}.{j}"))
            width = row[-1].out_channels
        stages.append(tuple(row))
    spec = dataclasses.replace(
        base,
        stem=dataclasses.replace(base.stem, channels=outputs["stem.conv"]),
        stages=tuple(stages),
        head_channels=outputs["head.conv"] if base.head_channels else 0,
    )
    for key, shape in foreign_shapes(spec, scheme).items():
        if shapes[key] != shape:
            raise WeightsError(f"{key} must have shape {shape} to fit the layers around it; got {shapes[key]}")
    return spec


def _outputs(base: ArchSpec, shapes: Mapping[str, Shape], scheme: Scheme) -> dict[str, int]:
    """Return the output channels of every convolution."""
    outputs, names = {}, foreign_names(base, scheme)
    for name, layer in parametrised(base):
        if layer.op != "conv":
            continue
        shape = shapes[names[f"{name}.weight"]]
        if len(shape) != 4:
            raise WeightsError(f"{names[f'{name}.weight']} must have four axes; got {shape}")
        if scheme in ("keras", "tensorflow"):
            shape = from_tensorflow(np.broadcast_to(np.float32(0), shape), depthwise=is_depthwise(name)).shape
        outputs[name] = shape[0]
    return outputs


def _read_block(block: BlockSpec, width: int, outputs: Mapping[str, int], prefix: str) -> BlockSpec:
    middle, out = outputs[f"{prefix}.{_MIDDLE[block.kind]}"], outputs[f"{prefix}.{_LAST[block.kind]}"]
    lost = block.residual == "identity" and width != out
    return dataclasses.replace(
        block,
        in_channels=width,
        mid_channels=middle,
        out_channels=out,
        se_channels=outputs[f"{prefix}.se.reduce"] if block.se_channels else 0,
        residual="none" if lost else block.residual,
    )
