"""The scoring of detectors: effnet.measurement.evaluate.Scoring."""

import os
from collections.abc import Callable, Collection

from effnet.arch.decoders.record import Detector
from effnet.data.annotated.objects import to_annotated
from effnet.data.datasets import Split
from effnet.data.sources.source import source_name
from effnet.errors import InputError
from effnet.measurement.detection.record import DetectionScore
from effnet.measurement.detection.score import score
from effnet.measurement.detection.text import lines, table, warnings_about
from effnet.measurement.in_image import answers_on
from effnet.runtimes.predictor import Predictor

__all__ = ["SCORE", "evaluate_split", "lines", "table", "warnings_about"]

SCORE = DetectionScore


def evaluate_split(
    predictor: Predictor,
    split: Split,
    *,
    unknown_from: str | os.PathLike[str] | None = None,
    leaked: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> DetectionScore:
    """Score a detector on a split; see `effnet.measurement.evaluate.evaluate`. Raises InputError for `unknown_from`."""
    if unknown_from is not None:
        raise InputError("unknown_from is for classifiers: a detector answers an image without objects with none")
    config = predictor.config
    truths, found, indices = [], [], []
    for index, image, answer in answers_on(predictor, split, progress=progress):
        name = source_name(split.sources[index], f"image {index}")
        truths.append(to_annotated(split.labels[index], path=name, size=(image.shape[1], image.shape[0])))
        found.append(answer)
        indices.append(index)
    decoder = config.arch.decoder
    assert isinstance(decoder, Detector)
    return score(
        truths,
        found,
        config.class_names,
        input_size=config.preprocess.size,
        stride=2**decoder.neck.min_level,
        threshold=config.threshold,
        indices=indices,
        leaked=leaked,
    )
