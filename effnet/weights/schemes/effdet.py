"""The names of effdet (rwightman/efficientdet-pytorch): the backbone's are timm's; a node's inputs are counted.

A node names an input by its place in the list of all feature maps: first the levels, then each node of its cell.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np

from effnet.arch.decoders.layers import SCORES
from effnet.arch.decoders.record import AnchorHead, Detector, Pyramid
from effnet.arch.spec import ArchSpec
from effnet.weights.schemes import timm
from effnet.weights.schemes.shared import LayerNames, parametrised, refuse

NECK_EPSILON = 1e-3
"""BatchNorm's epsilon in the neck and the heads, whatever the backbone's is."""

_UNIT = {"conv": "conv", "norm": "bn"}
_PARTS = {"depthwise": "conv_dw", "pointwise": "conv_pw"}
_LEVEL_FIRST = re.compile(r"((?:class|box)_net\.bn_rep)\.(\d+)\.(\d+)\.(?!bn\.)(\w+)")


def layer_names(spec: ArchSpec) -> LayerNames:
    """Return effdet's names of the layers; raises WeightsError if it has none."""
    neck = detector_of(spec, scheme="effdet").neck
    backbone, names = timm.layer_names(spec), {}
    for name, _ in parametrised(spec):
        words = name.split(".")
        if words[0] == "neck":
            names[name] = f"fpn.{_neck_name(words[1:], neck)}"
        elif words[0] == "head":
            names[name] = f"{'class' if words[1] == SCORES else 'box'}_net.{_head_name(words[2:], neck)}"
        else:
            names[name] = f"backbone.{backbone[name]}"
    return names


def detector_of(spec: ArchSpec, *, scheme: str) -> Detector:
    """Return the decoder of a detector with anchors; raise WeightsError for another network."""
    if not isinstance(spec.decoder, Detector) or not isinstance(spec.decoder.head, AnchorHead):
        raise refuse(scheme, "a network that is no EfficientDet")
    return spec.decoder


def node_inputs(neck: Pyramid) -> Iterator[tuple[int, ...]]:
    """Yield, for each node of a cell, the places of its inputs: the levels have the first, then come the nodes.

    Source: bifpn_dynamic_config in google/automl, efficientdet_arch.py.
    """
    places = {level: [number] for number, level in enumerate(neck.levels)}
    number = len(neck.levels)
    for level in reversed(neck.levels[:-1]):
        yield places[level][-1], places[level + 1][-1]
        places[level].append(number)
        number += 1
    for level in neck.levels[1:]:
        yield (*places[level], places[level - 1][-1])
        places[level].append(number)
        number += 1


def _neck_name(words: list[str], neck: Pyramid) -> str:
    if words[0] != "cells":  # p6.conv
        return f"resample.{int(words[0][1:]) - neck.min_level}.conv.{_UNIT[words[1]]}"
    cell, node, *rest = words[1:]
    prefix = f"cell.{cell}.fnode.{node}"
    if rest[0] == "fuse":
        return f"{prefix}.combine.edge_weights"
    if rest[0].startswith("in"):
        place = tuple(node_inputs(neck))[int(node)][int(rest[0][2:])]
        return f"{prefix}.combine.resample.{place}.conv.{_UNIT[rest[1]]}"
    return f"{prefix}.after_combine.conv.{'bn' if rest[0] == 'norm' else _PARTS[rest[0]]}"


def _head_name(words: list[str], neck: Pyramid) -> str:
    repeat, unit, *level = words
    if repeat == "last":
        return f"predict.{_PARTS[unit]}"
    if unit == "norm":
        return f"bn_rep.{repeat}.{int(level[0][1:]) - neck.min_level}.bn"
    return f"conv_rep.{repeat}.{_PARTS[unit]}"


def plain_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with the BatchNorms of heads by repeat and level; effdet may order them by level first."""
    return {_LEVEL_FIRST.sub(r"\1.\3.\2.bn.\4", key): array for key, array in arrays.items()}


def epsilon(spec: ArchSpec, name: str) -> float:
    """Return the epsilon with which effdet evaluates the BatchNorm of this name."""
    return NECK_EPSILON if name.startswith(("neck.", "head.")) else spec.norm_epsilon
