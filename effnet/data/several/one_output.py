"""One output of classes among several, as a data set for classification."""

from dataclasses import replace
from typing import Any

import numpy as np

from effnet.data.datasets import Dataset, Split
from effnet.data.labels import CLASSES
from effnet.data.order import Blocks
from effnet.data.several.outputs import outputs_of, placed


def as_classes(dataset: Dataset, output: str) -> Dataset:
    """Return the data set of one output of classes among several: the images where it is known, as classification."""
    specs = {place.spec.name: place for place in placed(outputs_of(dataset.class_names))}
    place = specs[output]
    splits: dict[str, Any] = {name: _known(getattr(dataset, name), place.targets) for name in ("train", "val", "test")}
    return replace(dataset, **splits, class_names=place.spec.classes, label_kind=CLASSES, listed=None)


def _known(split: Split, column: slice) -> Split:
    """Return the images whose target in this column is known, with that target as the number of a class."""
    values = split.labels[:, column.start]
    chosen = np.flatnonzero(~np.isnan(values))
    blocks = split.blocks and Blocks(numbers=split.blocks.numbers[chosen], mixed=split.blocks.mixed)
    sources = [split.sources[index] for index in chosen.tolist()]
    return Split(sources=sources, labels=values[chosen].astype(np.int64), blocks=blocks)
