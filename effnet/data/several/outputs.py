"""Several outputs of one network: what each answers, its columns in the last layer, and its labels as targets.

The last layer is one linear layer. Its columns are those of the outputs in order, and are named `output=class` for one
of several classes, `output:tag` for a tag, and `output` for a number; from these names the outputs are read back.

The label of an image is a JSON object with a value for each output that is known: a class, a list of tags, a number.
As targets they are float64 [images, target columns]: the number of the class; 1 or 0 for each tag; the number. NaN is
unknown.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from effnet.data.labels import CLASSES, LabelKind, Names
from effnet.data.several.checks import check_outputs
from effnet.data.several.values import KIND_MARKS, KIND_WORDS, Kind, names_from, read_mappings, strata_of
from effnet.data.several.values import label_text as label_text
from effnet.data.sources.source import Listing
from effnet.errors import DataError
from effnet.system.bounds import is_number
from effnet.system.text import brief


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """One named output: `classes` are its classes or tags, none for a number.

    The network's values are divided by `temperature` before softmax or sigmoid. An image whose most probable class is
    below `threshold` is of no known class; None disables this. A tag is present if its probability is at least that of
    `thresholds`, one for each. `miss` and `false` are the costs of missing each class or tag and of answering with it
    falsely, 1 each if empty (effnet.tasks.costs). A number is `mean` + `scale` x the network's value; it is right if it
    is within `tolerance` of the target: the mean distance of the training targets from their median.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...] = ()
    temperature: float = 1.0
    threshold: float | None = None
    thresholds: tuple[float, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    tolerance: float = 0.0
    miss: tuple[float, ...] = ()
    false: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """The number of its columns in the last layer."""
        return len(self.classes) or 1

    @property
    def target_width(self) -> int:
        """The number of its columns in the targets."""
        return len(self.classes) if self.kind == "many" else 1

    @property
    def columns(self) -> Names:
        """The names of its columns in the last layer."""
        mark = KIND_MARKS[self.kind]
        return tuple(f"{self.name}{mark}{text}" for text in self.classes) or (self.name,)


_TUPLES = ("classes", "thresholds", "miss", "false")


def output_spec(value: object) -> OutputSpec:
    """Return the output that config.json holds; raise DataError for anything else."""
    try:
        fields: Any = dict(value)  # type: ignore[call-overload]
        spec = OutputSpec(**fields | {name: tuple(fields.get(name, ())) for name in _TUPLES})
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"an output must be a JSON object with the fields of OutputSpec; got {brief(value)}") from error
    _check(spec)
    return spec


