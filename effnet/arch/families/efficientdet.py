"""EfficientDet of 2020: D0-D7x, and Lite0-4 without squeeze-and-excitation, for devices.

Source: google/automl @6a54c8741e7c, efficientdet/hparams_config.py; arXiv 1911.09070, Table 1. Its anchors are √2 and
1/√2 times as wide as a square; effdet 0.4.1, model_config.py, has the rounded pairs of its first release, which are
those of `AnchorHead`.
"""

import dataclasses
from typing import NamedTuple

from effnet.arch.decoders.record import AnchorHead, Detector, Fusion, Pyramid
from effnet.arch.families.v1 import v1_spec
from effnet.arch.lineage import Lineage
from effnet.arch.spec import ArchSpec

COCO_CLASSES = 90
"""The outputs of the published networks: COCO's ids 1 to 90, ten of which it does not use."""


class Coefficients(NamedTuple):
    """The integers of one network; `scale` is that of its anchors, `max_level` the last level of its pyramid."""

    backbone: str
    resolution: int
    channels: int
    cells: int
    repeats: int
    scale: float = 4.0
    fusion: Fusion = "fast"
    max_level: int = 7


# The sum of D6 and of those above it is for "training stability", that of Lite for quantization.
EFFICIENTDET_COEFFICIENTS = {
    "efficientdet_d0": Coefficients("b0", 512, 64, 3, 3),
    "efficientdet_d1": Coefficients("b1", 640, 88, 4, 3),
    "efficientdet_d2": Coefficients("b2", 768, 112, 5, 3),
    "efficientdet_d3": Coefficients("b3", 896, 160, 6, 4),
    "efficientdet_d4": Coefficients("b4", 1024, 224, 7, 4),
    "efficientdet_d5": Coefficients("b5", 1280, 288, 7, 4),
    "efficientdet_d6": Coefficients("b6", 1280, 384, 8, 5, fusion="sum"),
    "efficientdet_d7": Coefficients("b6", 1536, 384, 8, 5, scale=5.0, fusion="sum"),
    "efficientdet_d7x": Coefficients("b7", 1536, 384, 8, 5, fusion="sum", max_level=8),
}
EFFICIENTDET_LITE_COEFFICIENTS = {
    "efficientdet_lite0": Coefficients("lite0", 320, 64, 3, 3, scale=3.0, fusion="sum"),
    "efficientdet_lite1": Coefficients("lite1", 384, 88, 4, 3, scale=3.0, fusion="sum"),
    "efficientdet_lite2": Coefficients("lite2", 448, 112, 5, 3, scale=3.0, fusion="sum"),
    "efficientdet_lite3": Coefficients("lite3", 512, 160, 6, 4, fusion="sum"),
    "efficientdet_lite3x": Coefficients("lite3", 640, 200, 6, 4, scale=3.0, fusion="sum"),
    "efficientdet_lite4": Coefficients("lite4", 640, 224, 7, 4, fusion="sum"),
}


def efficientdet_spec(name: str) -> ArchSpec:
    """Return the released network of this short name; raise KeyError if there is none."""
    found = (EFFICIENTDET_COEFFICIENTS | EFFICIENTDET_LITE_COEFFICIENTS)[name]
    neck = Pyramid(
        channels=found.channels,
        cells=found.cells,
        max_level=found.max_level,
        fusion=found.fusion,
        redundant_bias=True,
    )
    return dataclasses.replace(
        v1_spec(found.backbone),
        lineage=Lineage(base=name, network=name),
        resolution=found.resolution,
        num_classes=COCO_CLASSES,
        head_channels=0,
        decoder=Detector(neck=neck, head=AnchorHead(repeats=found.repeats, scale=found.scale)),
    )
