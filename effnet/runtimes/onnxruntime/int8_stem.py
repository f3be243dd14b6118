"""The first convolution of an int8 graph, rearranged to use ONNX Runtime's integer kernels fully.

The kernels are made for many channels, and an image has three. The same sums are faster if four adjacent pixels are
read as the channels of one position, and two output pixels are written as the channels of one: the stem of Lite0 at 176
pixels took 335 of 2,826 microseconds, and takes 131 this way (a Xeon with VNNI and AMX, one thread). There are more
than twice as many products, many of them by zero: other processors may be slower.
"""

from collections.abc import Sequence

import numpy as np

from effnet.arch.layers import Layer, Size
from effnet.runtimes.onnxruntime.builder import Graph
from effnet.runtimes.onnxruntime.session import IMAGE

# Output pixels that are written together, and image pixels that are read together.
_PAIR, _BLOCK = 2, 4


def can_pair(layer: Layer, size: Size, pads: Sequence[int]) -> bool:
    """Return whether a first convolution can be written in pairs for images of this size."""
    top, left, *_ = pads
    return (layer.kernel_size, layer.stride, layer.groups) == (3, 2, 1) and size[1] % _BLOCK == 0 and top == left <= 1


def add_blocks(graph: Graph, size: Size, channels: int) -> str:
    """Add the image with every four pixels as one position, uint8 [batch, 4 C, height, width / 4]; no data move."""
    shape = graph.constant("blocks.shape", np.array([0, size[0], size[1] // _BLOCK, _BLOCK * channels], np.int64))
    blocks = graph.node("Reshape", [IMAGE, shape], "blocks")
    return graph.node("Transpose", [blocks], "normalise.nchw", perm=[0, 3, 1, 2])


def paired_kernel(kernel: np.ndarray, *, left: int) -> np.ndarray:
    """Return a kernel [out, C, 3, 3] of stride 2 as the one [2 out, 4 C, 3, 2] that reads blocks and writes pairs.

    `left` is the padding on the left of the image, 0 or 1. Weights are only rearranged, whatever their type.
    """
    out, channels = kernel.shape[:2]
    wide = np.zeros((_PAIR, out, channels, 3, 2 * _BLOCK), kernel.dtype)  # two adjacent blocks
    for pixel in range(_PAIR):
        start = 2 * pixel + (_BLOCK - 1 if left else 0)  # padded, the first of the two is the block before
        wide[pixel, ..., start : start + 3] = kernel
    split = wide.reshape(_PAIR, out, channels, 3, 2, _BLOCK)
    return split.transpose(0, 1, 5, 2, 3, 4).reshape(_PAIR * out, _BLOCK * channels, 3, 2)


def add_paired_conv(graph: Graph, inputs: Sequence[str], pads: Sequence[int], output: str) -> str:
    """Add the convolution of blocks, [batch, 2 out, side / 2, side / 4]; `inputs` are blocks, kernel and bias."""
    top, left, bottom, _ = pads
    around = [top, left, bottom, 1 - left]
    return graph.node("Conv", list(inputs), output, kernel_shape=[3, 2], strides=[2, 1], pads=around, group=1)


def add_apart(graph: Graph, quantized: str, name: str, *, size: Size, channels: int) -> str:
    """Add the split of pairs into pixels, uint8 [batch, channels, height, width]; `size` is that of the output."""
    shape = graph.constant(f"{name}.shape", np.array([0, *size, channels], np.int64))
    x = graph.node("Transpose", [quantized], f"{name}.nhwc", perm=[0, 2, 3, 1])
    x = graph.node("Reshape", [x, shape], f"{name}.apart")
    return graph.node("Transpose", [x], f"{name}.nchw", perm=[0, 3, 1, 2])
