"""Surfaces photographed with 12 bits: a fit that finds faint scratches and dents, and what it says of other parts.

python examples/industrial.py --out effnet-surfaces      (it needs effnet[train], and makes its own surfaces)
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import effnet

KINDS = ("good", "scratch", "dent")


def surface(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return brushed metal, uint16 [64, 64] of 12 bits: a defect changes it by a few percent of its brightness."""
    y, x = np.mgrid[:64, :64].astype(float)
    brushed = rng.normal(0, 12, (64, 1)) + rng.normal(0, 10, (64, 64))
    shading = 80 * np.cos((x - rng.uniform(0, 64)) / 64) + 60 * np.cos((y - rng.uniform(0, 64)) / 64)
    metal = rng.uniform(1200, 1700) + brushed + shading
    if kind == "scratch":
        angle, place = rng.uniform(0.3, 2.8), rng.uniform(-8, 8)
        across = (x - 32) * np.sin(angle) - (y - 32) * np.cos(angle) - place
        metal += rng.uniform(70, 120) * np.exp(-(across**2) / 1.5)
    if kind == "dent":
        away = np.hypot(x - rng.uniform(16, 48), y - rng.uniform(16, 48))
        metal -= rng.uniform(90, 140) * np.exp(-((away - 4) ** 2) / 8)
    return np.clip(np.rint(metal), 0, 4095).astype(np.uint16)


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)  # a PNG file of 16 bits


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, default=Path("effnet-surfaces"))
parser.add_argument("--parts", type=int, default=200)
parser.add_argument("--epochs", type=int, default=30)
args = parser.parse_args()

rng = np.random.default_rng(0)
with tempfile.TemporaryDirectory() as root:
    for kind in KINDS:
        for number in range(args.parts):
            write(Path(root, "surfaces", kind, f"{number:03d}.png"), surface(kind, rng))
    report = effnet.fit(Path(root, "surfaces"), weights="none", max_macs=5e6, epochs=args.epochs, out=args.out).report
    print(*report.dataset.notes, f"test accuracy {report.test.accuracy:.1%}", sep="\n")
    for row in report.test.per_class:
        print(f"  {row.name}: recall {row.recall:.0%} of {row.support}, precision {row.precision:.0%}")
    write(Path(root, "new.png"), surface("scratch", rng))
    print("a new part:", effnet.load(args.out).predict(Path(root, "new.png"))[0].label)
