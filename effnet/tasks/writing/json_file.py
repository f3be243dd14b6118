"""Predictions as JSON: what each image holds, for programs."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effnet.data.annotated.masks.codes import IGNORE
from effnet.system.files import written_whole
from effnet.system.records import to_data
from effnet.tasks.boxes.record import Detections
from effnet.tasks.classification import Prediction
from effnet.tasks.several import Answers, Tags


def prediction_data(found: Prediction) -> dict[str, Any]:
    """Return the classes of one image as JSON-able data."""
    data: dict[str, Any] = {
        "known": found.known,
        "predictions": [
            {"label": label, "probability": round(p, 6)}
            for label, p in zip(found.labels, found.probabilities, strict=True)
        ],
    }
    parents = {name: round(p, 6) for name, p in found.parents.items()}
    return data | {"parents": parents} if parents else data


def answers_data(found: Answers) -> dict[str, Any]:
    """Return the answers of several outputs to one image as JSON-able data."""
    return {"outputs": {name: _answer_data(answer) for name, answer in found.items()}}


def _answer_data(answer: Prediction | Tags | float) -> Any:
    if isinstance(answer, Tags):
        return {
            "tags": list(answer.present),
            "probabilities": {tag: round(p, 6) for tag, p in answer.probabilities.items()},
        }
    return prediction_data(answer) if isinstance(answer, Prediction) else answer


def detections_data(
    found: Detections, class_names: Sequence[str], *, path: str, width: int, height: int
) -> dict[str, Any]:
    """Return the objects of one image as JSON-able data, the highest score first.

    A box is left, top, right, bottom in pixels of the upright image, which has this width and height.
    """
    order = np.argsort(-found.scores, kind="stable").tolist()
    objects = [
        {
            "label": class_names[int(found.classes[i])],
            "score": round(float(found.scores[i]), 6),
            "box": [round(float(side), 3) for side in found.boxes[i]],
        }
        for i in order
    ]
    data: dict[str, Any] = to_data({"path": path, "width": width, "height": height, "objects": objects})
    return data


def mask_data(mask: np.ndarray, class_names: Sequence[str], *, path: str, file: str) -> dict[str, Any]:
    """Return the mask of one image, [height, width], as JSON-able data: its file, and the share of each class in it.

    Classes without a pixel are left out; ignored pixels, 255, do not count.
    """
    height, width = mask.shape
    counts = np.bincount(mask.ravel(), minlength=IGNORE + 1)[: len(class_names)]
    total = max(1, int(counts.sum()))
    shares = {class_names[i]: round(int(counts[i]) / total, 6) for i in np.flatnonzero(counts).tolist()}
    data: dict[str, Any] = to_data({"path": path, "width": width, "height": height, "mask": file, "shares": shares})
    return data


def write_rows(rows: Iterable[Any], path: Path) -> None:
    """Write JSON-able values as a list, one a line, whole or not at all; they need not be in memory together."""
    with written_whole(path) as beside, open(beside, "w", encoding="utf-8", newline="\n") as file:
        before = "[\n"
        for row in rows:
            file.write(before + json.dumps(row, ensure_ascii=False, allow_nan=False))
            before = ",\n"
        file.write("[]\n" if before == "[\n" else "\n]\n")
