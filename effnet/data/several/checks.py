"""Check that labels of several outputs can be learnt: every output, class and tag has images in train."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet.data.labels import Names
from effnet.data.several.values import names_from, split_key
from effnet.errors import DataError
from effnet.system.text import printable, shortened

if TYPE_CHECKING:
    from effnet.data.sources.source import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What one part holds of each output, by key: images where it is known, images of each class or tag, values."""

    known: Counter[str]
    classes: Counter[tuple[str, str]]
    values: Mapping[str, set[float]]


def _seen(part: "Part") -> _Seen:
    seen = _Seen(known=Counter(), classes=Counter(), values={})
    values: dict[str, set[float]] = {}
    for text in part.labels:
        for key, value in json.loads(text).items():
            seen.known[key] += 1
            kind = split_key(key)[1]
            if kind == "number":
                values.setdefault(key, set()).add(value)
            seen.classes.update((key, name) for name in ([value] if kind == "one" else value if kind == "many" else ()))
    return _Seen(known=seen.known, classes=seen.classes, values=values)


def check_outputs(parts: Mapping[str, "Part"], order: Sequence[str], strict: bool) -> tuple[Names, list[str]]:
    """Return the names of the columns for these labels, or `order` if it is given, and notes on what is not measured.

    Raises:
        DataError: an output, a class or a tag has no image in train, an output can have one answer only; with strict, a
            class or tag has only 1 image.
    """
    seen = {name: _seen(part) for name, part in parts.items()}
    train = seen["train"]
    every = {(key, name) for some in seen.values() for key, name in some.classes}
    names = tuple(order) or names_from(text for part in parts.values() for text in part.labels)
    if not names:
        raise DataError("at least one output must be known of one image; none is")
    keys = dict.fromkeys(_parted(name)[0] for name in names)
    _check_train(train, keys, every | {_parted(name) for name in order})
    totals = sum((some.classes for some in seen.values()), Counter())
    small = [found for found in sorted(totals) if totals[found] < 2]
    if strict and small:
        raise DataError(f"strict needs at least 2 images per class and tag, but these have fewer: {_shown(small)}")
    notes = []
    for key in keys:
        for part in ("val", "test"):
            if part in seen and not seen[part].known[key]:
                notes.append(f"No image of {part} has a known {_title(key)}, so it cannot be measured there.")
        always = sorted(name for k, name in train.classes if k == key and train.classes[k, name] == train.known[key])
        notes += [f"Every image of train has the tag {printable(name)} of {_title(key)}." for name in always]
    if "test" in seen:
        measured = {key for key in keys if seen["test"].known[key]}
        absent = sorted(found for found in every if found[0] in measured and not seen["test"].classes[found])
        notes += [f"These classes and tags have no test images and cannot be measured: {_shown(absent)}."] * bool(
            absent
        )
    return names, notes


def _check_train(train: _Seen, keys: Iterable[str], every: set[tuple[str, str]]) -> None:
    """Raise DataError unless train teaches each output and each of its classes."""
    for key in keys:
        if not train.known[key]:
            raise DataError(
                f"the output {_title(key)} must be known of at least one image of train; it is of none: leave it out"
            )
    absent = sorted(found for found in every if found[1] and not train.classes[found])
    if absent:
        raise DataError(
            f"every class and tag must have images in train, but these have none there: {_shown(absent)}; move some "
            "there, empty these cells, or leave the output out"
        )
    for key in keys:
        kind = split_key(key)[1]
        own = [name for k, name in train.classes if k == key]
        if kind == "one" and len(own) < 2:
            raise DataError(
                f"the output {_title(key)} must have at least two classes; got {len(own)} ({printable(own[0])}): leave "
                "it out"
            )
        if kind == "number" and len(train.values[key]) < 2:
            raise DataError(
                f"the output {_title(key)} must have at least two values in train; all are "
                f"{next(iter(train.values[key])):g}: leave it out"
            )


def _parted(name: str) -> tuple[str, str]:
    """Return the key of an output and its class or tag from the name of a column; the class of a number is empty."""
    at = min((place for mark in "=:" if (place := name.find(mark)) >= 0), default=len(name))
    return name[: at + 1], name[at + 1 :]


def _title(key: str) -> str:
    return printable(split_key(key)[0])


def _shown(found: Sequence[tuple[str, str]]) -> str:
    return shortened(", ".join(f"{printable(name)} ({_title(key)})" for key, name in found))
