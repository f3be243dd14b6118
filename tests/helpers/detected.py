"""Annotated images and detections for tests, without files, and their figures by pycocotools."""

import contextlib
import io

import numpy as np

from effnet.data.annotated.record import Annotated
from effnet.tasks.boxes.record import Detections


def truth(boxes, classes=None, *, crowd=None, difficult=None, areas=None, size=(400, 300)):
    """Return an annotated image; `boxes` are left, top, right, bottom."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    number = len(boxes)
    sides = boxes[:, 2:] - boxes[:, :2]
    return Annotated(
        path="1.png",
        width=size[0],
        height=size[1],
        boxes=boxes,
        classes=np.zeros(number, np.int64) if classes is None else np.asarray(classes, np.int64).reshape(number),
        difficult=np.zeros(number, bool) if difficult is None else np.asarray(difficult, bool).reshape(number),
        crowd=np.zeros(number, bool) if crowd is None else np.asarray(crowd, bool).reshape(number),
        areas=sides[:, 0] * sides[:, 1] if areas is None else np.asarray(areas, np.float64).reshape(number),
    )


def detected(boxes, scores, classes=None):
    """Return the detections of an image."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    number = len(boxes)
    return Detections(
        boxes=boxes,
        scores=np.asarray(scores, np.float64).reshape(number),
        classes=np.zeros(number, np.int64) if classes is None else np.asarray(classes, np.int64).reshape(number),
    )


def random_set(rng, *, images, objects, found, num_classes):
    """Return annotated images, and detections most of which lie near an object."""
    truths, answers = [], []
    for _ in range(images):
        number = int(rng.integers(0, objects + 1))
        low = rng.integers(0, 300, (number, 2))
        sides = rng.integers(2, 130, (number, 2))
        boxes = np.concatenate((low, low + sides), axis=1)
        classes = rng.integers(0, num_classes, number)
        truths.append(
            truth(
                boxes,
                classes,
                crowd=rng.random(number) < 0.15,
                areas=np.prod(sides, axis=1) * rng.uniform(0.3, 1, number),
            )
        )
        near = rng.integers(0, max(number, 1), int(rng.integers(0, found + 1))) if number else np.empty(0, np.int64)
        moved = boxes[near] + rng.integers(-12, 13, (len(near), 4)) if number else np.empty((0, 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1) if len(moved) else moved[:, 2:]
        far = rng.integers(0, 300, (int(rng.integers(0, 4)), 2))
        far = np.concatenate((far, far + rng.integers(1, 150, far.shape)), axis=1)
        every = np.concatenate((moved.reshape(-1, 4), far))
        labels = rng.integers(0, num_classes, len(every))
        labels[: len(near)] = np.where(rng.random(len(near)) < 0.8, classes[near], labels[: len(near)])
        answers.append(detected(every, np.round(rng.random(len(every)), 2), labels))
    return truths, answers


def by_pycocotools(truths, answers, *, num_classes, max_detections=(1, 10, 100)):
    """Return pycocotools' evaluation of the same, after `summarize`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def as_xywh(box):
        left, top, right, bottom = map(float, box)
        return [left, top, right - left, bottom - top]

    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(1, len(truths) + 1)],
        "categories": [{"id": i, "name": str(i)} for i in range(1, num_classes + 1)],
        "annotations": [],
    }
    for i, image in enumerate(truths, 1):
        for j in range(len(image.boxes)):
            coco.dataset["annotations"].append(
                {
                    "id": len(coco.dataset["annotations"]) + 1,
                    "image_id": i,
                    "category_id": int(image.classes[j]) + 1,
                    "bbox": as_xywh(image.boxes[j]),
                    "area": float(image.areas[j]),
                    "iscrowd": int(image.crowd[j]),
                }
            )
    results = [
        {
            "image_id": i,
            "category_id": int(answer.classes[j]) + 1,
            "bbox": as_xywh(answer.boxes[j]),
            "score": float(answer.scores[j]),
        }
        for i, answer in enumerate(answers, 1)
        for j in range(len(answer.boxes))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        found = COCO()
        found.dataset = {**coco.dataset, "annotations": []}
        found.createIndex()
        found = coco.loadRes(results) if results else found
        evaluation = COCOeval(coco, found, "bbox")
        evaluation.params.maxDets = list(max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
