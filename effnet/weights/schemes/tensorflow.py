"""The names in the checkpoints of tensorflow/tpu (V1, Lite, EdgeTPU) and google/automl (V2).

TensorFlow counts layers of a kind within the scope of a block: the first is `conv2d`, the next `conv2d_1`. So a
block without expansion has its projection in `conv2d`, and one with it in `conv2d_1`. The first word of a
name is the model's; any is read, `SCOPE` is written.
Source: efficientnet_model.py of tensorflow/tpu, effnetv2_model.py of google/automl.
"""

from collections.abc import Mapping

import numpy as np

from effnet.arch.spec import ArchSpec, BlockSpec
from effnet.weights.schemes.shared import LayerNames, check_kinds, name_layers

SCOPE = "efficientnet"
EMA = "/ExponentialMovingAverage"
# Suffixes of optimizer state.
SLOTS = ("/Momentum", "/RMSProp", "/RMSProp_1", "/Adam", "/Adam_1")

_CONV, _NORM = "conv2d", "tpu_batch_normalization"
_ENDS = {
    "stem.conv": f"stem/{_CONV}",
    "stem.norm": f"stem/{_NORM}",
    "head.conv": f"head/{_CONV}",
    "head.norm": f"head/{_NORM}",
    "classifier": "head/dense",
}
# Convolutions are counted without the depthwise one, which has its own name.
_ORDER = {
    "mbconv": ("expand", "depthwise", "project"),
    "depthwise_separable": ("depthwise", "project"),
    "fused_mbconv": ("expand", "project"),
    "conv": ("",),
}


def layer_names(spec: ArchSpec) -> LayerNames:
    """Return TensorFlow's names of the layers; raises WeightsError if it has none."""
    check_kinds(spec, _ORDER, scheme="tensorflow")
    names = name_layers(spec, ends=_ENDS, name_block=_name_block)
    return {name: f"{SCOPE}/{foreign}" for name, foreign in names.items()}


def _name_block(stage: int, place: int, number: int, block: BlockSpec, rest: str) -> str:
    scope, (unit, _, part) = f"blocks_{number}", rest.rpartition(".")
    if unit == "se":
        return f"{scope}/se/{_counted(_CONV, part == 'expand')}"
    if unit == "depthwise" and part == "conv":
        return f"{scope}/depthwise_conv2d"
    before = _ORDER[block.kind][: _ORDER[block.kind].index(unit)]
    if part == "norm":
        return f"{scope}/{_counted(_NORM, len(before))}"
    return f"{scope}/{_counted(_CONV, len([name for name in before if name != 'depthwise']))}"


def _counted(name: str, number: int) -> str:
    return f"{name}_{int(number)}" if number else name


def plain_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the variables under the names that `layer_names` uses.

    The moving average of a variable replaces it if there is one, as the published accuracy is that of the averages.
    Step counters and optimizer state are left out.
    """
    plain = {}
    for key, array in arrays.items():
        name = key.removesuffix(EMA)
        if name.endswith(SLOTS) or name.rpartition("/")[2] == "global_step":
            continue
        if key != name or f"{key}{EMA}" not in arrays:
            plain[f"{SCOPE}/{_without_scope(name)}"] = array
    return plain


def _without_scope(name: str) -> str:
    words = name.split("/")
    for place, word in enumerate(words):
        if word in ("stem", "head") or word.startswith("blocks_"):
            return "/".join(words[place:])
    return name
