"""Naming schemes of weights: names and layouts in other projects, converted both ways.

A scheme is a function from a spec to names, so it covers every network that its project can express, scaled and
pruned ones too. Arrays are numpy's; torch is not needed.
"""

import re
from collections import Counter
from collections.abc import Mapping
from types import ModuleType
from typing import Literal, get_args

import numpy as np

from effnet.arch.spec import ArchSpec
from effnet.errors import WeightsError, nearest
from effnet.weights.schemes import effdet, keras, lukemelas, smp, tensorflow, timm, torchvision
from effnet.weights.schemes.shared import (
    TENSORFLOW_PARTS,
    TORCH_PARTS,
    Arrays,
    LayerNames,
    Shape,
    from_tensorflow,
    is_depthwise,
    parametrised,
    parts,
    refuse,
    shape_of,
    tensorflow_shape,
    to_tensorflow,
)

Scheme = Literal[
    "effnet", "timm", "torchvision", "lukemelas", "keras", "tensorflow", "effdet", "smp", "smp_timm", "smp_tu"
]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

_MODULES: dict[Scheme, ModuleType] = {
    "timm": timm,
    "torchvision": torchvision,
    "lukemelas": lukemelas,
    "keras": keras,
    "tensorflow": tensorflow,
    "effdet": effdet,
}
SMP: tuple[Scheme, ...] = ("smp", "smp_timm", "smp_tu")
"""The schemes of segmentation_models_pytorch, by the kind of its encoder."""
COMPOSED: tuple[Scheme, ...] = ("effdet", *SMP)
"""The schemes whose networks hold another project's network, under its names and a prefix."""

# The schemes that have names for the layers of a decoder.
_DECODED: tuple[Scheme, ...] = ("effnet", "tensorflow", "effdet", *SMP)
# Keys that only this scheme has. ResNets are named alike by timm and torchvision.
PATTERNS: dict[Scheme, str] = {
    "effnet": r"stages\.\d+\.\d+\.",
    "timm": r"blocks\.\d+\.\d+\.",
    "torchvision": r"features\.\d+\.\d+\.block\.|layer\d+\.\d+\.(conv|bn|downsample)",
    "lukemelas": r"_blocks\.\d+\.",
    "keras": r"block\d+._\w+/",
    "tensorflow": r"([^/]+/)*blocks_\d+/",
    "effdet": r"(fpn\.cell|(class|box)_net\.conv_rep)\.\d+\.|backbone\.blocks\.\d+\.\d+\.",
    "smp": r"encoder\._blocks\.\d+\.",
    "smp_timm": r"encoder\.blocks\.\d+\.\d+\.",
    "smp_tu": r"encoder\.model\.blocks\.\d+\.\d+\.",
}
_SHOWN = 3


def detect_scheme(arrays: Mapping[str, object]) -> Scheme:
    """Return the naming scheme of these keys; ResNets, named alike by timm and torchvision, count as torchvision's.

    Raises WeightsError if no scheme fits.
    """
    found = Counter(s for s, pattern in PATTERNS.items() for key in arrays if re.match(pattern, key))
    if not found:
        seen = ", ".join(sorted(arrays)[:_SHOWN]) or "nothing"
        raise WeightsError(
            f"the names of the arrays must be those of one of {', '.join(SCHEMES)}; got {seen}; "
            "weights of other networks or other projects cannot be read"
        )
    return found.most_common(1)[0][0]


def foreign_names(spec: ArchSpec, scheme: Scheme) -> dict[str, str]:
    """Return the foreign name of every array of the network, by effnet's name.

    Raises WeightsError if the scheme has no names for such a network.
    """
    layers = _layer_names(spec, scheme)
    return {
        f"{name}.{part}": _foreign_key(layers[name], name, op=layer.op, part=part, scheme=scheme)
        for name, layer in parametrised(spec)
        for part in parts(layer)
    }


