"""Load a state dict of any naming scheme into a network of effnet."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from effnet.arch.spec import ArchSpec
from effnet.bundle.config import read_config
from effnet.bundle.weights import load_arrays_, load_state
from effnet.errors import WeightsError
from effnet.nn.network import Network
from effnet.weights.adapt import Arrays, drop_background, has_folded_norms, replace_head
from effnet.weights.hub_config import is_bundle, read_hub_config, weights_in
from effnet.weights.identify import check_rule
from effnet.weights.locate import find_network
from effnet.weights.readers.checkpoint import NOTHING_TOLD, Told
from effnet.weights.readers.files import read_file
from effnet.weights.schemes import detect_scheme, foreign_names, to_effnet

_MAX_DEPTH = 8
# What changes the function of a network, but not the shapes of its weights.
_SHAPELESS = ("padding", "norm_epsilon", "activation", "se_gate")


def load_state_dict(model: nn.Module, source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, ...]:
    """Load weights of any known naming scheme into a network of effnet, and return notes on how they were found.

    `source` is a state dict of tensors or arrays, or a checkpoint that holds one at any depth and under any prefix, in
    memory or as a file that `effnet models import` reads; or a bundle. The names may be those of effnet, timm,
    torchvision, lukemelas, Keras or TensorFlow; `effnet.weights.schemes.foreign_names` is the mapping. A bundle's
    preprocessing, and that of timm's config.json beside a file, become the model's.

    Shapes do not tell padding and the epsilon of BatchNorm. The scheme does, or the name of a file; a state dict with
    timm's names does not: create the model under timm's name (tf_efficientnet_b0, efficientnet_b0). Raises WeightsError
    or BundleError if the weights are unreadable or those of another network; the model is then unchanged.
    """
    if not isinstance(model, Network):
        raise WeightsError(
            f"the model must be a network of effnet, as create_model and build return it; got {type(model).__name__}"
        )
    preprocess = None
    if isinstance(source, Mapping):
        state, notes = _find(model.spec, dict(_flat(source)), where="the state dict")
    elif is_bundle(path := Path(source)):
        config, state, notes = read_config(path), load_state(path), ()
        _check_same_function(config.arch, model.spec, where=str(path))
        state, preprocess = to_effnet(state, model.spec, scheme="effnet", where=str(path)), config.preprocess
    else:
        contents, beside = read_file(weights_in(path)), read_hub_config(path)
        names = (beside.network if beside else "", contents.told.model, path.name)
        hint = " ".join(filter(None, names))
        state, notes = _find(model.spec, contents.arrays, where=str(path), hint=hint, told=contents.told)
        preprocess = beside.preprocess if beside else None
    load_arrays_(model, state, where="the state dict")
    model.frozen_norms = has_folded_norms(state, model.spec)
    model.preprocess = preprocess or model.preprocess
    return notes


def _flat(values: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the tensors and arrays of a checkpoint at any depth, by the path to them."""
    for key, value in values.items():
        if isinstance(value, torch.Tensor):
            tensor = value.detach().to("cpu", torch.float32 if value.is_floating_point() else None)
            yield f"{prefix}{key}", tensor.numpy()
        elif isinstance(value, np.ndarray):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and depth < _MAX_DEPTH:
            yield from _flat(value, f"{prefix}{key}.", depth + 1)


def _find(
    spec: ArchSpec, arrays: Arrays, *, where: str, hint: str = "", told: Told = NOTHING_TOLD
) -> tuple[Arrays, tuple[str, ...]]:
    """Return the weights of `spec` among the arrays of a checkpoint, under effnet's names, and notes."""
    found = find_network(arrays, where=where, path=told.path, beside=told.beside, left=told.left)
    scheme = detect_scheme(found.arrays)
    check_rule(spec, found.arrays, scheme=scheme, name_hint=hint, where=where)
    names = foreign_names(dataclasses.replace(spec, num_classes=1), scheme)
    bias = found.arrays.get(names["classifier.bias"])
    classes = 0 if bias is None else len(bias)
    notes = (f"the names are those of {scheme}", *found.notes)
    background = scheme == "tensorflow" and classes == spec.num_classes + 1
    if classes != spec.num_classes and spec.num_classes and not background:
        raise WeightsError(
            f"{where} has {classes:,} classes, and the model has {spec.num_classes:,}: create the model with "
            f"num_classes={classes}, load, then call reset_classifier({spec.num_classes})"
        )
    state = to_effnet(found.arrays, dataclasses.replace(spec, num_classes=classes), scheme=scheme, where=where)
    if classes and not spec.num_classes:
        return replace_head(state, spec, num_classes=0), (*notes, "the classifier is left out, as the model has none")
    return drop_background(state) if background else state, notes


def _check_same_function(theirs: ArchSpec, ours: ArchSpec, *, where: str) -> None:
    """Raise WeightsError if two networks of equal shapes compute something else."""
    for name in _SHAPELESS:
        has, wanted = getattr(theirs, name), getattr(ours, name)
        if has != wanted:
            raise WeightsError(
                f"{where} holds a network with {name} {has!r}; the model has {wanted!r}: create it from the bundle"
            )
