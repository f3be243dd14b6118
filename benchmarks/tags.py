"""`python -m benchmarks.tags`: mean average precision of tags on natural scenes, from few images.

2,000 images with any of five tags, from a real Lite0 backbone at 160 pixels whose last layer is fitted: five draws of
500 and of 1,500 training images, 100 validation and 400 test images. The figure is the smaller of the two margins over
the goals, mAP 0.89 with 500 images and 0.91 with 1,500, each a mean over the draws.
"""

import csv
import os
import tempfile
from pathlib import Path

import numpy as np

import effnet
from benchmarks.harness import finish, options, shared
from effnet.data.datasets import read_dataset
from effnet.measurement.answers import predict_split
from effnet.measurement.several.multilabel import mean_average_precision

GOALS = {500: 0.89, 1500: 0.91}
_MAX_MACS, _VAL, _TEST, _RESAMPLES = 205e6, 100, 400, 10_000


def main() -> None:
    """Fit all draws, and compare with the goals."""
    args = options(__doc__ or "", n=5)
    weights = shared("weights", "tf_efficientnet_lite0_headless.safetensors")
    found: dict[int, list[float]] = {number: [] for number in GOALS}
    intervals: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number in GOALS:
            drawn = []
            for seed in range(args.n):
                manifest = draw(seed, number, Path(scratch) / f"{seed}-{number}.csv")
                result = effnet.fit(
                    manifest, weights=weights, strategy="head", max_macs=_MAX_MACS, precision="fp32", seed=seed,
                    out=Path(scratch) / f"{seed}-{number}",
                )  # fmt: skip
                test = read_dataset(manifest).test
                rows, indices = predict_split(result.model, test)
                drawn.append((rows, test.labels[indices]))
                found[number].append(mean_average_precision(*drawn[-1]))
                print(
                    f"{number} images, draw {seed}: mAP {found[number][-1]:.4f}, {result.report.network.name}",
                    flush=True,
                )
            intervals[str(number)] = interval(drawn)
            low, high = intervals[str(number)]
            print(f"{number} images: mAP {np.mean(found[number]):.4f} (95 % interval {low:.4f} to {high:.4f})")
    margins = [float(np.mean(found[number])) - goal for number, goal in GOALS.items()]
    finish(
        "tags", args, figure=min(margins), goal=0.0, unit="mAP above the goals", better="higher",
        samples={f"mean_average_precision_{number}": values for number, values in found.items()},
        details={"goals": {str(number): goal for number, goal in GOALS.items()}, "intervals": intervals},
    )  # fmt: skip


def draw(seed: int, number: int, path: Path) -> Path:
    """Write the manifest of a draw with `number` training images; the test images are those of the seed."""
    folder = shared("data", "scenes5")
    with open(folder / "scenes5.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    order = np.random.default_rng(seed).permutation(len(rows))
    parts = ["test"] * _TEST + ["val"] * _VAL + ["train"] * number
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "tags:tags"])
        for index, part in zip(order, parts, strict=False):
            writer.writerow([os.path.join(folder, rows[index]["path"]), part, rows[index]["tags"]])
    return path


def interval(drawn: list[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """Return the 95 % interval of the mean over draws, by a bootstrap of draws and images."""
    rng, means = np.random.default_rng(0), []
    for _ in range(_RESAMPLES // 10):
        values = []
        for chosen in rng.integers(0, len(drawn), len(drawn)):
            rows, targets = drawn[chosen]
            images = rng.integers(0, len(rows), len(rows))
            values.append(mean_average_precision(rows[images], targets[images]))
        means.append(np.mean(values))
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]


if __name__ == "__main__":
    main()
