"""EfficientNetV2 of 2021: B0-B3, S, M, L, XL.

Source: google/automl @6a54c8741e7c, efficientnetv2/effnetv2_configs.py; arXiv 2104.00298, Table 4.
"""

from effnet.arch.lineage import Lineage
from effnet.arch.scale import scale
from effnet.arch.spec import ArchSpec, BlockSpec, Scaling, StemSpec, stage

# expand ratio, channels, repeats, stride; fused stages come first, those with squeeze-and-excitation after.
_FUSED = {
    "v2_b0": ((1, 16, 1, 1), (4, 32, 2, 2), (4, 48, 2, 2)),
    "v2_s": ((1, 24, 2, 1), (4, 48, 4, 2), (4, 64, 4, 2)),
    "v2_m": ((1, 24, 3, 1), (4, 48, 5, 2), (4, 80, 5, 2)),
    "v2_l": ((1, 32, 4, 1), (4, 64, 7, 2), (4, 96, 7, 2)),
    "v2_xl": ((1, 32, 4, 1), (4, 64, 8, 2), (4, 96, 8, 2)),
}
_MBCONV = {
    "v2_b0": ((4, 96, 3, 2), (6, 112, 5, 1), (6, 192, 8, 2)),
    "v2_s": ((4, 128, 6, 2), (6, 160, 9, 1), (6, 256, 15, 2)),
    "v2_m": ((4, 160, 7, 2), (6, 176, 14, 1), (6, 304, 18, 2), (6, 512, 5, 1)),
    "v2_l": ((4, 192, 10, 2), (6, 224, 19, 1), (6, 384, 25, 2), (6, 640, 7, 1)),
    "v2_xl": ((4, 192, 16, 2), (6, 256, 24, 1), (6, 512, 32, 2), (6, 640, 8, 1)),
}

# name: base, width, depth, evaluation resolution, dropout.
V2_COEFFICIENTS = {
    "v2_b0": ("v2_b0", 1.0, 1.0, 224, 0.2),
    "v2_b1": ("v2_b0", 1.0, 1.1, 240, 0.2),
    "v2_b2": ("v2_b0", 1.1, 1.2, 260, 0.3),
    "v2_b3": ("v2_b0", 1.2, 1.4, 300, 0.3),
    "v2_s": ("v2_s", 1.0, 1.0, 384, 0.2),
    "v2_m": ("v2_m", 1.0, 1.0, 480, 0.3),
    "v2_l": ("v2_l", 1.0, 1.0, 480, 0.4),
    "v2_xl": ("v2_xl", 1.0, 1.0, 512, 0.4),
}


def _base(name: str, resolution: int) -> ArchSpec:
    stem = 24 if name in ("v2_s", "v2_m") else 32
    width = stem
    stages: list[tuple[BlockSpec, ...]] = []
    for kind, se_ratio, rows in (("fused_mbconv", 0.0, _FUSED[name]), ("mbconv", 0.25, _MBCONV[name])):
        for expand_ratio, channels, repeats, stride in rows:
            stages.append(
                stage(
                    kind,
                    repeats=repeats,
                    stride=stride,
                    expand_ratio=expand_ratio,
                    in_channels=width,
                    out_channels=channels,
                    se_ratio=se_ratio,
                )
            )
            width = channels
    return ArchSpec(
        lineage=Lineage(base=name, network=name),
        resolution=resolution,
        stem=StemSpec(channels=stem),
        stages=tuple(stages),
        head_channels=1280,
        scaling=Scaling(rounding="v2"),
    )


def v2_spec(name: str) -> ArchSpec:
    """Return the released network of this short name; raise KeyError if there is none."""
    base, width, depth, resolution, _ = V2_COEFFICIENTS[name]
    return scale(_base(base, 224), width=width, depth=depth, resolution=resolution, name=name)
