"""Predictions of an export on labelled images, in its own runtime."""

from collections.abc import Callable
from functools import partial

import numpy as np

from effnet.data.clips.frames import by_clip
from effnet.data.datasets import Split
from effnet.data.view.evaluation import eval_view_at
from effnet.errors import DataError
from effnet.runtimes.pipeline import run_images
from effnet.runtimes.predictor import Predictor
from effnet.system.machine import usable_cores
from effnet.tasks.classification import over_frames


def predict_split(
    predictor: Predictor,
    split: Split,
    *,
    scored: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the outputs [images, outputs] of a split's readable images, such as probabilities, and their indices.

    With `scored` the score is one more column, if the bundle has one, and its file returns it. A clip, of whose frames
    the images are, has one row, the answer to all of them, and the index of the first. Raises DataError if there is
    none.
    """
    if not len(split):
        raise DataError("evaluation needs at least one labelled image; the split is empty")
    preprocess = predictor.config.preprocess
    _ = predictor.engine  # a model that does not match fails before any image is prepared for it
    rows, found = run_images(
        range(len(split)),
        prepare=lambda index: eval_view_at(split, index, preprocess, warn=predictor.warn_once),
        compute=partial(predictor.outputs, scored=True) if scored else predictor.outputs,
        workers=usable_cores(),
        progress=progress,
    )
    if not rows:
        raise DataError("evaluation needs at least one readable image; there is none")
    clips = by_clip(split.sources, found)
    if clips is None:
        return np.stack(rows), np.array(found)
    classes = predictor.engine.classes
    answers = []
    for clip in clips:
        each = np.stack([rows[i] for i in clip])
        answers.append(np.concatenate([over_frames(each[:, :classes]), each[:, classes:].mean(0)]))
    return np.stack(answers), np.array([found[clip[0]] for clip in clips])


def right_answers(
    predictor: Predictor, split: Split, *, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Return whether the export's answer to each image of `split` is right, bool [images]; unreadable ones are wrong.

    What is right the task says (`Task.right`), which must; of several outputs, int8 [images, columns]. Raises DataError
    as `predict_split` does.
    """
    is_right = predictor.config.task_record.right
    assert is_right is not None
    rows, indices = predict_split(predictor, split, progress=progress)
    found = is_right(rows, split.labels[indices])
    right = np.zeros((len(split), *found.shape[1:]), dtype=found.dtype)
    right[indices] = found
    if (clips := by_clip(split.sources, range(len(split)))) is not None:
        for clip in clips:  # an answer to a clip is one to each of its frames
            right[clip] = right[clip].max(0)
    return right
