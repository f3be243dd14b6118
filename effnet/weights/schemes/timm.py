"""The names of timm (pytorch-image-models): EfficientNets with `blocks.STAGE.PLACE`, ResNets with `layerN`."""

from effnet.arch.spec import ArchSpec, BlockSpec
from effnet.weights.schemes.shared import LayerNames, check_kinds, is_resnet, name_layers

_ENDS = {
    "stem.conv": "conv_stem",
    "stem.norm": "bn1",
    "head.conv": "conv_head",
    "head.norm": "bn2",
    "classifier": "classifier",
}
_SQUEEZE = {"se.reduce": "se.conv_reduce", "se.expand": "se.conv_expand", "eca.conv": "se.conv"}
# BatchNorms are numbered within a block, and the projection has three names.
_BLOCKS = {
    "mbconv": {
        "expand.conv": "conv_pw", "expand.norm": "bn1", "depthwise.conv": "conv_dw", "depthwise.norm": "bn2",
        "project.conv": "conv_pwl", "project.norm": "bn3", **_SQUEEZE,
    },
    "depthwise_separable": {
        "depthwise.conv": "conv_dw", "depthwise.norm": "bn1", "project.conv": "conv_pw", "project.norm": "bn2",
        **_SQUEEZE,
    },
    "fused_mbconv": {
        "expand.conv": "conv_exp", "expand.norm": "bn1", "project.conv": "conv_pwl", "project.norm": "bn2", **_SQUEEZE,
    },
    "conv": {"conv": "conv", "norm": "bn1"},
}  # fmt: skip

_RESNET_ENDS = {"stem.conv": "conv1", "stem.norm": "bn1", "classifier": "fc"}
_RESNET_BLOCK = {
    "conv1.conv": "conv1", "conv1.norm": "bn1", "conv2.conv": "conv2", "conv2.norm": "bn2",
    "conv3.conv": "conv3", "conv3.norm": "bn3", "shortcut.conv": "downsample.0", "shortcut.norm": "downsample.1",
}  # fmt: skip


def layer_names(spec: ArchSpec) -> LayerNames:
    """Return timm's names of the layers; raises WeightsError if it has none."""
    if is_resnet(spec, scheme="timm"):
        return resnet_names(spec)
    check_kinds(spec, _BLOCKS, scheme="timm", eca=True)
    return name_layers(spec, ends=_ENDS, name_block=_name_block)


def _name_block(stage: int, place: int, number: int, block: BlockSpec, rest: str) -> str:
    return f"blocks.{stage}.{place}.{_BLOCKS[block.kind][rest]}"


def resnet_names(spec: ArchSpec) -> LayerNames:
    """Return the names of a ResNet's layers, which timm and torchvision share."""

    def name_block(stage: int, place: int, number: int, block: BlockSpec, rest: str) -> str:
        return f"layer{stage + 1}.{place}.{_RESNET_BLOCK[rest]}"

    return name_layers(spec, ends=_RESNET_ENDS, name_block=name_block)
