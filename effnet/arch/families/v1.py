"""EfficientNet of 2019: B0-B8 and L2, Lite0-4, EdgeTPU S, M, L.

Source: arXiv 1905.11946v5, Table 1, and tensorflow/tpu @7dc921f846c9, models/official/efficientnet
(efficientnet_builder.py, lite/efficientnet_lite_builder.py, edgetpu/efficientnet_edgetpu_builder.py).
"""

import dataclasses

from effnet.arch.lineage import Lineage
from effnet.arch.scale import scale
from effnet.arch.spec import ArchSpec, Scaling, StemSpec, stage

# Table 1: repeats, kernel size, stride, expand ratio, channels in and out; squeeze-and-excitation 0.25 throughout.
_B0_ROWS = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)

B0 = ArchSpec(
    lineage=Lineage(base="b0", network="b0"),
    resolution=224,
    stem=StemSpec(channels=32),
    stages=tuple(
        stage(
            "mbconv",
            repeats=repeats,
            kernel_size=kernel_size,
            stride=stride,
            expand_ratio=expand_ratio,
            in_channels=in_channels,
            out_channels=out_channels,
            se_ratio=0.25,
        )
        for repeats, kernel_size, stride, expand_ratio, in_channels, out_channels in _B0_ROWS
    ),
    head_channels=1280,
)

# name: width, depth, resolution, dropout. Source: efficientnet_params in efficientnet_builder.py.
V1_COEFFICIENTS = {
    "b0": (1.0, 1.0, 224, 0.2),
    "b1": (1.0, 1.1, 240, 0.2),
    "b2": (1.1, 1.2, 260, 0.3),
    "b3": (1.2, 1.4, 300, 0.3),
    "b4": (1.4, 1.8, 380, 0.4),
    "b5": (1.6, 2.2, 456, 0.4),
    "b6": (1.8, 2.6, 528, 0.5),
    "b7": (2.0, 3.1, 600, 0.5),
    "b8": (2.2, 3.6, 672, 0.5),
    "l2": (4.3, 5.3, 800, 0.5),
}

# Source: efficientnet_lite_params in lite/efficientnet_lite_builder.py. timm ships lite3 and lite4 at 300 and 380.
LITE_COEFFICIENTS = {
    "lite0": (1.0, 1.0, 224, 0.2),
    "lite1": (1.0, 1.1, 240, 0.2),
    "lite2": (1.1, 1.2, 260, 0.3),
    "lite3": (1.2, 1.4, 280, 0.3),
    "lite4": (1.4, 1.8, 300, 0.3),
}

# Source: efficientnet_edgetpu_params in edgetpu/efficientnet_edgetpu_builder.py.
EDGETPU_COEFFICIENTS = {
    "edgetpu_s": (1.0, 1.0, 224, 0.2),
    "edgetpu_m": (1.0, 1.1, 240, 0.2),
    "edgetpu_l": (1.2, 1.4, 300, 0.3),
}


def _without_se(spec: ArchSpec) -> ArchSpec:
    stages = tuple(tuple(dataclasses.replace(b, se_channels=0) for b in blocks) for blocks in spec.stages)
    return dataclasses.replace(spec, stages=stages)


# B0 without squeeze-and-excitation, with ReLU6, and with ends that do not scale.
LITE0 = dataclasses.replace(
    _without_se(B0),
    lineage=Lineage(base="lite0", network="lite0"),
    activation="relu6",
    scaling=Scaling(fixed_ends=True),
)

# The first block expands from 24 channels although the stem gives 32, and its stage has no shortcut.
EDGETPU_S = ArchSpec(
    lineage=Lineage(base="edgetpu_s", network="edgetpu_s"),
    resolution=224,
    stem=StemSpec(channels=32),
    stages=(
        stage("fused_mbconv", repeats=1, expand_ratio=4, in_channels=32, out_channels=24, skip=False, expands_from=24),
        stage("fused_mbconv", repeats=2, stride=2, expand_ratio=8, in_channels=24, out_channels=32),
        stage("fused_mbconv", repeats=4, stride=2, expand_ratio=8, in_channels=32, out_channels=48),
        stage("mbconv", repeats=5, kernel_size=5, stride=2, expand_ratio=8, in_channels=48, out_channels=96),
        stage("mbconv", repeats=4, kernel_size=5, expand_ratio=8, in_channels=96, out_channels=144),
        stage("mbconv", repeats=2, kernel_size=5, stride=2, expand_ratio=8, in_channels=144, out_channels=192),
    ),
    head_channels=1280,
    activation="relu",
    scaling=Scaling(first_expands_from=24),
)  # fmt: skip


def v1_spec(name: str) -> ArchSpec:
    """Return the released network of this short name; raise KeyError if there is none."""
    for base, table in ((B0, V1_COEFFICIENTS), (LITE0, LITE_COEFFICIENTS), (EDGETPU_S, EDGETPU_COEFFICIENTS)):
        if name in table:
            width, depth, resolution, _ = table[name]
            return scale(base, width=width, depth=depth, resolution=resolution, name=name)
    raise KeyError(name)
