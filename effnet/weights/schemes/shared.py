"""Functions common to the schemes: the arrays of a layer, and TensorFlow's layout of them."""

from collections.abc import Callable, Collection, Iterator

import numpy as np

from effnet.arch.layers import Layer, named_layers
from effnet.arch.spec import ArchSpec, BlockSpec
from effnet.errors import WeightsError

Arrays = dict[str, np.ndarray]
Shape = tuple[int, ...]
# The foreign names of the layers with parameters, by effnet's names.
LayerNames = dict[str, str]
NameBlock = Callable[[int, int, int, BlockSpec, str], str]

# The blocks of the comparison family, which has names of its own.
RESNET_KINDS = ("basic", "bottleneck")

TORCH_PARTS = {
    "conv": ("weight", "bias"),
    "norm": ("weight", "bias", "running_mean", "running_var"),
    "linear": ("weight", "bias"),
    "channel_conv": ("weight",),
    "fuse": ("weight",),
}
TENSORFLOW_PARTS = {
    "conv": ("kernel", "bias"),
    "norm": ("gamma", "beta", "moving_mean", "moving_variance"),
    "linear": ("kernel", "bias"),
}


def parametrised(spec: ArchSpec) -> Iterator[tuple[str, Layer]]:
    """Yield the layers that have parameters, each with the name under which these are stored.

    Of layers that share them the first is yielded. A fusion has parameters, one for each input.
    """
    found: dict[str, Layer] = {}
    for name, layer in named_layers(spec):
        if layer.op in TORCH_PARTS:
            found.setdefault(layer.weights or name, layer)
    return iter(found.items())


def parts(layer: Layer) -> tuple[str, ...]:
    """Return torch's names of this layer's arrays."""
    names = TORCH_PARTS[layer.op]
    return names if layer.bias or layer.op == "norm" else names[:1]


def shape_of(layer: Layer, part: str) -> Shape:
    """Return the shape of one array of this layer, in torch's layout."""
    if part != "weight" or layer.op == "norm":
        return (layer.out_channels,)
    if layer.op == "channel_conv":
        return (1, 1, layer.kernel_size)
    if layer.op == "fuse":
        return (len(layer.inputs),)
    shape = (layer.out_channels, layer.in_channels // layer.groups)
    return (*shape, layer.kernel_size, layer.kernel_size) if layer.op == "conv" else shape


def is_depthwise(name: str) -> bool:
    """Return whether a layer of this name is a depthwise convolution; a width of one would hide it in the shapes."""
    return name.endswith((".depthwise.conv", ".depthwise"))


def tensorflow_shape(shape: Shape, *, depthwise: bool) -> Shape:
    """Return the shape that TensorFlow gives an array of this shape in torch."""
    if len(shape) == 4:
        out, inner, height, width = shape
        return (height, width, out, inner) if depthwise else (height, width, inner, out)
    return shape[::-1]


def to_tensorflow(array: np.ndarray, *, depthwise: bool) -> np.ndarray:
    """Return an array in TensorFlow's layout: convolutions HWIO, depthwise ones HWC1, dense ones transposed."""
    if array.ndim == 4:
        return array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return array.T


def from_tensorflow(array: np.ndarray, *, depthwise: bool) -> np.ndarray:
    """Undo `to_tensorflow`."""
    if array.ndim == 4:
        return array.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
    return array.T


def name_layers(spec: ArchSpec, *, ends: LayerNames, name_block: NameBlock) -> LayerNames:
    """Return the foreign names of all layers with parameters.

    `ends` names stem, head and classifier; the layers of a decoder are left out. `name_block` gets the stage, the place
    in the stage, the place in the network, the block, and the rest of the layer's name (`expand.conv`).
    """
    names: LayerNames = {}
    first = [0]
    for blocks in spec.stages:
        first.append(first[-1] + len(blocks))
    for name, _ in parametrised(spec):
        if name.startswith("stages."):
            _, i, j, rest = name.split(".", 3)
            stage, place = int(i), int(j)
            names[name] = name_block(stage, place, first[stage] + place, spec.stages[stage][place], rest)
        elif name in ends:
            names[name] = ends[name]
    return names


def is_resnet(spec: ArchSpec, *, scheme: str) -> bool:
    """Return whether all blocks are those of a ResNet; raise WeightsError for a mixture, which only effnet has."""
    ours = {block.kind in RESNET_KINDS for block in spec.blocks}
    if len(ours) == 2 or (True in ours and spec.head_channels):
        raise refuse(scheme, "a network that mixes the blocks of ResNets and EfficientNets")
    return True in ours


def check_kinds(spec: ArchSpec, known: Collection[str], *, scheme: str, eca: bool = False) -> None:
    """Raise WeightsError for a kind of block, or efficient channel attention, that a scheme has no names for."""
    for block in spec.blocks:
        if block.kind not in known:
            raise refuse(scheme, f"a {block.kind} block")
        if block.eca_kernel and not eca:
            raise refuse(scheme, "efficient channel attention")


def refuse(scheme: str, what: str) -> WeightsError:
    """Return the error for a network without names in a scheme."""
    return WeightsError(f"the weights' naming scheme {scheme!r} has no names for {what}; save it under effnet's names")
