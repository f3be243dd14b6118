"""Scores of exported files on corrupted images: the same corrupted image to each of them."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from effnet.data.corruptions.kinds import KINDS, check, corrupt
from effnet.data.datasets import Split
from effnet.data.preprocess import resize_and_crop
from effnet.data.view.evaluation import eval_image_at
from effnet.errors import DataError
from effnet.measurement.classification import calibration
from effnet.measurement.intervals import wilson
from effnet.measurement.robustness.formats import beside
from effnet.measurement.robustness.record import CLEAN, Condition, CorruptionScore, Gap, Mean, severities_of
from effnet.runtimes.pipeline import run_images
from effnet.runtimes.predictor import Predictor
from effnet.system.machine import usable_cores
from effnet.tasks.costs import decide

Progress = Callable[[int, int], None]

_RESAMPLES = 1000
# Weights of images in all resamplings at once take this many bytes at most.
_MOST_WEIGHTS = 2**26


def evaluate_corrupted(
    predictor: Predictor,
    split: Split,
    *,
    severities: Sequence[int] | int | None = None,
    kinds: Sequence[str] = tuple(KINDS),
    progress: Progress | None = None,
) -> CorruptionScore:
    """Score a bundle's exports on a split after each of `kinds` of corruption, at `severities` (1, 3 and 5).

    Images are corrupted as decoded, before they are resized (effnet.data.corruptions). The exports are the bundle's
    own, or that of `predictor`, and those of the same runtime in fp32 and int8 if it has them. Raises InputError for
    another task than classification, DataError if there is no readable image.
    """
    chosen = severities_of(severities)
    for kind in kinds:
        for severity in chosen:
            check(kind, severity)
    models = beside(predictor)
    if not len(split):
        raise DataError("evaluation needs at least one labelled image; the split is empty")
    for model in models:
        _ = model.engine  # one that does not match fails before any image is prepared
    views = [(CLEAN, 0), *((kind, severity) for kind in kinds for severity in chosen)]
    rows, found = run_images(
        range(len(split)),
        prepare=partial(_views, split, predictor, views),
        compute=partial(_answers, models),
        workers=usable_cores(),
        progress=progress,
    )
    if not rows:
        raise DataError("evaluation needs at least one readable image; there is none")
    answers = np.stack(rows)  # [images, exports, views, classes]
    return _score(answers, split, found, models, views, chosen)


def _views(split: Split, predictor: Predictor, views: Sequence[tuple[str, int]], index: int) -> np.ndarray:
    """Return all views of an image as the network takes them, uint8 [views, R, R, C]."""
    preprocess = predictor.config.preprocess
    with eval_image_at(split, index, preprocess, warn=predictor.warn_once) as image:
        return np.stack(
            [
                resize_and_crop(image if kind == CLEAN else corrupt(image, kind, severity), preprocess)
                for kind, severity in views
            ]
        )


def _answers(models: Sequence[Predictor], images: np.ndarray) -> np.ndarray:
    """Return the probabilities [batch, exports, views, classes] of images [batch, views, R, R, C]."""
    found = [[model.outputs(views) for views in images] for model in models]
    return np.stack([np.stack(each) for each in found], axis=1)


def _score(
    answers: np.ndarray,
    split: Split,
    found: Sequence[int],
    models: Sequence[Predictor],
    views: Sequence[tuple[str, int]],
    severities: tuple[int, ...],
) -> CorruptionScore:
    labels, costs = split.labels[np.array(found)], models[0].config.costs
    names = tuple(model.format.name for model in models)
    weights = _weights(len(labels))
    right = np.stack(
        [[decide(answers[:, m, v], costs) == labels for v in range(len(views))] for m in range(len(models))]
    )  # [exports, views, images]
    conditions = tuple(
        _condition(answers[:, m, v], right[m, v], labels, weights, format=name, kind=kind, severity=severity)
        for v, (kind, severity) in enumerate(views)
        for m, name in enumerate(names)
    )
    means = tuple(_mean(right[m], weights, [c for c in conditions if c.format == names[m]]) for m in range(len(models)))
    gap = _gap(right, weights, names) if len(models) > 1 else None
    return CorruptionScore(
        images=len(labels),
        unreadable=len(split) - len(labels),
        formats=names,
        severities=severities,
        conditions=conditions,
        means=means,
        gap=gap,
    )


def _weights(images: int, *, seed: int = 0) -> np.ndarray:
    """Return how often each image is drawn in each resampling, as shares, float32 [resamplings, images]."""
    count = max(100, min(_RESAMPLES, _MOST_WEIGHTS // (4 * images)))
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), count)
    return (drawn / images).astype(np.float32)


def _condition(
    probabilities: np.ndarray, right: np.ndarray, labels: np.ndarray, weights: np.ndarray, **names: object
) -> Condition:
    confidence = probabilities.max(1).astype(np.float64)
    number = np.clip(np.ceil(confidence * calibration.BINS).astype(int) - 1, 0, calibration.BINS - 1)
    # Calibration concerns the top class, whatever costs decide.
    off = (probabilities.argmax(1) == labels) - confidence
    of_bins = np.zeros((len(labels), calibration.BINS), np.float32)
    of_bins[np.arange(len(labels)), number] = off
    return Condition(
        accuracy=float(right.mean()),
        interval=wilson(int(right.sum()), len(right)),
        ece=calibration.expected_calibration_error(probabilities, labels),
        ece_interval=_percentiles(np.abs(weights @ of_bins).sum(1)),
        confidence=float(confidence.mean()),
        **names,  # type: ignore[arg-type]
    )


def _mean(right: np.ndarray, weights: np.ndarray, conditions: Sequence[Condition]) -> Mean:
    """Return the mean over the corruptions of one export, whose right answers are bool [views, images]."""
    clean, corrupted = right[0], right[1:].mean(0)
    return Mean(
        format=conditions[0].format,
        accuracy=float(corrupted.mean()),
        interval=_percentiles(weights @ corrupted.astype(np.float32)),
        relative_drop=float(1 - corrupted.mean() / clean.mean()) if clean.any() else 0.0,
        ece=float(np.mean([each.ece for each in conditions if each.kind != CLEAN])),
    )


def _gap(right: np.ndarray, weights: np.ndarray, names: Sequence[str]) -> Gap:
    """Return what the last export loses more than the first on corrupted images than on clean ones."""
    clean = right[-1, 0].astype(np.float32) - right[0, 0]
    corrupted = (right[-1, 1:].mean(0) - right[0, 1:].mean(0)).astype(np.float32)
    return Gap(
        format=names[-1],
        other=names[0],
        clean=float(clean.mean()),
        corrupted=float(corrupted.mean()),
        interval=_percentiles(weights @ (corrupted - clean)),
    )


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
