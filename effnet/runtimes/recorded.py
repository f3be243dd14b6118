"""proof.json of a bundle: what its files answered when they were proven, so that a device can prove them again.

The images are computed, the same on every machine, and not of the training data: a bundle shows nobody's images. An
entry counts only for the file that it was recorded for, by its SHA-256.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.config import write_text
from effnet.bundle.formats import Format
from effnet.bundle.model_file import read_model, sha256
from effnet.bundle.names import PROOF
from effnet.errors import BundleError
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import FORMATS, RUNTIMES
from effnet.system.files import read_json

_FORMAT, _IMAGES = 1, 2
# Of a detector's hundreds of thousands of values, these many are kept: every one depends on the whole network.
_MOST_VALUES = 512


def probe_images(predictor: Predictor) -> np.ndarray:
    """Return the images of the proof as the model takes them, uint8 [2, height, width, channels]: smooth and rough."""
    (height, width), channels = predictor.config.preprocess.size, predictor.config.preprocess.channels
    rows, columns, bands = np.meshgrid(*map(np.arange, (height, width, channels)), indexing="ij")
    smooth = (rows * 255 // height + columns * 127 // width + 40 * bands) % 256
    rough = (rows * 37 + columns * 101 + bands * 59) % 251
    return np.stack([smooth, rough]).astype(np.uint8)


def kept_values(rows: np.ndarray) -> np.ndarray:
    """Return the values of rows [images, columns] that a proof holds, evenly spaced."""
    return rows[:, :: max(1, -(-rows.shape[1] // _MOST_VALUES))]


def record_answers(predictor: Predictor, folder: Path) -> None:
    """Write what the predictor's file answers now into proof.json in `folder`, beside the entries of other formats."""
    target = predictor.format
    if not (predictor.folder / target.file).is_file():  # a format that is a folder
        return
    values = kept_values(predictor.outputs(probe_images(predictor)))
    entry = {
        "sha256": sha256(read_model(predictor.folder / target.file)),
        "values": [[float(f"{value:.7g}") for value in row] for row in values.tolist()],
    }
    try:
        found = _read(folder)
    except BundleError:  # it is damaged, and is written again
        found = {}
    found[target.name] = entry
    write_text(folder / PROOF, json.dumps({"format": _FORMAT, "answers": found}, allow_nan=False) + "\n")


def record_each(folder: Path, names: Iterable[str], *, into: Path) -> None:
    """Record what each of these formats of the bundle `folder` answers in the folder `into`, if it can run here.

    A file of embeddings, which is not among FORMATS, has no answers.
    """
    for target in (FORMATS[name] for name in dict.fromkeys(names) if name in FORMATS):
        if RUNTIMES[target.runtime].can_run:
            record_answers(Predictor(folder, format=target.name), into)


def recorded_answers(folder: Path, target: Format) -> np.ndarray | None:
    """Return the kept values of a format's file, float32 [images, values]; None if there are none for its file.

    Raises BundleError if proof.json is damaged.
    """
    entry = _read(folder).get(target.name)
    if entry is None or not (folder / target.file).is_file():
        return None
    try:
        if entry["sha256"] != sha256(read_model(folder / target.file)):
            return None  # it was written again since
        values = np.array(entry["values"], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{folder / PROOF} must hold the answers of each format; {target.name} is damaged") from error
    if values.ndim != 2 or len(values) != _IMAGES or not np.isfinite(values).all():
        raise BundleError(f"{folder / PROOF} must hold finite answers to {_IMAGES} images; {target.name} has others")
    return values


def _read(folder: Path) -> dict[str, Any]:
    path = folder / PROOF
    try:
        data = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} must be JSON: {error}; `effnet export` writes it again") from error
    answers = data.get("answers") if isinstance(data, dict) and data.get("format") == _FORMAT else None
    if not isinstance(answers, dict):
        raise BundleError(f"{path} must be the proof of a bundle; it is not: `effnet export` writes it again")
    return answers
