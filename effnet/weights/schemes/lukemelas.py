"""The names of lukemelas/EfficientNet-PyTorch: all blocks of all stages in one list, `_blocks.NUMBER`."""

from effnet.arch.spec import ArchSpec, BlockSpec
from effnet.weights.schemes.shared import LayerNames, check_kinds, name_layers

_ENDS = {
    "stem.conv": "_conv_stem",
    "stem.norm": "_bn0",
    "head.conv": "_conv_head",
    "head.norm": "_bn1",
    "classifier": "_fc",
}
_BLOCK = {
    "expand.conv": "_expand_conv", "expand.norm": "_bn0", "depthwise.conv": "_depthwise_conv",
    "depthwise.norm": "_bn1", "se.reduce": "_se_reduce", "se.expand": "_se_expand",
    "project.conv": "_project_conv", "project.norm": "_bn2",
}  # fmt: skip


def layer_names(spec: ArchSpec) -> LayerNames:
    """Return lukemelas' names of the layers; raises WeightsError if it has none."""
    check_kinds(spec, ("mbconv", "depthwise_separable"), scheme="lukemelas")
    return name_layers(spec, ends=_ENDS, name_block=_name_block)


def _name_block(stage: int, place: int, number: int, block: BlockSpec, rest: str) -> str:
    return f"_blocks.{number}.{_BLOCK[rest]}"
