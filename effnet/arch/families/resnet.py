"""ResNet-18 to -152, the baseline family for EfficientNets.

Source: arXiv 1512.03385, Table 1, with the stride of a bottleneck in its 3 x 3 convolution, as in torchvision.
"""

from effnet.arch.lineage import Lineage
from effnet.arch.spec import ArchSpec, BlockSpec, StemSpec

RESNET_REPEATS = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}


def resnet_spec(name: str) -> ArchSpec:
    """Return the network of this short name; raise KeyError if there is none."""
    kind, repeats = RESNET_REPEATS[name]
    width, stages = 64, []
    for index, count in enumerate(repeats):
        mid = 64 * 2**index
        out = mid if kind == "basic" else 4 * mid
        blocks = []
        for position in range(count):
            stride = 2 if position == 0 and index > 0 else 1
            blocks.append(
                BlockSpec(
                    kind=kind,
                    stride=stride,
                    in_channels=width,
                    mid_channels=mid,
                    out_channels=out,
                    residual="identity" if stride == 1 and width == out else "projection",
                )
            )
            width = out
        stages.append(tuple(blocks))
    return ArchSpec(
        lineage=Lineage(base=name, network=name),
        resolution=224,
        stem=StemSpec(channels=64, kernel_size=7, max_pool=True),
        stages=tuple(stages),
        head_channels=0,
        activation="relu",
        norm_epsilon=1e-5,
        padding="symmetric",
    )
