"""Objects without effnet: a detector's model.onnx, and in numpy its letterbox, points and suppression (NMS).

python examples/detection_onnxruntime_only.py detector/model.onnx coins.jpg
"""

import json
import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import: ONNX Runtime 1.32 sends telemetry

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def cells(height: int, width: int) -> np.ndarray:
    """Return centre x, y and width, height of every cell of levels 3 to 6, [n, 4] in pixels, in the file's order."""
    shapes = [(-(-height // 2**level), -(-width // 2**level)) for level in range(3, 7)]
    sides = [(width / columns, height / rows, rows, columns) for rows, columns in shapes]
    return np.array([((x + 0.5) * w, (y + 0.5) * h, w, h) for w, h, m, n in sides for y in range(m) for x in range(n)])


def suppress(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float = 0.6) -> list[int]:
    """Return the boxes to keep, best first: no box of a better one's class may overlap it by more than `iou`."""
    kept, areas, left = [], np.prod(boxes[:, 2:] - boxes[:, :2], 1), np.argsort(-scores, kind="stable")[:1000]
    while len(left):
        kept, best, left = [*kept, left[0]], left[0], left[1:]
        sides = np.minimum(boxes[left, 2:], boxes[best, 2:]) - np.maximum(boxes[left, :2], boxes[best, :2])
        shared = np.prod(np.maximum(sides, 0), 1)
        left = left[(shared <= iou * (areas[left] + areas[best] - shared)) | (classes[left] != classes[best])]
    return kept


def main(model: str, *paths: str) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    names, preprocess = json.loads(metadata["class_names"]), json.loads(metadata["preprocess"])
    width, fill = preprocess["resolution"], tuple(int(255 * mean + 0.5) for mean in preprocess["mean"])
    height = preprocess.get("height", width)
    for path in paths:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
        w, h = image.size
        inner = (max(1, height * w // h), height) if height * w <= width * h else (width, max(1, width * h // w))
        canvas = Image.new("RGB", (width, height), fill)  # the image is resized in proportion, to its top left
        canvas.paste(image.resize(inner, Image.Resampling[preprocess["interpolation"].upper()]))
        raw, logits = session.run(["boxes", "scores"], {"image": np.asarray(canvas)[None]})
        scores = 1 / (1 + np.exp(-logits[0]))
        places, classes = np.nonzero(scores >= float(metadata["threshold"]))
        cell, away = cells(height, width)[places], np.exp(np.minimum(raw[0, places], 6)) * (-1, -1, 1, 1)
        boxes = cell[:, [0, 1, 0, 1]] + away * cell[:, [2, 3, 2, 3]]  # left, top, right, bottom
        for i in suppress(boxes, scores[places, classes], classes):
            box = np.clip(boxes[i] * np.tile((w / inner[0], h / inner[1]), 2), 0, (w, h, w, h))
            if (box[2:] > box[:2]).all():  # what lies in the padding is nothing in the image
                print(f"{path}: {names[classes[i]]} {scores[places[i], classes[i]]:.3f}", *np.round(box, 1))


if __name__ == "__main__":
    main(*sys.argv[1:])
