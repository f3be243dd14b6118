"""The verb evaluate: a bundle on labelled images as they are, corrupted, or attacked."""

import os
from collections.abc import Collection, Sequence
from typing import Any

from effnet.data.datasets import DataLike, Split
from effnet.errors import InputError
from effnet.measurement.evaluate import Progress
from effnet.measurement.evaluate import evaluate as evaluate_plain
from effnet.runtimes.predictor import Predictor
from effnet.weights.labels import choose_images


def evaluate(
    predictor: Predictor,
    data: Split | DataLike,
    *,
    unknown_from: str | os.PathLike[str] | None = None,
    leaked: Collection[str] = (),
    corruptions: bool = False,
    severity: int | Sequence[int] | None = None,
    adversarial: int | None = None,
    progress: Progress | None = None,
) -> Any:
    """Score the bundle's deployed file on labelled images; the result is that of its task.

    For a classifier it is a ClassificationScore (effnet.measurement.classification.score), for several outputs a
    SeveralScore (effnet.measurement.several.score). `data` is a split, whose labels
    index the bundle's class names, or what `read_dataset` takes. Of the data that the bundle was fitted on, the test
    split is scored; of others, all images.

    With `corruptions` a classifier is scored on images after each camera corruption at `severity`, one or several of 1
    to 5 (default 1, 3 and 5), in fp32 and int8 side by side if the bundle has both: the result is a CorruptionScore
    (effnet.measurement.robustness.record). With `adversarial`, levels of 255, it is scored on images attacked by FGSM
    and PGD up to that size, which needs torch: an AttackScore.

    `unknown_from` is a folder of images of none of the classes, to measure how many are rejected. `leaked` are the
    paths or names of images of which training has seen copies: accuracy is given without them as well. `progress`
    is called with the images done and in all. Raises DataError if the split or that folder is empty, InputError for
    options that exclude each other.
    """
    check_options(
        corruptions=corruptions, severity=severity, adversarial=adversarial, unknown_from=unknown_from is not None
    )
    if not corruptions and adversarial is None:
        return evaluate_plain(predictor, data, unknown_from=unknown_from, leaked=leaked, progress=progress)
    split = data
    if not isinstance(split, Split):
        split = choose_images(split, folder=predictor.folder, config=predictor.config).split
    if adversarial is not None:
        from effnet.jobs.robustness.attacked import evaluate_attacked

        return evaluate_attacked(predictor, split, eps=adversarial, progress=progress)
    from effnet.measurement.robustness.corrupted import evaluate_corrupted

    return evaluate_corrupted(predictor, split, severities=severity, progress=progress)


def check_options(
    *, corruptions: bool, severity: int | Sequence[int] | None, adversarial: int | None, unknown_from: bool
) -> None:
    """Raise InputError for options of `evaluate` that exclude each other or lack another."""
    if corruptions and adversarial is not None:
        raise InputError("corruptions and adversarial are two measurements: give one of them at a time")
    if severity is not None and not corruptions:
        raise InputError("severity is that of corruptions: give corruptions too, or leave it out")
    if unknown_from and (corruptions or adversarial is not None):
        raise InputError("unknown_from is measured on images as they are: leave it out, or corruptions and adversarial")
