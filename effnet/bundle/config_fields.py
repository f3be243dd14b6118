"""The fields of config.json that need a check of their own, and the origin of a bundle's weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effnet.bundle.score_file import read_score_arrays
from effnet.data.several.outputs import OutputSpec, output_spec
from effnet.errors import BundleError, shown
from effnet.tasks.costs import Costs
from effnet.tasks.known import KnownScore

FIRST = 1
"""The format without task and outputs: all of its bundles are classifiers or backbones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of a bundle's weights: `source` in words, `published` the id of published weights or empty.

    `weights_sha256` is of the original model.safetensors, in hexadecimal: weights that were trained, pruned or edited
    since have another hash, and are no longer the published ones.
    """

    source: str
    published: str = ""
    weights_sha256: str = ""


def task_of(data: Mapping[str, Any]) -> str:
    """Return the name of the task."""
    if data["format"] == FIRST:
        return "classification"
    if not is_text(task := data["task"]):
        raise BundleError(f"task must be the name of a task; got {shown(task)}")
    return task


def specs_of(data: Mapping[str, Any]) -> tuple[OutputSpec, ...]:
    """Return the outputs of a task of several; none if they have no specs."""
    outputs = data.get("outputs") if data["format"] != FIRST else []
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise BundleError(f"outputs must be a list of JSON objects; got {shown(outputs)}")
    return tuple(output_spec(output["spec"]) for output in outputs if "spec" in output)


def origin_of(value: object) -> Origin | None:
    """Return the origin of the weights, None if it is unknown."""
    if value is None:
        return None
    if not isinstance(value, dict) or not all(map(is_text, value.values())) or "source" not in value:
        raise BundleError(f"origin must be null or a JSON object of texts with a source; got {shown(value)}")
    return Origin(**{key: value[key] for key in ("source", "published", "weights_sha256") if key in value})


def costs_of(value: object, class_names: tuple[str, ...]) -> Costs | None:
    """Return the costs that `named_costs` wrote."""
    if value is None:
        return None
    good = isinstance(value, dict) and set(value) == {"miss", "false"}
    given = {kind: some for kind, some in value.items() if isinstance(some, dict)} if isinstance(value, dict) else {}
    if not good or len(given) != 2 or any(name not in class_names for some in given.values() for name in some):
        raise BundleError(f"costs must be null or JSON objects miss and false, of costs by class; got {shown(value)}")
    every = {
        kind: tuple(number_of(some.get(name, 1.0), "a cost") for name in class_names) for kind, some in given.items()
    }
    if not all(0 < cost < math.inf for costs in every.values() for cost in costs):
        raise BundleError(f"costs must be above 0 and finite; got {shown(value)}")
    return Costs(**every)


def named_costs(costs: Costs, class_names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return the costs by class, for people: those of 1 are left out."""
    both = {"miss": costs.miss, "false": costs.false}
    return {
        kind: {name: cost for name, cost in zip(class_names, some, strict=True) if cost != 1}
        for kind, some in both.items()
    }


def known_of(value: object, folder: Path) -> KnownScore | None:
    """Return the score that says "unknown", with the arrays that the bundle `folder` has for it, or None."""
    if value is None:
        return None
    if not isinstance(value, dict) or not is_text(method := value.get("method")):
        raise BundleError(f"known must be null, or a method and a threshold; got {shown(value)}")
    threshold = value.get("threshold")
    found = KnownScore(
        method=method,  # type: ignore[arg-type]  # it checks the name
        threshold=None if threshold is None else number_of(threshold, "the threshold of known"),
    )
    return replace(found, arrays=read_score_arrays(folder, found.method))


def seed_of(value: object) -> int | None:
    """Return the seed of the split, None if it is unknown."""
    if value is None or (type(value) is int and value >= 0):
        return value
    raise BundleError(f"split_seed must be a whole number of at least 0, or null; got {shown(value)}")


def number_of(value: object, name: str) -> float:
    """Return a number; raise BundleError for anything else."""
    if type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    raise BundleError(f"{name} must be a number; got {shown(value)}")


def is_text(value: object) -> bool:
    """Return whether `value` is text that can be written as UTF-8: JSON can hold lone surrogates."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
