"""Count coins: a detector from images with boxes and a budget, and what it finds on an image it has not seen.

python examples/detection.py --epochs 60 --out effnet-coins      (it needs effnet[train], and makes its own images)
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

import effnet
from effnet.data.annotated.objects import OBJECTS

COLOURS = {"gold": (230, 190, 60), "silver": (200, 205, 215), "copper": (190, 110, 60)}


def table(rng: np.random.Generator, *, height: int = 120, width: int = 160) -> tuple[np.ndarray, dict]:
    """Return an image of one to five coins, uint8 [height, width, 3], and its label: size, boxes and names."""
    pixels = np.full((height, width, 3), (90, 70, 60)) + rng.normal(0, 12, (height, width, 1))
    y, x = np.mgrid[:height, :width]
    boxes, labels = [], []
    for _ in range(rng.integers(1, 6)):
        radius, name = int(rng.integers(10, 18)), str(rng.choice(list(COLOURS)))
        left, top = int(rng.integers(0, width - 2 * radius)), int(rng.integers(0, height - 2 * radius))
        away = np.hypot(y - top - radius, x - left - radius)
        pixels[away < radius] = np.array(COLOURS[name]) * rng.uniform(0.8, 1.1)
        pixels[(away < 0.8 * radius) & (away > 0.7 * radius)] *= 0.7
        boxes.append([left, top, left + 2 * radius, top + 2 * radius])
        labels.append(name)
    return pixels.clip(0, 255).astype(np.uint8), {"size": (width, height), "boxes": boxes, "labels": labels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("effnet-coins"))
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    images, labels = zip(*(table(rng) for _ in range(args.images)), strict=True)
    coins = effnet.Dataset.from_arrays(list(images), list(labels), label_kind=OBJECTS, name="coins")
    result = effnet.fit(coins, weights="none", max_macs=30e6, epochs=args.epochs, out=args.out)
    test = result.report.test
    off = test.counted.mean_error
    print(f"AP {test.ap:.1%}, AP50 {test.ap50:.1%} on {test.images} images; counts off by {off:.2f}")

    image, truth = table(rng)
    model = effnet.load(args.out)
    (found,) = model.predict(image)
    print("found:", dict(Counter(model.config.class_names[kind] for kind in found.classes)))
    print("there are:", dict(Counter(truth["labels"])))


if __name__ == "__main__":
    main()
