"""Learn a class, tags and a number from the same images with one network, and predict all three:

    python examples/several_outputs.py made

The images are made here: a plate of a size, bright or dark, with scratches or stains or neither. A manifest names the
outputs; an empty cell is unknown. With images of your own, write such a manifest and run `effnet fit plates.csv`.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import effnet

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "made")
folder.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(0)
rows = []
for number in range(480):
    size, bright, scratched, stained = rng.uniform(8, 28), rng.random() < 0.5, rng.random() < 0.4, rng.random() < 0.3
    image = rng.normal(30, 6, (32, 32))
    first = int(16 - size / 2)
    plate = image[first : int(first + size), first : int(first + size)]
    plate += 150 if bright else 70
    if scratched:
        plate[:, len(plate) // 3 : len(plate) // 2] = 255
    if stained:
        plate[len(plate) // 2 :] = 0
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    tags = "|".join(name for name, on in (("scratch", scratched), ("stain", stained)) if on)
    known = rng.random(2) < 0.9  # some images were never measured, or never looked at for their kind
    rows.append([f"{number}.png", "bright" if bright else "dark" if known[0] else "", tags or "|", f"{size:.1f}"])
    if not known[1]:
        rows[-1][3] = ""
with open(folder / "plates.csv", "w", newline="") as file:
    csv.writer(file).writerows([["path", "label:kind", "tags:faults", "number:size"], *rows])

result = effnet.fit(folder / "plates.csv", weights="none", epochs=20, max_macs=2e6, out=folder / "bundle")
for score in result.report.test.outputs:
    print(f"{score.name}: {score.value:.3g} on {score.known} images; without the images {score.baseline:.3g}")
answers = result.model.predict(folder / "0.png")[0]
print("kind", answers["kind"].label, "faults", answers["faults"].present, f"size {answers['size']:.1f}")
