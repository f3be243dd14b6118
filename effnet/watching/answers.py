"""What a bundle answers to a frame, as scores of names, objects and JSON-able data."""

from collections import deque

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.data.hierarchy import parents
from effnet.data.images.decode import fit_channels
from effnet.errors import InputError
from effnet.runtimes.predictor import Predictor
from effnet.tasks.boxes.record import Detections
from effnet.tasks.classification import PROBABILITIES, UNKNOWN, over_frames
from effnet.tasks.masks.record import Segmented
from effnet.tasks.writing.json_file import answers_data, detections_data, mask_data, prediction_data
from effnet.watching.record import Seen, Thing
from effnet.watching.rules.monitor import Names

_TOP = 5


def names_of(config: ModelConfig) -> Names:
    """Return the names that a bundle answers with; raise InputError for one that cannot answer to frames of videos."""
    preprocess = config.preprocess
    if preprocess.channels not in (1, 3) or preprocess.sound is not None:
        what = "spectrograms of sounds" if preprocess.sound is not None else f"{preprocess.channels} channels"
        raise InputError(f"frames are colour or grey images; the model takes {what}")
    if config.task_record.whole is not None:
        return Names(labels=config.class_names, objects=config.task == "detection")
    if config.specs:
        return Names(labels=config.class_names)
    if config.output.name != PROBABILITIES.name:
        raise InputError(
            f"watch needs a model that answers with classes, tags, objects or masks; this one returns "
            f"{config.output.meaning}: `effnet zeroshot` or `effnet fit` makes a classifier"
        )
    return Names(
        labels=(*config.class_names, *(name for name, _ in _parents(config)), UNKNOWN),
        exclusive=len(config.class_names),
    )


def _parents(config: ModelConfig) -> list[tuple[str, list[int]]]:
    found = parents(config.class_names)
    if not any(len(leaves) > 1 for leaves in found.values()):
        return []
    return [(name, list(leaves)) for name, leaves in found.items() if name not in config.class_names]


def answer_to(predictor: Predictor, image: np.ndarray, *, threshold: float | None = None) -> Seen:
    """Return the answer of a bundle to an upright colour image, uint8 [height, width, 3]."""
    config = predictor.config
    pixels = fit_channels(image, config.preprocess.channels)
    if config.task_record.whole is not None:
        found = predictor.answer_in(pixels, threshold=threshold)
        height, width = image.shape[:2]
        if isinstance(found, Detections):
            return _of_objects(found, config, width=width, height=height)
        return _of_mask(found, config)
    row = predictor.outputs(predictor.prepare(pixels)[None], scored=True)[0]
    return of_row(row, config, threshold=predictor.chosen_threshold(threshold))


def of_row(row: np.ndarray, config: ModelConfig, *, threshold: float | None) -> Seen:
    """Return the answer from a row [columns] of a classifier, or of a model of several outputs.

    That of a classifier may have the score as one more column.
    """
    found = config.task_record.answer(row, config.class_names, top=_TOP, threshold=threshold)
    row = row[: len(config.class_names)]
    if config.specs:
        return Seen(scores=row.astype(np.float64), data=answers_data(found))
    sums = [row[leaves].sum() for _, leaves in _parents(config)]
    scores = np.concatenate([row, sums, [0.0 if found.known else 1.0]]).astype(np.float64)
    return Seen(scores=scores, data=prediction_data(found), row=row)


class Window:
    """The answer of a model of clips: to the frames of the latest seconds of one source together."""

    def __init__(self, config: ModelConfig, *, threshold: float | None) -> None:
        assert config.preprocess.clip is not None
        self._config, self._threshold, self._seconds = config, threshold, config.preprocess.clip.seconds
        self._rows: deque[tuple[float, np.ndarray]] = deque()

    def see(self, seen: Seen, at: float) -> Seen:
        """Return the answer to all frames of the window, given that to the frame at a time, which grows."""
        if seen.row is None:
            return seen
        self._rows.append((at, seen.row))
        while self._rows[0][0] <= at - self._seconds:
            self._rows.popleft()
        row = over_frames(np.stack([row for _, row in self._rows]))
        return of_row(row, self._config, threshold=self._threshold)

    def reset(self) -> None:
        """Forget all frames: those that follow are of another time."""
        self._rows.clear()


def _of_objects(found: Detections, config: ModelConfig, *, width: int, height: int) -> Seen:
    boxes = found.boxes / np.array([width, height, width, height])
    things = tuple(
        Thing(label=int(label), score=float(score), box=(box[0], box[1], box[2], box[3]))
        for label, score, box in zip(found.classes, found.scores, boxes.tolist(), strict=True)
    )
    scores = np.zeros(len(config.class_names))
    np.maximum.at(scores, found.classes, found.scores)
    data = detections_data(found, config.class_names, path="", width=width, height=height)
    return Seen(scores=scores, things=things, data={name: value for name, value in data.items() if name != "path"})


def _of_mask(found: Segmented, config: ModelConfig) -> Seen:
    data = mask_data(found.mask, config.class_names, path="", file="")
    shown = {name: value for name, value in data.items() if name not in ("path", "mask")}
    shares = np.zeros(len(config.class_names))
    shares[: len(found.shares)] = found.shares
    return Seen(scores=shares, data=shown)
