"""From annotations to the raw outputs of a network and back: readers, letterbox, points, suppression and figures."""

import numpy as np
import pytest

from effnet.data.annotated.read import read_annotated
from effnet.data.view.letterbox import letterbox
from effnet.measurement.detection.curves import best_f1
from effnet.measurement.detection.figures import figures
from effnet.measurement.detection.matching import match
from effnet.tasks.boxes.candidates import detect
from effnet.tasks.boxes.points import boxes_at, distances_to, points
from effnet.tasks.boxes.record import Detections


def answered(image, every, *, side, num_classes, most):
    """Return what `detect` makes of the outputs that a network should have for an image, in pixels of the image."""
    place = letterbox(image.height, image.width, input_height=side, input_width=side)
    raw, logits = np.zeros((len(every), 4), np.float32), np.full((len(every), num_classes), -9.0, np.float32)
    free = np.ones(len(every), bool)
    for box, number in zip(place.to_input(image.boxes), image.classes, strict=True):
        near = np.abs(every.centres - (box[:2] + box[2:]) / 2).sum(1)
        cell = int(np.where(free, near, np.inf).argmin())
        free[cell] = False
        raw[cell] = distances_to(box[None], every.centres[cell][None], every.strides[cell][None])[0]
        logits[cell, number] = 4
    found = detect(raw, logits, lambda own, at: boxes_at(own, every.centres[at], every.strides[at]), iou=0.9, most=most)
    return Detections(boxes=place.to_image(found.boxes), scores=found.scores, classes=found.classes)


def test_all_cards_are_found_again(shared_data):
    cards = read_annotated(str(shared_data("cards")))
    images, every = cards.parts["test"], points(320, 320)
    number = len(cards.class_names)
    answers = [answered(image, every, side=320, num_classes=number, most=100) for image in images]
    matches = match(images, answers, num_classes=number)
    found = figures(matches)
    assert (found.ap, found.ap50, found.ar_100) == pytest.approx((1, 1, 1))
    assert best_f1(matches).f1 == 1


def test_a_hundred_detections_are_too_few_for_the_nuclei(shared_data):
    images = sorted(read_annotated(str(shared_data("nuclei"))).images, key=lambda image: len(image.boxes))[-3:]
    assert len(images[-1].boxes) == 329
    every = points(640, 640)
    recalls = []
    for most in (100, 400):
        answers = [answered(image, every, side=640, num_classes=1, most=most) for image in images]
        matches = match(images, answers, num_classes=1, max_detections=most)
        recalls.append(figures(matches, max_detections=(1, 10, most)).ar_100)
    assert recalls[0] == pytest.approx(300 / sum(len(image.boxes) for image in images))
    assert recalls[1] > 0.99
