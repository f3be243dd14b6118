"""Small sets of annotated images as people have them: coins in Pascal VOC, terrain with coloured masks."""

from pathlib import Path

import numpy as np
from PIL import Image

COINS = {"coin": (230, 190, 60), "button": (60, 90, 220)}
TERRAIN = {"field": (60, 140, 60), "water": (40, 80, 180), "road": (150, 150, 150)}
COLOURS = {"field": (0, 255, 0), "water": (0, 0, 255), "road": (128, 128, 128)}

_BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
_OBJECT = f"<object><name>{{}}</name>{_BOX}</object>"


def write_coins(folder: Path, *, images: int = 24, height: int = 120, width: int = 160) -> Path:
    """Write images of one to three discs, and a file of Pascal VOC for each."""
    rng = np.random.default_rng(0)
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True)
    y, x = np.mgrid[:height, :width]
    for number in range(images):
        pixels = np.full((height, width, 3), 110, np.uint8) + rng.integers(-20, 20, (height, width, 1)).astype(np.uint8)
        objects = []
        for _ in range(rng.integers(1, 4)):
            name, side = str(rng.choice(list(COINS))), int(rng.integers(24, 44))
            left, top = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
            pixels[(y - top - side / 2) ** 2 + (x - left - side / 2) ** 2 < (side / 2) ** 2] = COINS[name]
            objects.append(_OBJECT.format(name, left, top, left + side, top + side))
        Image.fromarray(pixels).save(folder / "images" / f"{number:02d}.jpg")
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{number:02d}.jpg</filename>{size}{''.join(objects)}</annotation>"
        (folder / "annotations" / f"{number:02d}.xml").write_text(text, encoding="utf-8")
    return folder


def write_terrain(folder: Path, *, images: int = 24, height: int = 96, width: int = 128) -> Path:
    """Write three images of each scene, a mask of colours for each, and the table of the colours."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    y, x = np.mgrid[:height, :width]
    for number in range(images):
        classes, road = np.zeros((height, width), np.int64), int(rng.integers(10, height - 10))
        centre = rng.integers(10, height - 10), rng.integers(10, width - 10)
        classes[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < rng.integers(15, 40) ** 2] = 1
        classes[road : road + 8] = 2
        pixels = np.array(list(TERRAIN.values()))[classes] + rng.integers(-20, 20, (height, width, 1))
        stem = f"scene{number // 3}_{number % 3}"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{stem}.jpg")
        mask = np.array(list(COLOURS.values()), np.uint8)[classes]
        Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")
    rows = [f"{name},{','.join(map(str, colour))}" for name, colour in COLOURS.items()]
    (folder / "classes.csv").write_text("\n".join(["name,r,g,b", *rows]) + "\n", encoding="utf-8")
    return folder
