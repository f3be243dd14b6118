"""A data set's labels as a bundle numbers its classes."""

import os
import re

import numpy as np

from effnet.data.datasets import Split, read_dataset
from effnet.errors import DataError, nearest
from effnet.runtime.config import ModelConfig
from effnet.weights.class_names import wnid_names

_WORDNET_ID = re.compile(r"n\d{8}")


def labelled_split(data: str | os.PathLike[str], part: str, *, config: ModelConfig, seed: int | None = None) -> Split:
    """Returns one part (train, val, test or all) of `labelled_splits`."""
    splits = labelled_splits(data, config=config, seed=seed)
    wanted = list(splits.values()) if part == "all" else [splits[part]]
    sources = [source for split in wanted for source in split.sources]
    return Split(sources=sources, labels=np.concatenate([split.labels for split in wanted]))


def labelled_splits(data: str | os.PathLike[str], *, config: ModelConfig, seed: int | None = None) -> dict[str, Split]:
    """Returns train, val and test of a data set, their labels as the model numbers its classes.

    Data without splits are split with `seed` or, by default, the seed that the model's own were split with.
    WordNet ids (n01440764) name ImageNet's classes as well. Raises DataError where the data have a class that the
    model does not know.
    """
    seed = (config.split_seed or 0) if seed is None else seed
    dataset = read_dataset(data, seed=seed, channels=config.preprocess.channels)
    known = {name: number for number, name in enumerate(config.class_names)}
    if any(_WORDNET_ID.fullmatch(name) for name in set(dataset.class_names) - known.keys()):
        known |= {wnid: known[name] for wnid, name in wnid_names().items() if name in known}
    for name in dataset.class_names:
        if name not in known:
            count = len(config.class_names)
            raise DataError(f"the model knows no class {name!r}{nearest(name, known)}; it knows {count} classes")
    numbers = np.array([known[name] for name in dataset.class_names], dtype=np.int64)
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    return {name: Split(sources=split.sources, labels=numbers[split.labels]) for name, split in splits.items()}
