"""Predictions as YOLO's text files: class, centre, width and height as shares of the image, and the score."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effnet.errors import DataError
from effnet.system.files import written_whole
from effnet.system.text import one_line
from effnet.tasks.boxes.record import Detections


def write_yolo_names(class_names: Sequence[str], folder: Path) -> None:
    """Write data.yaml, the names of the classes by their numbers, into an existing folder."""
    # YAML's quotes hold no control characters.
    lines = [f"  {i}: '{one_line(name).replace(chr(39), 2 * chr(39))}'" for i, name in enumerate(class_names)]
    _write(folder / "data.yaml", "\n".join(["names:", *lines, ""]))


def write_yolo(found: Detections, folder: Path, *, name: str, width: int, height: int) -> Path:
    """Write the objects of one image of this size into labels/NAME.txt, and return its path.

    The file is empty if there are none. Boxes are clipped to the image; those outside are left out. The sixth number
    of a line is the score. `name` is one of `effnet.tasks.writing.names.output_names`.
    """
    if width < 1 or height < 1:
        raise DataError(f"the sides of an image must be at least 1; got {width} x {height}")
    size = np.array([width, height, width, height], np.float64)
    boxes = np.clip(found.boxes.astype(np.float64) / size, 0, 1)
    inside = np.logical_and(boxes[:, 2] > boxes[:, 0], boxes[:, 3] > boxes[:, 1])
    order = np.argsort(-found.scores, kind="stable")
    lines = []
    for i in order[inside[order]].tolist():
        left, top, right, bottom = boxes[i].tolist()
        numbers = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top, float(found.scores[i]))
        lines.append(" ".join([str(int(found.classes[i])), *(f"{value:.6f}" for value in numbers)]))
    path = folder / "labels" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, "".join(f"{line}\n" for line in lines))
    return path


def _write(path: Path, text: str) -> None:
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")
