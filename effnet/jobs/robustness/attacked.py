"""Scores of a network and its exported files on images that are attacked through the network's gradient."""

from collections.abc import Callable

import numpy as np

from effnet.bundle.weights import load_module
from effnet.data.datasets import Split
from effnet.data.view.evaluation import eval_view_at
from effnet.errors import DataError, ImageError, InputError
from effnet.measurement.intervals import wilson
from effnet.measurement.robustness.formats import beside
from effnet.measurement.robustness.record import Attacked, AttackScore
from effnet.measurement.robustness.text import NETWORK
from effnet.runtimes.predictor import Predictor
from effnet.tasks.costs import decide

MOST_EPS = 64
"""The largest change of a pixel in an attack, in levels of 255."""
_STEPS, _BATCH = 10, 16

Progress = Callable[[int, int], None]


def epsilons(most: int) -> tuple[int, ...]:
    """Return the sizes of attacks to measure: 1, 2, 4 and so on below `most`, and `most`; raise InputError for others.

    They are whole levels of 255, so that a file, which takes uint8, can be given the same images.
    """
    if type(most) is not int or not 1 <= most <= MOST_EPS:
        raise InputError(
            f"the size of an attack must be a whole number of levels of 255, from 1 to {MOST_EPS}; got {most!r}"
        )
    return (*(2**power for power in range(most.bit_length()) if 2**power < most), most)


def evaluate_attacked(
    predictor: Predictor, split: Split, *, eps: int, steps: int = _STEPS, progress: Progress | None = None
) -> AttackScore:
    """Attack a classifier by FGSM and PGD up to `eps` levels of 255, and score the network and its exports.

    The exports are those of `evaluate_corrupted`. Attacks have `steps` steps and are the same at each call. Raises
    InputError for another task or size, DataError if there is no readable image.
    """
    import torch

    from effnet.training.adversarial.attacks import fgsm, pgd, standardized

    sizes = epsilons(eps)
    models = beside(predictor)
    for model in models:
        _ = model.engine
    preprocess, costs = predictor.config.preprocess, predictor.config.costs
    network = load_module(predictor.folder).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    names = (NETWORK, *(model.format.name for model in models))
    ways = [("", 0), *((method, size) for method in ("fgsm", "pgd") for size in sizes)]
    right: dict[tuple[str, str, int], int] = dict.fromkeys(((n, m, e) for n in names for m, e in ways), 0)
    done = seen = 0
    for start in range(0, len(split), _BATCH):
        indices, images = _readable(split, range(start, min(start + _BATCH, len(split))), predictor)
        done = min(start + _BATCH, len(split))
        if indices:
            seen += len(indices)
            labels = split.labels[np.array(indices)]
            targets = torch.from_numpy(labels)
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
            for method, size in ways:
                shown = pixels
                if method == "fgsm":
                    shown = fgsm(network, pixels, targets, preprocess, eps=size / 255)
                elif method == "pgd":
                    shown = pgd(network, pixels, targets, preprocess, eps=size / 255, steps=steps, generator=generator)
                with torch.no_grad():
                    scores = torch.softmax(network(standardized(shown, preprocess)), 1).numpy()  # type: ignore[operator]
                right[NETWORK, method, size] += int((decide(scores, costs) == labels).sum())
                stored = (shown * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
                for model in models:
                    found = decide(model.outputs(stored), costs) == labels
                    right[model.format.name, method, size] += int(found.sum())
        if progress:
            progress(done, len(split))
    if not seen:
        raise DataError("evaluation needs at least one readable image; there is none")
    rows = tuple(
        Attacked(format=n, method=m, eps=e, accuracy=right[n, m, e] / seen, interval=wilson(right[n, m, e], seen))
        for m, e in ways
        for n in names
    )
    return AttackScore(images=seen, unreadable=len(split) - seen, formats=names[1:], steps=steps, rows=rows)


def _readable(split: Split, indices: range, predictor: Predictor) -> tuple[list[int], np.ndarray]:
    """Return the readable images of a batch as the network takes them, uint8 [batch, R, R, C], and their indices."""
    kept, images = [], []
    for index in indices:
        try:
            images.append(eval_view_at(split, index, predictor.config.preprocess, warn=predictor.warn_once))
            kept.append(index)
        except ImageError:
            continue
    return kept, np.stack(images) if images else np.empty(0, np.uint8)