def foreign_shapes(spec: ArchSpec, scheme: Scheme) -> dict[str, Shape]:
    """Return the shape of every array of the network, by its foreign name and in its foreign layout."""
    names, shapes = foreign_names(spec, scheme), {}
    for name, layer in parametrised(spec):
        for part in parts(layer):
            shape = shape_of(layer, part)
            if scheme in ("keras", "tensorflow"):
                shape = tensorflow_shape(shape, depthwise=is_depthwise(name))
            shapes[names[f"{name}.{part}"]] = shape
    return shapes


def root_of(key: str, scheme: Scheme) -> str:
    """Return the part of a network that an array of this plain name belongs to: stem, blocks, head or classifier."""
    if scheme == "keras":
        return re.sub(r"^(stem|block|top)[_\d].*", r"\1", key.partition("/")[0])
    if scheme == "tensorflow":
        layer = key.partition("/")[2].removeprefix("head/")
        return "dense" if layer.startswith("dense/") else re.sub(r"\d+$", "", key.split("/")[1])
    return key.partition(".")[0]


def _module(scheme: Scheme) -> ModuleType | None:
    if scheme not in SCHEMES:
        raise WeightsError(f"a naming scheme is one of {', '.join(SCHEMES)}; got {scheme!r}{nearest(scheme, SCHEMES)}")
    return _MODULES.get(scheme)


def _layer_names(spec: ArchSpec, scheme: Scheme) -> LayerNames:
    """Return the foreign names of the layers with parameters."""
    module = _module(scheme)
    if spec.decoder is not None and scheme not in _DECODED:
        raise refuse(scheme, "a network with a decoder")
    if spec.pooled and scheme != "effnet":
        raise refuse(scheme, "a classifier that reads several stages")
    if scheme in SMP:
        return smp.layer_names(spec, scheme)
    if module is None:
        return {name: name for name, _ in parametrised(spec)}
    names: LayerNames = module.layer_names(spec)
    return names


def _foreign_key(foreign: str, name: str, *, op: str, part: str, scheme: Scheme) -> str:
    if op == "fuse" and scheme != "effnet":
        return foreign
    if scheme not in ("keras", "tensorflow"):
        return f"{foreign}.{part}"
    part = TENSORFLOW_PARTS[op][TORCH_PARTS[op].index(part)]
    if scheme == "tensorflow" and part == "kernel":
        part = tensorflow.kernel_part(name)
    return f"{foreign}/{part}"


def plain_arrays(arrays: Mapping[str, np.ndarray], scheme: Scheme) -> dict[str, np.ndarray]:
    """Return the arrays that belong to a network, under the names of `foreign_names`.

    Batch counters, optimizer state and Keras' preprocessing layers are left out. TensorFlow's moving averages replace
    their variables.
    """
    if scheme == "tensorflow":
        return tensorflow.plain_names(arrays)
    if scheme == "keras":
        return keras.plain_names(arrays)
    if scheme == "effdet":
        arrays = effdet.plain_names(arrays)
    elif scheme in SMP:
        arrays = smp.plain_names(arrays)
    return {key: array for key, array in arrays.items() if not key.endswith("num_batches_tracked")}


def to_effnet(arrays: Mapping[str, np.ndarray], spec: ArchSpec, *, scheme: Scheme, where: str) -> Arrays:
    """Return foreign weights as effnet's state of the network: its names, torch's layout, float32.

    `where` names the file in errors. BatchNorms of another epsilon than the network's get variances with which they
    compute the same; of two epsilons the network must have the smaller. Raises WeightsError if a key is missing or
    unknown, a shape differs, a number is not finite, or a variance is below 0.
    """
    names, shapes = foreign_names(spec, scheme), foreign_shapes(spec, scheme)
    plain = plain_arrays(arrays, scheme)
    _check_keys(plain, shapes, scheme=scheme, where=where)
    state: Arrays = {}
    for own, foreign in names.items():
        array = np.asarray(plain[foreign])
        _check_array(array, shapes[foreign], key=foreign, where=where)
        if own.endswith(".running_var") and array.min() < 0:
            raise WeightsError(f"{where}: {foreign} must hold variances of at least 0; got {array.min():g}")
        if scheme in ("keras", "tensorflow"):
            array = from_tensorflow(array, depthwise=is_depthwise(own.rpartition(".")[0]))
        if own.endswith(".running_var"):
            array = array + (_epsilon(spec, own, scheme) - spec.norm_epsilon)
        state[own] = np.ascontiguousarray(array, dtype=np.float32)
    return state