def _check(spec: OutputSpec) -> None:
    texts, numbers = (spec.name, *spec.classes), (spec.temperature, spec.mean, spec.scale, spec.tolerance)
    shares = (*spec.thresholds, *(() if spec.threshold is None else (spec.threshold,)))
    good = (
        spec.kind in KIND_MARKS
        and all(isinstance(text, str) and text for text in texts)
        and bool(spec.classes) == (spec.kind != "number")
        and all(is_number(number) for number in (*numbers, *shares))
        and all(0 <= share <= 1 for share in shares)
        and 1e-4 <= spec.temperature <= 1e4
        and spec.scale > 0
        and len(spec.thresholds) in (0, len(spec.classes) if spec.kind == "many" else 0)
        and all(len(costs) in (0, len(spec.classes)) for costs in (spec.miss, spec.false))
        and all(is_number(cost) and cost > 0 for cost in (*spec.miss, *spec.false))
    )
    if not good:
        raise DataError(f"an output must have a kind, its classes, and numbers that are finite; got {brief(spec)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An output, and its columns in the last layer and in the targets."""

    spec: OutputSpec
    columns: slice
    targets: slice


def placed(specs: Sequence[OutputSpec]) -> Iterator[Placed]:
    """Yield each output with its columns, in order."""
    first, target = 0, 0
    for spec in specs:
        yield Placed(
            spec=spec,
            columns=slice(first, first + spec.width),
            targets=slice(target, target + spec.target_width),
        )
        first, target = first + spec.width, target + spec.target_width


def column_names(specs: Sequence[OutputSpec]) -> Names:
    """Return the names of the last layer's columns."""
    return tuple(name for spec in specs for name in spec.columns)


def outputs_of(names: Sequence[str]) -> tuple[OutputSpec, ...]:
    """Return the outputs whose columns have these names; see `column_names`."""
    return _outputs_of(tuple(names))


@lru_cache(maxsize=16)
def _outputs_of(names: Names) -> tuple[OutputSpec, ...]:
    found: dict[tuple[str, Kind], list[str]] = {}
    for name in names:
        at = min((place for mark in "=:" if (place := name.find(mark)) >= 0), default=-1)
        kind: Kind = "number" if at < 0 else "one" if name[at] == "=" else "many"
        classes = found.setdefault((name if at < 0 else name[:at], kind), [])
        if at >= 0:
            classes.append(name[at + 1 :])
    return tuple(OutputSpec(name=name, kind=kind, classes=tuple(classes)) for (name, kind), classes in found.items())


def to_targets(texts: Sequence[str], names: Names) -> np.ndarray:
    """Return the targets of labels, float64 [images, target columns]; NaN is unknown."""
    specs = outputs_of(names)
    targets = np.full((len(texts), sum(spec.target_width for spec in specs)), np.nan)
    numbers = [{name: number for number, name in enumerate(spec.classes)} for spec in specs]
    pairs = list(zip(placed(specs), numbers, strict=True))
    for row, text in zip(targets, texts, strict=True):
        values = json.loads(text)
        for place, number in pairs:
            value = values.get(key_of(place.spec))
            if value is None:
                continue
            if place.spec.kind == "many":
                row[place.targets] = 0.0
                row[[place.targets.start + number[tag] for tag in value]] = 1.0
            else:
                row[place.targets] = number[value] if place.spec.kind == "one" else float(value)
    return targets


def key_of(spec: OutputSpec) -> str:
    """Return the key of an output in the labels of images."""
    return spec.name + KIND_MARKS[spec.kind]


def to_text(target: np.ndarray, names: Names) -> str:
    """Return one row of targets as a text for people, such as "gender Women, tags sea and sunset, year 2011"."""
    words = [f"{name} {_in_words(value)}" for name, value in to_values(target, names).items()]
    return "; ".join(words) or "unknown"


def fitted_specs(names: Sequence[str], targets: np.ndarray) -> tuple[OutputSpec, ...]:
    """Return the outputs of these columns, numbers with the mean, deviation and tolerance of `targets`, of training."""
    specs = []
    for place in placed(outputs_of(names)):
        spec, values = place.spec, targets[:, place.targets]
        if spec.kind == "number":
            known = values[~np.isnan(values)]
            off = np.abs(known - np.median(known)).mean()
            spec = replace(spec, mean=float(known.mean()), scale=float(known.std()) or 1.0, tolerance=float(off))
        specs.append(spec)
    return tuple(specs)


def _in_words(value: str | list[str] | float) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return value if isinstance(value, str) else f"{value:g}"


def _read(labels: Sequence[Sequence[Any]], names: Sequence[str] | None) -> tuple[Names, list[list[str]]]:
    """Return the columns and the texts of a program's labels; see `read_mappings`."""
    _refuse(names)
    found = read_mappings(labels)
    return names_from((text for some in found.texts for text in some), found.keys), found.texts


SEVERAL = LabelKind(
    task="several",
    read=_read,
    name=check_outputs,
    to_targets=to_targets,
    to_text=to_text,
    strata=strata_of,
)
"""Labels of several outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedLabels:
    """Labels of a kind and their names, with the texts of each split; `outputs` are the words of a `Listing`."""

    kind: LabelKind
    names: Names
    texts: list[list[str]]
    outputs: tuple[str, ...] = ()


def read_labels(
    labels: Sequence[Sequence[Any]], names: Sequence[str] | None, *, places: Sequence[Sequence[str]] | None = None
) -> NamedLabels:
    """Return labels that are mappings, see `read_mappings`; a single output of classes is classification."""
    _refuse(names)
    found = read_mappings(labels, places=places)
    columns = names_from((text for some in found.texts for text in some), found.keys)
    specs = outputs_of(columns)
    words = tuple(f"{KIND_WORDS[spec.kind]}:{spec.name}" for spec in specs)
    if len(specs) > 1 or specs[0].kind != "one":
        return NamedLabels(kind=SEVERAL, names=columns, texts=found.texts, outputs=words)
    classes = [[json.loads(text)[key_of(specs[0])] for text in some] for some in found.texts]
    return NamedLabels(kind=CLASSES, names=specs[0].classes, texts=classes, outputs=words)


def _refuse(names: Sequence[str] | None) -> None:
    if names is not None:
        raise DataError(
            f"class_names must be left out: labels of several outputs name their classes; got {brief(names)}"
        )


def to_values(target: np.ndarray, names: Names) -> dict[str, str | list[str] | float]:
    """Return what is known of one row of targets by the name of the output, as `read_mappings` takes it."""
    values: dict[str, str | list[str] | float] = {}
    for place in placed(outputs_of(names)):
        row, spec = target[place.targets], place.spec
        if np.isnan(row).any():
            continue
        if spec.kind == "many":
            values[spec.name] = [tag for tag, on in zip(spec.classes, row, strict=True) if on]
        else:
            values[spec.name] = spec.classes[int(row[0])] if spec.kind == "one" else float(row[0])
    return values


def as_several(listing: Listing) -> Listing:
    """Return the listing of a single output of classes, which is classification, as one of several outputs."""
    if listing.label_kind is not CLASSES or len(listing.outputs) != 1:
        return listing
    key = listing.outputs[0].partition(":")[2] + KIND_MARKS["one"]
    parts = {
        name: replace(part, labels=tuple(label_text({key: label}) for label in part.labels))
        for name, part in listing.parts.items()
    }
    names = names_from(text for part in parts.values() for text in part.labels)
    return replace(listing, parts=parts, class_names=names, label_kind=SEVERAL)


def absent_columns(targets: np.ndarray, names: Names) -> list[str]:
    """Return the names of the columns that targets [images, target columns] do not teach: no image has them."""
    absent = []
    for place in placed(outputs_of(names)):
        part, spec = targets[:, place.targets], place.spec
        if spec.kind == "one":
            known = set(part[~np.isnan(part)].astype(int).tolist())
            absent += [name for number, name in enumerate(spec.columns) if number not in known]
        elif spec.kind == "many":
            absent += [name for number, name in enumerate(spec.columns) if not (part[:, number] > 0).any()]
        else:
            absent += [spec.name] * bool(np.isnan(part).all())
    return absent
