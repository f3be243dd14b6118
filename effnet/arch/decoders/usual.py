"""Networks for detection and segmentation on any backbone, with the decoders that effnet chooses by default."""

import dataclasses
from typing import Literal

from effnet.arch.decoders.record import Detector, PointHead, Pyramid, PyramidDecoder, Segmenter, UNet
from effnet.arch.spec import ArchSpec

SegmenterKind = Literal["pyramid", "unet"]

# The widths of the U-Net's blocks, at strides 16, 8, 4 and 2: a third of the backbone's cost on Lite0.
_UNET_CHANNELS = (128, 64, 48, 32)


def with_detector(
    backbone: ArchSpec,
    num_classes: int,
    *,
    channels: int = 64,
    cells: int = 2,
    repeats: int = 2,
    max_level: int = 6,
) -> ArchSpec:
    """Return a detector of objects of `num_classes` classes: the backbone, a feature pyramid and one point a cell."""
    neck = Pyramid(channels=channels, cells=cells, max_level=max_level)
    return _with(backbone, num_classes, Detector(neck=neck, head=PointHead(repeats=repeats)))


def with_segmenter(backbone: ArchSpec, num_classes: int, *, kind: SegmenterKind = "pyramid") -> ArchSpec:
    """Return a segmenter into `num_classes` classes: a pyramid at stride 4, or a separable U-Net at stride 2."""
    decoder: PyramidDecoder | UNet = UNet(channels=_UNET_CHANNELS)
    if kind == "pyramid":
        decoder = PyramidDecoder(neck=Pyramid(channels=64, cells=3, max_level=7), channels=64)
    return _with(backbone, num_classes, Segmenter(decoder=decoder))


def _with(backbone: ArchSpec, num_classes: int, decoder: Detector | Segmenter) -> ArchSpec:
    return dataclasses.replace(backbone, head_channels=0, num_classes=num_classes, decoder=decoder)
