"""Map fields, water and roads: a segmenter from images with masks and a budget, and the shares of a new image.

python examples/segmentation.py --epochs 40 --out effnet-terrain      (it needs effnet[train], and makes its own images)
"""

import argparse
from pathlib import Path

import numpy as np

import effnet
from effnet.data.annotated.masks.labels import MASKS

COLOURS = {"field": (70, 140, 60), "water": (50, 90, 170), "road": (150, 145, 140)}


def land(rng: np.random.Generator, *, height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Return an image, uint8 [height, width, 3], and the class of each pixel, uint8 [height, width]."""
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(0, 3)):
        centre, radius = rng.uniform(0, (height, width)), rng.uniform(10, 30)
        mask[np.hypot(y - centre[0], x - centre[1]) < radius * (1 + 0.2 * np.sin(x / 5))] = 1
    middle, slope = rng.uniform(0, height), rng.uniform(-0.5, 0.5)
    mask[np.abs(y - middle - slope * x) < 4] = 2
    pixels = np.array(list(COLOURS.values()))[mask] * rng.uniform(0.8, 1.1) + rng.normal(0, 15, (height, width, 1))
    return pixels.clip(0, 255).astype(np.uint8), mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("effnet-terrain"))
    args = parser.parse_args()

    rng, names = np.random.default_rng(0), list(COLOURS)
    images, masks = zip(*(land(rng) for _ in range(args.images)), strict=True)
    terrain = effnet.Dataset.from_arrays(list(images), list(masks), label_kind=MASKS, class_names=names, name="terrain")
    result = effnet.fit(terrain, weights="none", max_macs=30e6, epochs=args.epochs, out=args.out)
    print(f"mIoU {result.report.test.miou:.1%} on {result.report.test.images} images")

    image, truth = land(rng)
    (found,) = effnet.load(args.out).predict(image)
    for number, name in enumerate(names):
        print(f"{name}: {found.shares[number]:.1%}, in truth {(truth == number).mean():.1%}")


if __name__ == "__main__":
    main()
