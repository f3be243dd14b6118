"""A data set without the images that cannot be used."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from effnet.data.datasets import Dataset, Split
from effnet.data.order import Blocks
from effnet.data.several.outputs import SEVERAL, absent_columns
from effnet.data.sources.source import Skipped, refuse_if_strict, source_name
from effnet.errors import DataError
from effnet.system.text import printable


def drop(dataset: Dataset, paths: Collection[str], *, reason: str | Mapping[str, str]) -> Dataset:
    """Return the data set without these paths or names; add them to `skipped` with the reason (or one each).

    Raises:
        DataError: a class has no image left in train, or a split none at all.
    """
    gone = frozenset(paths)
    present = {
        name
        for split in (dataset.train, dataset.val, dataset.test)
        for source in split.sources
        if (name := source_name(source, "")) in gone
    }
    if not present:
        return dataset
    splits: dict[str, Any] = {name: _without(getattr(dataset, name), present) for name in ("train", "val", "test")}
    for name, split in splits.items():
        if not len(split):
            raise DataError(f"the split {name} has no usable image left after {len(present)} were dropped")
    empty = [printable(name) for name in _untaught(dataset, splits["train"])]
    if empty:
        raise DataError(f"these classes have no usable image left in train: {', '.join(empty)}")
    added = tuple(
        Skipped(path=path, reason=reason if isinstance(reason, str) else reason[path]) for path in sorted(present)
    )
    return replace(dataset, **splits, skipped=dataset.skipped + added)


def _untaught(dataset: Dataset, train: Split) -> list[str]:
    """Return the classes, tags and outputs without an image in train; other labels have none of these."""
    if dataset.label_kind is SEVERAL:
        return absent_columns(train.labels, dataset.class_names)
    left = set(np.unique(train.labels).tolist()) if dataset.label_kind.classes else None
    return [] if left is None else [name for number, name in enumerate(dataset.class_names) if number not in left]


def without_unreadable(dataset: Dataset, unreadable: Iterable[Skipped], *, strict: bool = False) -> Dataset:
    """Return the data set without the files that inspection could not decode; raise DataError if strict."""
    found = tuple(unreadable)
    refuse_if_strict(found, strict=strict)
    reasons = {item.path: item.reason for item in found}
    return drop(dataset, reasons.keys(), reason=reasons)


def _without(split: Split, paths: Collection[str]) -> Split:
    kept = [i for i, source in enumerate(split.sources) if source_name(source, "") not in paths]
    blocks = split.blocks and Blocks(numbers=split.blocks.numbers[kept], mixed=split.blocks.mixed)
    return Split(sources=tuple(split.sources[i] for i in kept), labels=split.labels[kept], blocks=blocks)
