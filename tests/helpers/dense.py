"""Ground truth plus noise as the answers of detectors and segmenters, their scores, and reports on them."""

from dataclasses import replace

import numpy as np
from detected import detected, truth
from pages import sample

from effnet.measurement.detection import score as detection
from effnet.measurement.segmentation import score as segmentation
from effnet.system.records import to_data
from effnet.tasks import detection as detection_task
from effnet.tasks import segmentation as segmentation_task


def noisy_boxes(truths, num_classes, *, seed=0, drop=0.2, extra=0.3, jitter=0.08, swap=0.08):
    """Return detections: the objects moved, some dropped, some of another class, and some boxes of nothing."""
    rng = np.random.default_rng(seed)
    answers = []
    for image in truths:
        kept = rng.random(len(image.boxes)) > drop
        boxes = image.boxes[kept]
        boxes = boxes + rng.normal(0, jitter, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        classes = np.where(rng.random(len(boxes)) < swap, rng.integers(0, num_classes, len(boxes)), image.classes[kept])
        number = rng.poisson(extra * max(1, len(image.boxes)))
        low = rng.random((number, 2)) * (0.8 * image.width, 0.8 * image.height)
        every = np.concatenate((boxes, np.concatenate((low, low + 1 + 0.2 * image.width * rng.random(low.shape)), 1)))
        every[:, 2:] = np.maximum(every[:, 2:], every[:, :2] + 1)
        scores = np.concatenate((rng.normal(0.75, 0.15, len(boxes)), rng.normal(0.35, 0.15, number))).clip(0.05, 0.99)
        answers.append(detected(every, scores, np.concatenate((classes, rng.integers(0, num_classes, number)))))
    return answers


def noisy_mask(mask, num_classes, *, seed=0):
    """Return a coarse and shifted copy of a mask, with discs of other classes."""
    rng = np.random.default_rng(seed)
    height, width = mask.shape
    found = np.roll(mask[::4, ::4].repeat(4, axis=0).repeat(4, axis=1)[:height, :width], 2, axis=1)
    found = np.where(found == 255, 0, found).astype(np.uint8)
    y, x = np.ogrid[:height, :width]
    for _ in range(int(rng.integers(0, 4))):
        down, across, radius = rng.integers(0, height), rng.integers(0, width), rng.integers(2, max(3, height // 5))
        found[(y - down) ** 2 + (x - across) ** 2 < radius**2] = rng.integers(0, num_classes)
    return found


def made_boxes(images, names, *, seed=0):
    """Return annotated images with objects of all sizes."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(images):
        number = int(rng.integers(0, 6))
        low = rng.uniform(0, 200, (number, 2))
        sides = 2.0 ** rng.uniform(2, 6.5, (number, 2))
        image = truth(np.concatenate((low, low + sides), 1), rng.integers(0, len(names), number))
        made.append(replace(image, path=f"folder/{i}.png"))
    return made


def detection_score(names=("cat", "dog", "owl"), *, images=20, seed=0, noise=None, **kwargs):
    """Return the score of a detector of such images."""
    truths = made_boxes(images, names, seed=seed)
    answers = noisy_boxes(truths, len(names), seed=seed, **noise or {})
    return detection.score(truths, answers, names, **{"input_size": (320, 320), "threshold": 0.5} | kwargs)


def segmentation_score(names=("background", "road", "lake"), *, images=6, seed=0, **kwargs):
    """Return the score of a segmenter of stripes and blocks."""
    counted = []
    for i in range(images):
        rng = np.random.default_rng(seed + i)
        true = rng.integers(0, len(names), (6, 8)).astype(np.uint8).repeat(10, axis=0).repeat(12, axis=1)
        true[:3] = 255
        found = noisy_mask(true, len(names), seed=seed + i)
        counted.append(segmentation.count_image(true, found, num_classes=len(names), source=f"folder/{i}.png", index=i))
    return segmentation.score(counted, names, **kwargs)


def dense_report(score, names, *, annotations=None):
    """Return a whole report of a detector or segmenter as report.json holds it."""
    task = (detection_task if isinstance(score, detection.DetectionScore) else segmentation_task).TASK
    some = {key: value for key, value in sample().items() if not key.startswith("test_")}
    epochs = [
        {key: value for key, value in epoch.items() if key != "val_accuracy"} | {f"val_{task.figure.key}": 0.5}
        for epoch in some["training"]["epochs"]
    ]
    dataset = some["dataset"] | {"class_names": list(names)}
    return (
        some
        | {f"test_{key}": to_data(value) for key, value in score.headline.items()}
        | {
            "task": task.name,
            "test": to_data(score),
            "dataset": dataset | ({"annotations": to_data(annotations)} if annotations else {}),
            "training": some["training"] | {"epochs": epochs},
            "warnings": [],
        }
    )
