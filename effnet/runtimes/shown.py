"""Which activation maps explain an answer: of its class, its most probable tags, its numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.data.several.outputs import OutputSpec
from effnet.system.text import percent
from effnet.tasks.classification import Prediction

# The most tags of an image that are shown.
_MOST_TAGS = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """One map [height, width] of an image: what each place of it adds to `title`, whose value is `value` in words.

    `output` is the name of its output. A map of a class is relative to the mean of all classes, since softmax ignores
    what all have in common; that of a `contrast` is relative to the second class. That of a detector's `box`, left,
    top, right, bottom in pixels of the network's input, is what its score loses if a place is covered.
    """

    output: str
    title: str
    value: str
    map: np.ndarray
    contrast: bool = False
    box: tuple[float, float, float, float] | None = None


def shown_maps(
    config: ModelConfig, row: np.ndarray, maps: np.ndarray, answer: Any, *, output: str | None = None
) -> tuple[Shown, ...]:
    """Return the maps to show of one image, from its row [columns], its maps [columns, height, width] and its answer.

    `output` is the only output to show or, of a classifier, the class.
    """
    found: list[Shown] = []
    first = 0
    for each, part in zip(config.file_outputs, _specs(config), strict=True):
        columns = slice(first, first + each.width)
        first += each.width
        if part.name in (output, "") or output is None:
            wanted = output if part.name == "" else None
            found += _shown(part, row[columns], maps[columns], answer[part.name] if part.name else answer, wanted)
    return tuple(found)


def _specs(config: ModelConfig) -> tuple[OutputSpec, ...]:
    """Return the outputs; that of a task of one has no name, and its kind follows from its activation."""
    if config.specs:
        return config.specs
    (output,) = config.file_outputs
    kinds = {"softmax": "one", "sigmoid": "many", "none": "number"}
    kind: Any = kinds[output.activation]
    return (OutputSpec(name="", kind=kind, classes=() if output.width == 1 else config.class_names),)


def _shown(spec: OutputSpec, row: np.ndarray, maps: np.ndarray, answer: Any, wanted: str | None) -> Iterator[Shown]:
    """Yield the maps of one output: of the class `wanted` or, by default, of the answer."""
    if spec.kind == "number":
        names = spec.classes or (spec.name or "the number",)
        for name, value, map_ in zip(names, row, maps * spec.scale, strict=True):
            yield Shown(output=spec.name, title=name, value=f"{value:.4g}", map=map_)
    elif spec.kind == "many":
        for number in np.argsort(-row, kind="stable")[:_MOST_TAGS]:
            yield Shown(
                output=spec.name, title=spec.classes[number], value=percent(float(row[number]), 1), map=maps[number]
            )
    else:
        # The answer is the first, which need not be the most probable one: wrong answers may have unlike costs.
        best = [int(number) for number in np.argsort(-row, kind="stable")]
        if isinstance(answer, Prediction):
            best = [spec.classes.index(label) for label in answer.labels]
        first = best[0] if wanted is None else spec.classes.index(wanted)
        second = next((number for number in best if number != first), None)
        value = percent(float(row[first]), 1)
        yield Shown(output=spec.name, title=spec.classes[first], value=value, map=maps[first] - maps.mean(0))
        if second is not None:
            yield Shown(
                output=spec.name,
                title=f"{spec.classes[first]} rather than {spec.classes[second]}",
                value=f"{value} and {percent(float(row[second]), 1)}",
                map=maps[first] - maps[second],
                contrast=True,
            )
