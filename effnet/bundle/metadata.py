"""The metadata of an exported file, stored as its format does."""

import json
from typing import Any

from effnet.bundle.config import ModelConfig
from effnet.data.several.outputs import OutputSpec
from effnet.tasks.task import names_in_file

KNOWN = "known"


def model_metadata(config: ModelConfig) -> dict[str, str]:
    """Return class names, preprocessing, the network's name and the threshold, if there is one, as text.

    For a network without a classifier, whose file outputs features, the class names are an empty list. A file of
    several outputs has them as `outputs`: `described_outputs` as JSON. One that returns a score has its method and its
    threshold as KNOWN.
    """
    threshold = {} if config.threshold is None else {"threshold": repr(config.threshold)}
    several = {"outputs": json.dumps(described_outputs(config), ensure_ascii=False)} if config.specs else {}
    return {
        "class_names": json.dumps(list(config.class_names), ensure_ascii=False),
        "preprocess": json.dumps(config.preprocess.to_dict()),
        "network": config.arch.name,
        **threshold,
        **several,
    }


def described_outputs(config: ModelConfig) -> list[dict[str, Any]]:
    """Return what a program must know of each of several outputs, in order, JSON-able.

    `tensor` is its name in the file, and `name` its own. A class is known if its probability is at least `threshold`;
    a tag is present if its probability is at least its own of `thresholds`.
    """
    names = names_in_file(config.file_outputs)
    return [_described(tensor, spec) for tensor, spec in zip(names, config.specs, strict=True)]


def _described(tensor: str, spec: OutputSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"tensor": tensor, "name": spec.name, "kind": spec.kind}
    if spec.classes:
        found["classes"] = list(spec.classes)
    if spec.threshold is not None:
        found["threshold"] = spec.threshold
    if spec.kind == "many":
        found["thresholds"] = list(spec.thresholds) or [0.5] * len(spec.classes)
    return found
