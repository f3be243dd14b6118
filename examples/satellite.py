"""Satellite tiles of eight bands in different units, the pages of a TIFF file: a fit, and the range of each band.

python examples/satellite.py --out effnet-fields      (it needs effnet[train], and makes its own tiles)
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import effnet

# Reflectance times 10,000 in blue, green, red, red edge, near and short-wave infrared; kelvins times 10; millimetres
# of water vapour.
SPECTRA = {
    "healthy": (300, 700, 400, 2200, 4200, 1800, 2960, 20),
    "dry": (350, 700, 500, 1700, 3300, 2600, 3010, 20),
    "bare": (900, 1200, 1600, 1900, 2400, 3000, 3060, 20),
}
NOISE = (60, 80, 90, 200, 350, 250, 12, 4)


def tile(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return a field of 48 x 48 pixels, uint16 [48, 48, 8], with rows of plants, haze and sensor noise."""
    rows = 1 + 0.15 * np.sin(np.arange(48) * rng.uniform(0.6, 1.2) + rng.uniform(0, 6.3))[:, None, None]
    light = rng.uniform(0.8, 1.2) * rows * np.array([1] * 6 + [0] * 2) + np.array([0] * 6 + [1] * 2)
    haze = rng.uniform(0, 300) * np.array((1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0))
    values = np.array(SPECTRA[kind]) * light + haze + rng.normal(0, 1, (1, 1, 8)) * NOISE
    return np.clip(values + rng.normal(0, 0.5, (48, 48, 8)) * NOISE, 0, 65535).astype(np.uint16)


def write(path: Path, bands: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = (Image.fromarray(bands[..., i]) for i in range(bands.shape[2]))
    first.save(path, save_all=True, append_images=others, compression="tiff_lzw")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, default=Path("effnet-fields"))
parser.add_argument("--tiles", type=int, default=120)
parser.add_argument("--epochs", type=int, default=20)
args = parser.parse_args()

rng = np.random.default_rng(0)
with tempfile.TemporaryDirectory() as root:
    for kind in SPECTRA:
        for number in range(args.tiles):
            write(Path(root, "fields", kind, f"{number:03d}.tif"), tile(kind, rng))
    report = effnet.fit(Path(root, "fields"), weights="none", max_macs=5e6, epochs=args.epochs, out=args.out).report
    print(*report.dataset.notes, f"test accuracy {report.test.accuracy:.1%}", sep="\n")
    model = effnet.load(args.out)
    print("bands:", model.config.preprocess.channels, "ranges:", model.config.preprocess.value_range)
    write(Path(root, "new.tif"), tile("dry", rng))
    print("a new tile:", model.predict(Path(root, "new.tif"))[0].label)
