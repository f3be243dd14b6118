"""The names in the checkpoints of tensorflow/tpu (V1, Lite, EdgeTPU) and google/automl (V2, EfficientDet).

TensorFlow counts layers of a kind within the scope of a block: the first is `conv2d`, the next `conv2d_1`. So a
block without expansion has its projection in `conv2d`, and one with it in `conv2d_1`. The first word of a
name is the model's; any is read, `SCOPE` is written. A detector's neck and heads have no such word; a separable
convolution is one layer with two kernels, and a fusion has a variable for each of its inputs.
Source: efficientnet_model.py of tensorflow/tpu, effnetv2_model.py and efficientdet_arch.py of google/automl.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from effnet.arch.decoders.layers import SCORES
from effnet.arch.decoders.record import Pyramid
from effnet.arch.spec import ArchSpec, BlockSpec
from effnet.weights.schemes.effdet import detector_of, node_inputs
from effnet.weights.schemes.shared import LayerNames, check_kinds, is_depthwise, name_layers, parametrised

SCOPE = "efficientnet"
EMA = "/ExponentialMovingAverage"
# Suffixes of optimizer state.
SLOTS = ("/Momentum", "/RMSProp", "/RMSProp_1", "/Adam", "/Adam_1")

_CONV, _NORM = "conv2d", "tpu_batch_normalization"
_RESAMPLED, _FUSION = {"conv": "conv2d", "norm": "bn"}, "WSM"
# The variable of a fusion's first input, and of another.
_FUSED = re.compile(rf"(.*/{_FUSION})(?:_(\d+))?")
# The first words of names outside the backbone.
_OUTSIDE = re.compile(r"(fpn_cells|class_net|box_net|resample_p\d+)/")
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
    scoped = {name: f"{SCOPE}/{foreign}" for name, foreign in names.items()}
    if spec.decoder is None:
        return scoped
    neck, inputs = (pyramid := detector_of(spec, scheme="tensorflow").neck), tuple(node_inputs(pyramid))
    return {name: scoped.get(name) or _decoder_name(name.split("."), neck, inputs) for name, _ in parametrised(spec)}


def _decoder_name(words: list[str], neck: Pyramid, inputs: Sequence[tuple[int, ...]]) -> str:
    """Return the name of a layer of the neck or a head of EfficientDet."""
    if words[0] == "head":
        return _head_name(words[1], *words[2:])
    if words[1] != "cells":  # neck.p6.conv
        return f"resample_{words[1]}/{_RESAMPLED[words[2]]}"
    cell, node, part, *rest = words[2:]
    places = len(neck.levels) + int(node)
    prefix = f"fpn_cells/cell_{cell}/fnode{node}"
    if part == "fuse":
        return f"{prefix}/{_FUSION}"
    if part.startswith("in"):
        number = int(part[2:])
        return f"{prefix}/resample_{number}_{inputs[int(node)][number]}_{places}/{_RESAMPLED[rest[0]]}"
    return f"{prefix}/op_after_combine{places}/{'bn' if part == 'norm' else 'conv'}"


def _head_name(output: str, repeat: str, unit: str, level: str = "") -> str:
    kind = "class" if output == SCORES else "box"
    if repeat == "last":
        return f"{kind}_net/{kind}-predict"
    return f"{kind}_net/{kind}-{repeat}" + (f"-bn-{level[1:]}" if unit == "norm" else "")


def kernel_part(name: str) -> str:
    """Return TensorFlow's name of the kernel of a convolution, by effnet's name of the layer."""
    if is_depthwise(name):
        return "depthwise_kernel"
    return "pointwise_kernel" if name.endswith(".pointwise") else "kernel"


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
    Step counters and optimizer state are left out. The variables of a fusion become one array.
    """
    plain: dict[str, np.ndarray] = {}
    fusions: dict[str, dict[int, np.ndarray]] = {}
    for key, array in arrays.items():
        name = key.removesuffix(EMA)
        if name.endswith(SLOTS) or name.rpartition("/")[2] == "global_step":
            continue
        if key != name or f"{key}{EMA}" not in arrays:
            if fused := _FUSED.fullmatch(name):
                fusions.setdefault(fused[1], {})[int(fused[2] or 0)] = array
            else:
                plain[name if _OUTSIDE.match(name) else f"{SCOPE}/{_without_scope(name)}"] = array
    for name, parts in fusions.items():
        plain[name] = np.concatenate([np.ravel(parts[number]) for number in sorted(parts)])
    return plain


def split_fusions(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with a variable for each input of a fusion."""
    split: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if _FUSED.fullmatch(name):
            split |= {f"{name}_{number}" if number else name: each for number, each in enumerate(array)}
        else:
            split[name] = array
    return split


def _without_scope(name: str) -> str:
    words = name.split("/")
    for place, word in enumerate(words):
        if word in ("stem", "head") or word.startswith("blocks_"):
            return "/".join(words[place:])
    return name
