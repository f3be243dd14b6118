"""The answers to one image as JSON, in the form of `effnet predict --format json`."""

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from effnet.data.annotated.masks.shapes import rle_of, text_of
from effnet.runtimes.shown import shown_maps
from effnet.serving.batches.work import Times
from effnet.serving.versions.version import Version
from effnet.tasks.classification import Prediction
from effnet.tasks.embedding import EMBEDDING
from effnet.tasks.writing.images import mask_image
from effnet.tasks.writing.json_file import answers_data, detections_data, mask_data, prediction_data

MASKS = ("none", "png", "rle")
"""How the mask of a segmenter is answered: not at all, as a PNG file in base64, or as COCO's run lengths by class."""


def written(version: Version, data: dict[str, Any], times: Times) -> bytes:
    """Return an answer as JSON, with the model that gave it and its times."""
    whole = {"model": version.name, "version": version.version, **data, "time_ms": times.in_ms()}
    return json.dumps(whole, ensure_ascii=False, allow_nan=False).encode()


def row_data(
    version: Version,
    row: np.ndarray,
    *,
    top: int,
    threshold: float | None,
    seen: Callable[[Version, Prediction], None],
) -> dict[str, Any]:
    """Return the answer to one image as JSON-able data, from its row [columns] of a task without places in the image.

    A classifier answers with classes, a model of several outputs with each of them, an image encoder with a vector.
    `seen` is called with the answer of a classifier.
    """
    config, predictor = version.config, version.first
    found = config.task_record.answer(row, config.class_names, top=top, threshold=predictor.chosen_threshold(threshold))
    if config.specs:
        return answers_data(found)
    if config.task_record.output.name == EMBEDDING.name:
        return vector_data(found)
    seen(version, found)
    return prediction_data(found)


def heat_data(version: Version, row: np.ndarray, maps: np.ndarray) -> dict[str, Any]:
    """Return the activation maps of one answer as JSON-able data, from its row [columns] and its maps.

    `maps` are [columns, height, width]. The values of each map shown are shares of its `limit`, from -1 to 1. `view` is
    the part of the upright image that they cover: in mode "center" a square in its middle, whose side is `share` of the
    shorter one; in mode "squash" that share of both sides; in mode "pad" a square around it, of the longer side.
    """
    config = version.config
    least = version.first.chosen_threshold(None)
    answer = config.task_record.answer(row, config.class_names, top=2, threshold=least)
    size, crop = config.preprocess.resolution, config.preprocess.crop
    found = []
    for shown in shown_maps(config, row[: len(config.class_names)], maps, answer):
        limit = float(np.abs(shown.map).max()) or 1.0
        values = [[round(value, 3) for value in line] for line in (shown.map / limit).tolist()]
        found.append(
            {"output": shown.output, "of": shown.title, "value": shown.value, "limit": float(f"{limit:.4g}"),
             "map": values}
        )  # fmt: skip
    return {"view": {"mode": config.preprocess.mode, "share": size / int(size / crop)}, "maps": found}


def vector_data(vector: np.ndarray) -> dict[str, Any]:
    """Return an embedding as JSON-able data."""
    return {EMBEDDING.name: [float(f"{value:.7g}") for value in vector.tolist()]}


def place_data(version: Version, found: Any, image: np.ndarray, *, mask: str) -> dict[str, Any]:
    """Return the answer of a detector or a segmenter to an upright image, [height, width, channels], as data."""
    names = version.config.class_names
    if not hasattr(found, "mask"):
        data = detections_data(found, names, path="", width=image.shape[1], height=image.shape[0])
    else:
        data = mask_data(found.mask, names, path="", file="")
        write = {"none": None, "png": png_data, "rle": rle_data}[mask]
        data["mask"] = None if write is None else write(found.mask, names)
    del data["path"]
    return data


def png_data(mask: np.ndarray, names: tuple[str, ...]) -> str:
    """Return a mask [height, width] as a PNG file, see `tasks.writing.images.write_mask`, in base64."""
    file = io.BytesIO()
    mask_image(mask, names).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def rle_data(mask: np.ndarray, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the pixels of each class that a mask [height, width] has as COCO's compressed run lengths."""
    height, width = mask.shape
    found = []
    for number in np.unique(mask).tolist():
        if number >= len(names):
            continue
        found.append({"label": names[number], "size": [height, width], "counts": text_of(rle_of(mask == number))})
    return found
