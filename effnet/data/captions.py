"""Labels that are captions, the texts of images."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from effnet.data.labels import LabelKind
from effnet.errors import DataError

if TYPE_CHECKING:
    from effnet.data.sources.source import Part


def _texts(labels: Sequence[Sequence[Any]], names: Sequence[str] | None) -> tuple[tuple[str, ...], list[list[str]]]:
    every = [[str(label).strip() for label in some] for some in labels]
    if not all(caption for some in every for caption in some):
        raise DataError("every image must have a caption; one is empty: leave its image out")
    return tuple(names or ()), every


def _no_names(parts: Mapping[str, "Part"], order: Sequence[str], strict: bool) -> tuple[tuple[str, ...], list[str]]:
    return tuple(order), []


def _captions(texts: Sequence[str], names: tuple[str, ...]) -> np.ndarray:
    return np.array([*texts, None], dtype=object)[:-1]  # of texts alone numpy would make a padded array


def _caption(target: Any, names: tuple[str, ...]) -> str:
    return str(target)


def _alike(texts: Sequence[str]) -> Sequence[str]:
    return [""] * len(texts)


CAPTIONS = LabelKind(
    task="embedding",
    read=_texts,
    name=_no_names,
    to_targets=_captions,
    to_text=_caption,
    strata=_alike,
)
"""Labels that are captions: a split is not stratified by them."""
