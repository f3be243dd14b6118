"""What the labels of a data set are: the classes of the images, or what another task learns."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet.errors import DataError
from effnet.system.text import brief, printable

if TYPE_CHECKING:
    from effnet.data.sources.source import Part

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelKind:
    """One kind of labels: how the texts of a listing become the targets of a data set, and back.

    `task` is the name of the task (effnet.tasks) that learns them. All functions are those of a module, so that a data
    set can be sent to other processes:

    - `read(labels, names)` takes a program's labels, one sequence for each split, and the names given with them or
      None; it returns the names and the labels as texts, as a manifest would hold them.
    - `name(parts, order, strict)` returns the names of what the network outputs, and notes for people. It raises
      DataError if nothing can be learnt from these parts.
    - `to_targets(texts, names)` returns an array [images, ...] of any type, `to_text(target, names)` one of its rows as
      a text for people.
    - `strata(texts)` returns what a split made by effnet is stratified by: one text for each label, or a tuple of them.

    If `classes`, a target is a class: an index into the names.
    """

    task: str
    read: Callable[[Sequence[Sequence[Any]], Sequence[str] | None], tuple[Names, list[list[str]]]]
    name: Callable[[Mapping[str, "Part"], Sequence[str], bool], tuple[Names, list[str]]]
    to_targets: Callable[[Sequence[str], Names], np.ndarray]
    to_text: Callable[[Any, Names], str]
    strata: Callable[[Sequence[str]], Sequence[str] | Sequence[tuple[str, ...]]]
    classes: bool = False


def class_name(text: str) -> str:
    """Return the label that a folder or manifest names: NFC, as macOS and Linux store "é" differently.

    Bytes that are not UTF-8, as in old archives, become escapes: a label must fit into JSON and ONNX.
    """
    valid = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return unicodedata.normalize("NFC", valid).strip()


def check_classes(
    parts: Mapping[str, "Part"], *, order: Sequence[str] = (), strict: bool
) -> tuple[tuple[str, ...], list[str]]:
    """Return the class names, sorted or in their `order`, and notes on classes that are too small to be held out.

    Raises:
        DataError: fewer than two classes, or one without an image in train; with strict, one with only 1.
    """
    counts = Counter(parts["train"].labels)
    absent = sorted({*order, *(label for part in parts.values() for label in part.labels)} - set(counts))
    if absent:
        shown = ", ".join(printable(name) for name in absent)
        raise DataError(f"every class must have images in train, but these have none there: {shown}")
    if len(counts) < 2:
        only = ", ".join(printable(name) for name in counts)
        raise DataError(
            f"at least two classes are needed, received {len(counts)} ({only}); "
            "add another class, or give the folder that holds the class folders"
        )
    small = sorted(name for name, count in Counter(_all_labels(parts)).items() if count < 2)
    untested = sorted(counts.keys() - set(parts["test"].labels) - set(small)) if "test" in parts else []
    notes = []
    if untested:
        shown = ", ".join(printable(name) for name in untested)
        notes = [
            f"These classes have no test images (all may be copies or in one group) and cannot be measured: {shown}."
        ]
    class_names = tuple(order or sorted(counts))
    if not small:
        return class_names, notes
    shown = ", ".join(printable(name) for name in small)
    if strict:
        raise DataError(f"strict needs at least 2 images per class, but these have fewer: {shown}")
    return class_names, [
        *notes,
        f"Classes with fewer than 2 images are in train only and cannot be measured: {shown}.",
    ]


def _all_labels(parts: Mapping[str, "Part"]) -> list[str]:
    return [label for part in parts.values() for label in part.labels]


def _name_classes(parts: Mapping[str, "Part"], order: Sequence[str], strict: bool) -> tuple[Names, list[str]]:
    return check_classes(parts, order=order, strict=strict)


def _read_classes(labels: Sequence[Sequence[Any]], class_names: Sequence[str] | None) -> tuple[Names, list[list[str]]]:
    names = _class_names(labels, class_names)
    return names, [[_named(label, names) for label in some] for some in labels]


def _class_names(labels: Sequence[Sequence[Any]], class_names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the class names in order: those given, else the labels' own, sorted, or numbers up to the highest."""
    every = [label for some in labels for label in some]
    if class_names is None and all(isinstance(label, str) for label in every):
        class_names = sorted(set(every))
    if class_names is None:
        highest = max((label for label in every if _is_whole(label)), default=-1)
        if highest >= len(every):  # it would be a class without images, among many
            raise DataError(f"labels must number the classes from 0; got {highest} among {len(every)} labels")
        class_names = [str(number) for number in range(highest + 1)]
    names = tuple(class_name(text) if isinstance(text, str) else "" for text in class_names)
    if not all(names) or len(set(names)) < len(names):
        raise DataError(f"class names must be texts that differ from each other; got {brief(list(class_names))}")
    return names


def _named(label: Any, names: Sequence[str]) -> str:
    """Return the class name of a label: a name, or a number that counts the names from 0."""
    if isinstance(label, str):
        if (text := class_name(label)) in names:
            return text
    elif _is_whole(label) and 0 <= label < len(names):
        return names[int(label)]
    raise DataError(f"a label must be one of the {len(names)} class names, or its number from 0; got {brief(label)}")


def _is_whole(label: Any) -> bool:
    return isinstance(label, int | np.integer) and not isinstance(label, bool)


def _number_classes(texts: Sequence[str], names: Names) -> np.ndarray:
    numbers = {name: number for number, name in enumerate(names)}
    return np.fromiter((numbers[text] for text in texts), dtype=np.int64, count=len(texts))


def _class_of(target: Any, names: Names) -> str:
    return names[target]


def _themselves(texts: Sequence[str]) -> Sequence[str]:
    return texts


CLASSES = LabelKind(
    task="classification",
    read=_read_classes,
    name=_name_classes,
    to_targets=_number_classes,
    to_text=_class_of,
    strata=_themselves,
    classes=True,
)
"""Labels that are the names of classes, each image of one."""
