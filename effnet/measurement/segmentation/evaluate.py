"""The scoring of segmenters: effnet.measurement.evaluate.Scoring."""

import os
from collections.abc import Callable, Collection

from effnet.data.annotated.masks.labels import header_of
from effnet.data.datasets import Split
from effnet.data.sources.source import source_name
from effnet.errors import InputError
from effnet.measurement.in_image import answers_on
from effnet.measurement.segmentation.record import SegmentationScore
from effnet.measurement.segmentation.score import count_image, score
from effnet.measurement.segmentation.text import lines, table, warnings_about
from effnet.runtimes.predictor import Predictor

__all__ = ["SCORE", "evaluate_split", "lines", "table", "warnings_about"]

SCORE = SegmentationScore


def evaluate_split(
    predictor: Predictor,
    split: Split,
    *,
    unknown_from: str | os.PathLike[str] | None = None,
    leaked: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> SegmentationScore:
    """Score a segmenter on a split; see `measurement.evaluate.evaluate`. Raises InputError for `unknown_from`."""
    if unknown_from is not None:
        raise InputError("unknown_from is for classifiers: a segmenter gives every pixel a class")
    names = predictor.config.class_names
    counted = [
        count_image(
            split.labels[index].read(header_of(split, index, image)),
            answer.mask,
            num_classes=len(names),
            source=source_name(split.sources[index], f"image {index}"),
            index=index,
        )
        for index, image, answer in answers_on(predictor, split, progress=progress)
    ]
    return score(counted, names, leaked=leaked)
