"""Images of bright and dark rectangles with their boxes, and a narrow detector that learns them in seconds."""

import dataclasses

import numpy as np

from effnet import get_spec
from effnet.arch.decoders.usual import with_detector
from effnet.arch.scale import scale
from effnet.data.annotated.objects import OBJECTS, to_targets
from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.nn.dense import build_dense

SIDE = 64
PREPROCESS = Preprocess(resolution=SIDE, crop=1.0, mean=(0.5,), std=(0.25,))
NAMES = ("bright", "dark")


def rectangles(rng, *, side=SIDE, most=3, least=14):
    """Return a grey image with up to `most` rectangles that do not overlap, and its label."""
    image = np.full((side, side, 1), 128, np.int64) + rng.integers(-12, 13, (side, side, 1))
    boxes, labels, strip = [], [], side // most
    for number in range(most):
        if number and rng.random() < 0.4:
            continue
        wide, high = int(rng.integers(least, strip + 1)), int(rng.integers(least, side // 2))
        left, top = number * strip + int(rng.integers(0, strip - wide + 1)), int(rng.integers(0, side - high))
        label = int(rng.integers(2))
        image[top : top + high, left : left + wide] += (90, -90)[label]
        boxes.append([left, top, left + wide, top + high])
        labels.append(NAMES[label])
    return np.clip(image, 0, 255).astype(np.uint8), {"size": (side, side), "boxes": boxes, "labels": labels}


def rectangle_split(number, *, seed=0, **options):
    """Return a split of `number` images."""
    rng = np.random.default_rng(seed)
    images, labels = zip(*(rectangles(rng, **options) for _ in range(number)), strict=True)
    _, (texts,) = OBJECTS.read([labels], NAMES)
    return Split(sources=list(images), labels=to_targets(texts, NAMES))


def rectangle_set(number=24, val=8, **options):
    """Return a data set of rectangles."""
    return Dataset(
        name="rectangles",
        class_names=NAMES,
        channels=1,
        train=rectangle_split(number, **options),
        val=rectangle_split(val, seed=1, **options),
        test=rectangle_split(4, seed=2, **options),
        mirror_safe=True,
        label_kind=OBJECTS,
    )


def narrow_detector(*, classes=2, seed=0, **changes):
    """Return the narrowest detector of B0's family."""
    backbone = scale(get_spec("b0", in_channels=1), phi=-12, resolution=SIDE)
    spec = with_detector(backbone, classes, channels=16, cells=1, repeats=1, max_level=5)
    return build_dense(dataclasses.replace(spec, **changes), seed=seed)
