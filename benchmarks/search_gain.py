"""`python -m benchmarks.search_gain`: a searched network beside scaled ones of equal latency and equal seconds.

CIFAR-10 from scratch: 8,000 training, 2,000 validation and 2,000 test images, two latency budgets in ONNX Runtime with
one thread. In turns `effnet search` and `effnet fit` with trials, each for the same minutes, with the same data, seeds
and recipe; both deploy and verify a file, whose test accuracy counts. The figure is the difference at the tight budget,
in percentage points, if the search is worse beyond noise at neither: a paired bootstrap over seeds and test images.
Else it is the upper end of the worse interval, which is below 0. Each run is saved in the folder `--cache`; the same
command continues. `--seeds 1` does the runs of one seed, for processes beside each other that share the folder, and
`--budgets 1 --minutes 110 --n 2` those of one budget; `--kinds fit` those of one side. The record holds every answer.
"""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import effnet
from benchmarks.cifar import unpack
from benchmarks.harness import ROOT, cached, finish, shared
from benchmarks.record import commit
from effnet.data.datasets import read_dataset
from effnet.measurement.answers import right_answers

GOAL = 0.0
_KINDS = ("search", "fit")
_RESAMPLES, _TEST_A_CLASS, _VAL_A_CLASS = 10_000, 200, 200
Row = dict[str, Any]


def main() -> None:
    """Run what is missing, one run after the other, and compare."""
    args = _options()
    with tempfile.TemporaryDirectory() as scratch:
        cache = args.cache or Path(scratch)
        images = cache / "images"
        if not images.is_dir():
            unpack(shared("data", "cifar10_12k.tar.gz"), images, _place)
        rows = [
            _row_of(kind, budget, seed, minutes, images, cache)
            for budget, minutes, seeds in zip(args.budgets, args.minutes, _seeds(args), strict=True)
            for seed in seeds
            for kind in (_KINDS if seed % 2 == 0 else _KINDS[::-1])
            if not args.seeds or kind in args.kinds
        ]
    if args.seeds:
        return
    numbers, args.n = list(args.n), min(args.n)
    found = {budget: _compare(rows, budget) for budget in args.budgets}
    for budget, (gain, low, high) in found.items():
        print(f"{budget:g} ms: {gain:+.2f} pp, 95 % interval {low:+.2f} to {high:+.2f}")
    worst = min(high for _, _, high in found.values())
    tight = found[args.budgets[0]]
    samples = {f"{r['kind']}_{r['budget']:g}ms": [] for r in rows}
    for row in rows:
        samples[f"{row['kind']}_{row['budget']:g}ms"].append(100 * float(np.mean(row["right"])))
    finish(
        "search_gain", args, figure=tight[0] if worst >= 0 else worst, goal=GOAL, unit="pp", better="higher",
        samples=samples,
        details={
            "minutes": args.minutes,
            "seeds": numbers,
            "gains": {f"{budget:g} ms": list(values) for budget, values in found.items()},
            "rows": [row | {"right": _packed(row["right"])} for row in rows],
        },
    )  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/search_gain.json")
    parser.add_argument("--n", type=int, nargs="+", default=(2, 2), help="number of seeds of each budget")
    parser.add_argument("--seeds", type=int, nargs="+", help="do the runs of these seeds only, and compare nothing")
    parser.add_argument("--kinds", nargs="+", choices=_KINDS, default=_KINDS, help="with --seeds: the sides that run")
    parser.add_argument("--budgets", type=float, nargs="+", default=(0.5, 1.0), help="latencies in ms, tight one first")
    parser.add_argument("--minutes", type=float, nargs="+", default=(60.0, 110.0), help="minutes of each budget's runs")
    parser.add_argument("--cache", type=Path, help="folder that keeps finished runs")
    return parser.parse_args()


def _seeds(args: argparse.Namespace) -> list[Sequence[int]]:
    """Return the seeds of each budget."""
    return [args.seeds] * len(args.budgets) if args.seeds else [range(number) for number in args.n]


def _place(part: str, number: int) -> str:
    """Return the folder of an image: of a class 200 for test, 200 for validation, and the rest for training."""
    if part == "test":
        return "test" if number <= _TEST_A_CLASS else ""
    return "val" if number <= _VAL_A_CLASS else "train"


def _row_of(kind: str, budget: float, seed: int, minutes: float, images: Path, cache: Path) -> Row:
    """Return the result of a run, from `cache` if it is finished there."""
    name = f"{kind}-{budget:g}-{seed}"
    asked = {"kind": kind, "budget": budget, "seed": seed, "minutes": minutes}
    make = partial(_run, kind, budget, seed, minutes, images, cache / name)
    return cached(cache / f"{name}.json", make, asked=asked)


def _run(kind: str, budget: float, seed: int, minutes: float, images: Path, out: Path) -> Row:
    options: dict[str, Any] = {
        "max_latency_ms": budget, "minutes": minutes, "seed": seed, "weights": "none", "precision": "fp32",
        "out": out, "resume": out.is_dir(), "report_images": False,
    }  # fmt: skip
    if kind == "search":
        result: Any = effnet.search(str(images), algorithm="surrogate", **options)
        sentence = result.searched.sentence
    else:
        result, sentence = effnet.fit(str(images), trials=8, **options), ""
    report = result.report
    row = {
        "right": right_answers(result.model, read_dataset(images).test).tolist(),
        "network": report.network.title,
        "latency_ms": result.latency_ms,
        "commit": commit(ROOT),
        "sentence": sentence,
    }
    print(f"{out.name}: {report.network.title}, {100 * result.test_accuracy:.2f} %", flush=True)
    return row


def _packed(right: list[bool]) -> str:
    """Return the answers as hexadecimal digits, eight answers in two."""
    return np.packbits(right).tobytes().hex()


def _compare(rows: list[Row], budget: float) -> tuple[float, float, float]:
    """Return the search's gain at a budget in points, with its 95 % interval."""
    sides = {
        kind: np.array([row["right"] for row in rows if row["kind"] == kind and row["budget"] == budget], dtype=float)
        for kind in _KINDS
    }
    gains = sides["search"] - sides["fit"]
    rng = np.random.default_rng(0)
    seeds, images = gains.shape
    drawn = []
    for _ in range(_RESAMPLES):
        counts = np.bincount(rng.integers(images, size=images), minlength=images) / images
        drawn.append(100 * float(gains[rng.integers(seeds, size=seeds)].mean(0) @ counts))
    low, high = np.percentile(drawn, (2.5, 97.5))
    return 100 * float(gains.mean()), float(low), float(high)


if __name__ == "__main__":
    main()
