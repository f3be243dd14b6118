"""What a task is: all that effnet knows of the question that a network answers, outside the task's own modules.

Nothing else knows what is answered: training, exports, prediction, evaluation and the report ask the record.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from effnet.data.labels import LabelKind
from effnet.data.several.outputs import OutputSpec, outputs_of
from effnet.system.text import percent

Activation = Literal["softmax", "sigmoid", "none"]
"""What an exported file computes from the last layer's values."""

Module = Literal["learning", "scoring", "reporting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a model file returns for an image: `name` is that of its output, `activation` the last operation.

    `meaning` says in words what the numbers are, `titled` what the whole file is: "an image classifier". `width` is
    the number of the last layer's columns that it takes, 0 in a record that does not know it. Without an activation,
    the file returns `mean` + `scale` x these values. `shape` is that of its numbers for one image, if not
    a row.
    """

    name: str
    activation: Activation
    meaning: str
    titled: str
    width: int = 0
    mean: float = 0.0
    scale: float = 1.0
    shape: tuple[int, ...] = ()

    @property
    def sides(self) -> tuple[int, ...]:
        """The shape of its numbers for one image."""
        return self.shape or (self.width,)


def activated(values: np.ndarray, outputs: Sequence[Output]) -> np.ndarray:
    """Return what a file returns for the last layer's values [images, columns], float32, output by output."""
    parts, first = [], 0
    for output in outputs:
        part = values[:, first : first + output.width].astype(np.float64)
        first += output.width
        if output.activation == "softmax":
            part = np.exp(part - part.max(1, keepdims=True, initial=-np.inf))
            part /= part.sum(1, keepdims=True)
        elif output.activation == "sigmoid":
            part = np.exp(-np.logaddexp(0.0, -part))
        else:
            part = output.mean + output.scale * part
        parts.append(part.astype(np.float32))
    return np.concatenate(parts, axis=1)


def parted(rows: np.ndarray, outputs: Sequence[Output]) -> dict[str, np.ndarray]:
    """Return rows [batch, columns], a file's outputs one after the other, by name and in their shapes [batch, ...]."""
    edges = np.cumsum([output.width for output in outputs])[:-1]
    parts = zip(outputs, np.split(rows, edges, axis=1), strict=True)
    return {output.name: part.reshape(len(rows), *output.sides) for output, part in parts}


# Names that other tensors of some format have; see `names_in_file`.
_TAKEN = frozenset(
    ("image", "pool", "classifier", "features", "cam", "blocks", "probe", "zero", "six", "three", "sixth")
)


def names_in_file(outputs: Sequence[Output]) -> tuple[str, ...]:
    """Return the names of outputs in a model file.

    One of several outputs is named as people named it, with `_` for what an identifier cannot have. It is named by its
    number from 1, as in "output_2", if another output or tensor has this name, or it begins with a digit.
    """
    if len(outputs) == 1:
        return (outputs[0].name,)
    names = [re.sub(r"\W", "_", output.name, flags=re.ASCII) for output in outputs]
    return tuple(
        f"output_{number}" if name in _TAKEN or names.count(name) > 1 or re.match(r"\d|_+$|output_\d+$", name) else name
        for number, name in enumerate(names, 1)
    )


FEATURES = Output(
    name="features",
    activation="none",
    meaning="the features before the classifier",
    titled="a backbone",
)
"""The output of every network without its last layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """The figure that selection maximises, on the validation images, and that a report gives for the test images.

    `key` is its name in files, `title` its name in sentences. If `share`, it is shown in percent. A figure of which
    less is better, such as an error, is recorded as it is; only `better` compares.
    """

    key: str
    title: str
    share: bool = True
    less_is_better: bool = False

    def better(self, value: float) -> float:
        """Return a number that is larger for a better value."""
        return -value if self.less_is_better else value

    def shown(self, value: float) -> str:
        """Return a value as text, as in "93.2%"."""
        return percent(value) if self.share else f"{value:.4g}"

    def in_words(self, value: float) -> str:
        """Return title and value, as in "accuracy 93.2%"."""
        return f"{self.title} {self.shown(value)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedOutput:
    """One named output of a model, as config.json declares it: `shape` is that for one image."""

    name: str
    shape: tuple[int, ...]
    meaning: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {"name": self.name, "shape": list(self.shape), "meaning": self.meaning}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task, such as classification.

    `labels` are the labels that it learns; their names count the outputs of the last layer. `output` is what a model
    file returns. `check(rows, path)` raises BundleError unless rows, float32 [batch, outputs], are such outputs;
    `answer(row, names, top=, threshold=)` returns the answer to one image: at most `top` parts of it, and none if the
    confidence is below `threshold`, if the task has these. `right(rows, targets)` says which rows are right, bool
    [batch]: by it a lower precision is judged; None if a task has no such answers: then by the
    figure, of which it may lose at least `figure_drop`; 0 if a task has no lower precision. `figure` is what selection
    maximises; `balanced_figure` is what it maximises if training gives rare targets the weight of frequent ones, None
    for a task that cannot.

    The rest is in modules, imported when needed; they may be one. A new process must be able to import them too.

    - `learning`, which may import torch: see effnet.training.learning;
    - `scoring`, which must not: see effnet.measurement.evaluate;
    - `reporting`: see effnet.report.section.

    If `calibrated`, the outputs are probabilities of classes: a temperature and a threshold are fitted on the
    validation images; trials, pruning and the search for int8 are for these alone.
    If `pretrained`, the last layer can be fitted on the features of pretrained weights and distilled from a teacher.

    A task whose answers lie in the image has `whole(compute, image, arch, preprocess, threshold=)`: from an upright
    image of any size, uint8 [height, width, channels], it returns the answer in its pixels, with a `threshold` only
    objects of at least this score; `compute` maps prepared images, uint8 [batch, height, width, channels], to the
    outputs by name. Then `several` are the outputs, whose widths and shapes the network gives.

    A task of several outputs has `bind`, which returns the task of one model from its outputs: that has `several`, what
    a file returns for each, its columns in their order, and `parts`: the name of each output, and its columns in what
    `right` returns, int8 [batch, columns] of 1 for right, 0 for wrong and -1 for unknown.
    """

    name: str
    title: str
    labels: LabelKind
    output: Output
    figure: Figure
    balanced_figure: Figure | None = None
    check: Callable[[np.ndarray, Path], None]
    answer: Callable[..., Any]
    right: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    figure_drop: float = 0.0
    learning: str
    scoring: str
    reporting: str
    calibrated: bool = False
    pretrained: bool = False
    whole: Callable[..., Any] | None = None
    bind: "Callable[[Sequence[OutputSpec]], Task] | None" = None
    several: tuple[Output, ...] = ()
    parts: tuple[tuple[str, int], ...] = ()

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures of the task, which metrics.jsonl and reports hold."""
        return (self.figure,) if self.balanced_figure is None else (self.figure, self.balanced_figure)

    def selected_by(self, *, balanced: bool) -> Figure:
        """Return the figure that selection maximises."""
        return self.balanced_figure or self.figure if balanced else self.figure

    def of_names(self, names: Sequence[str]) -> "Task":
        """Return the task of a model whose last layer has these names: bound to its outputs, if there are several."""
        return self if self.bind is None else self.bind(outputs_of(names))

    def file_outputs(self, names: Sequence[str]) -> tuple[Output, ...]:
        """Return what a file of a model returns whose last layer has these names, its columns in order."""
        return self.several or (replace(self.output, width=len(names)),)

    def outputs(self, names: Sequence[str]) -> tuple[NamedOutput, ...]:
        """Return the outputs of a model whose last layer has these names."""
        found = self.file_outputs(names)
        return tuple(NamedOutput(name=some.name, shape=some.sides, meaning=some.meaning) for some in found)

    def module(self, name: Module) -> ModuleType:
        """Return one of the task's modules."""
        return import_module(getattr(self, name))
