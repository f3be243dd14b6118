"""`python -m benchmarks.several_int8 --cache DIR`: the loss of each output in int8, in two runtimes.

The networks of four outputs of `benchmarks.several_outputs`, which keeps them in `DIR`: gender, article type, season
and year, five draws. Each is quantized by `effnet quantize` for ONNX Runtime and LiteRT, which accepts a loss of 0.5
points of any output on 300 validation images. The figure is the largest loss from fp32 on the 1,500 test images, over
outputs and runtimes, in points of the output's score (accuracy; 1 - MAE / MAE of the median for the year): a mean over
the draws.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import effnet
from benchmarks.fashion import OUTPUTS, draw, write_manifest
from benchmarks.harness import cached, finish
from effnet.data.datasets import read_dataset
from effnet.measurement.answers import predict_split
from effnet.measurement.several.figures import output_scores

GOAL = 0.5
RUNTIMES = ("onnxruntime", "litert")
Scores = dict[str, dict[str, float]]


def main() -> None:
    """Quantize what is missing, and compare with fp32."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/several_int8.json")
    parser.add_argument("--n", type=int, default=5, help="number of draws")
    parser.add_argument("--train", type=int, default=1000, help="training images of a draw")
    parser.add_argument("--test", type=int, default=1500, help="test images of a draw")
    parser.add_argument("--cache", type=Path, required=True, help="folder of benchmarks.several_outputs")
    args = parser.parse_args()
    draws = [_scores(seed, args) for seed in range(args.n)]
    samples: dict[str, list[float]] = {}
    for runtime in RUNTIMES:
        for name in OUTPUTS:
            samples[f"{runtime}_{name}"] = [100 * (row["fp32"][name] - row[runtime][name]) for row in draws]
    means = {key: float(np.mean(values)) for key, values in samples.items()}
    for key, values in samples.items():
        spread = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
        print(f"{key}: loses {means[key]:+.2f} points (95 % interval of the draws +-{spread:.2f})")
    finish(
        "several_int8", args, figure=max(means.values()), goal=GOAL, unit="points", better="lower", samples=samples,
        details={"test": args.test, "train": args.train},
    )  # fmt: skip


def _scores(seed: int, args: argparse.Namespace) -> Scores:
    """Return the score of each output of one draw, in fp32 and in int8 of each runtime."""
    bundle, chosen = args.cache / f"{seed}-all", draw(seed, train=args.train, val=300, test=args.test)
    manifest = write_manifest(chosen, args.cache / f"{seed}-all.csv", OUTPUTS)
    test = read_dataset(manifest).test
    found: Scores = {}
    for runtime in ("fp32", *RUNTIMES):

        def make(runtime: str = runtime) -> dict[str, float]:
            folder = bundle
            if runtime != "fp32":
                folder = args.cache / f"{seed}-{runtime}"
                effnet.quantize(bundle, manifest, runtime=runtime, max_drop=0.5, train=False, out=folder)
            return _scored(folder, test)

        found[runtime] = cached(args.cache / f"{seed}-{runtime}.json", make)
        print(seed, runtime, found[runtime], flush=True)
    return found


def _scored(folder: Path, test: Any) -> dict[str, float]:
    model = effnet.load(folder)
    rows, indices = predict_split(model, test)
    return output_scores(rows, test.labels[indices], model.config.specs)


if __name__ == "__main__":
    main()