def from_effnet(state: Mapping[str, np.ndarray], spec: ArchSpec, *, scheme: Scheme) -> Arrays:
    """Return effnet's state of the network under a scheme's names and in its layout, float32.

    Raises WeightsError if the state is not that of the network, or the scheme has no names for it.
    """
    names = foreign_names(spec, scheme)
    own = _for_epsilons(to_effnet(state, spec, scheme="effnet", where="the state"), spec, scheme)
    if scheme not in ("keras", "tensorflow"):
        return {foreign: own[name] for name, foreign in names.items()}
    arrays = {
        foreign: np.ascontiguousarray(to_tensorflow(own[name], depthwise=is_depthwise(name.rpartition(".")[0])))
        for name, foreign in names.items()
    }
    return tensorflow.split_fusions(arrays) if scheme == "tensorflow" else arrays


def _epsilon(spec: ArchSpec, name: str, scheme: Scheme) -> float:
    """Return the epsilon that a project's code has in the BatchNorm of this name; some have more than one."""
    if scheme == "effdet":
        return effdet.epsilon(spec, name)
    return smp.epsilon(spec, name, scheme) if scheme in SMP else spec.norm_epsilon


def _for_epsilons(state: Arrays, spec: ArchSpec, scheme: Scheme) -> Arrays:
    """Return the state for BatchNorms with the epsilons of a scheme: the variances, and where these would be below 0
    the weights too, change so that each computes the same.
    """
    changed = dict(state)
    for name, variance in state.items():
        layer, _, part = name.rpartition(".")
        theirs = _epsilon(spec, layer, scheme) if part == "running_var" else spec.norm_epsilon
        if theirs != spec.norm_epsilon:
            lowered = np.maximum(variance + np.float32(spec.norm_epsilon - theirs), 0)
            factor = np.sqrt((lowered + np.float32(theirs)) / (variance + np.float32(spec.norm_epsilon)))
            changed[name], changed[f"{layer}.weight"] = lowered, state[f"{layer}.weight"] * factor
    return changed


def _check_keys(plain: Mapping[str, np.ndarray], shapes: Mapping[str, Shape], *, scheme: Scheme, where: str) -> None:
    missing = [key for key in shapes if key not in plain]
    unknown = sorted(key for key in plain if key not in shapes)
    if missing or unknown:
        raise WeightsError(
            f"{where} does not hold this network under the names of {scheme}: of {len(shapes)} arrays it lacks "
            f"{_some(missing)}, and has unknown {_some(unknown)}; name the network that the file was saved from"
        )


def _some(keys: list[str]) -> str:
    if not keys:
        return "none"
    return f"{len(keys)} ({', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''})"


def _check_array(array: np.ndarray, shape: Shape, *, key: str, where: str) -> None:
    if array.shape != shape:
        raise WeightsError(
            f"{where}: {key} must have shape {shape}; got {array.shape}; name the network that the file was saved from"
        )
    if array.dtype.kind != "f":
        raise WeightsError(
            f"{where}: {key} must hold floating-point numbers; got {array.dtype}; use the weights before quantization"
        )
    if not np.isfinite(array).all():
        count = int(array.size - np.isfinite(array).sum())
        raise WeightsError(
            f"{where}: {key} must hold finite numbers; {count} of {array.size} are NaN or infinite; "
            "get the file again, or an earlier checkpoint of its training"
        )
