"""The names of torchvision: numbers in nested sequences, `features.STAGE.PLACE.block.UNIT`."""

from effnet.arch.spec import ArchSpec, BlockSpec
from effnet.weights.schemes.shared import LayerNames, check_kinds, is_resnet, name_layers, refuse
from effnet.weights.schemes.timm import resnet_names

# The order of units in a block; an absent one takes no number.
_UNITS = {
    "mbconv": ("expand", "depthwise", "se", "project"),
    "depthwise_separable": ("depthwise", "se", "project"),
    "fused_mbconv": ("expand", "project"),
    "conv": ("",),
}
_PARTS = {"conv": "0", "norm": "1", "reduce": "fc1", "expand": "fc2"}


def layer_names(spec: ArchSpec) -> LayerNames:
    """Return torchvision's names of the layers; raises WeightsError if it has none."""
    if is_resnet(spec, scheme="torchvision"):
        return resnet_names(spec)
    check_kinds(spec, _UNITS, scheme="torchvision")
    for block in spec.blocks:
        if ("se" in _UNITS[block.kind]) != bool(block.se_channels):
            without = "with" if block.se_channels else "without"
            raise refuse("torchvision", f"a {block.kind} block {without} squeeze-and-excitation")
    head = f"features.{len(spec.stages) + 1}"
    ends = {
        "stem.conv": "features.0.0",
        "stem.norm": "features.0.1",
        "head.conv": f"{head}.0",
        "head.norm": f"{head}.1",
        "classifier": "classifier.1",
    }
    return name_layers(spec, ends=ends, name_block=_name_block)


def _name_block(stage: int, place: int, number: int, block: BlockSpec, rest: str) -> str:
    unit, _, part = rest.rpartition(".")
    return f"features.{stage + 1}.{place}.block.{_UNITS[block.kind].index(unit)}.{_PARTS[part]}"
