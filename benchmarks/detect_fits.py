"""Fits of detectors and of their rivals, which `detect_cards`, `detect_nuclei` and `detect_int8` share.

effnet's side is `effnet fit` with a latency budget and a number of minutes; the rivals (benchmarks.detect_rivals) start
from the same pretrained backbone and have twice the minutes. Each finished run is kept in a folder, as NAME.json.
"""

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

import effnet
from benchmarks.detect_rivals import train_rival
from benchmarks.harness import cached, shared
from effnet.data.datasets import read_dataset
from effnet.system.machine import usable_cores

LITE0 = ("weights", "tf_efficientnet_lite0_headless.safetensors")
RIVALS = {"cards": ("ssdlite", "fcos", "effdet"), "nuclei": ("ssdlite", "fcos")}
TIMES = 2
"""The minutes of the rivals, as a multiple of those of effnet."""
Row = dict[str, Any]


def options(description: str, *, name: str, minutes: float, latency_ms: float) -> argparse.Namespace:
    """Return the options of a benchmark of detectors."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help=f"write benchmarks/records/{name}.json")
    parser.add_argument("--n", type=int, default=3, help="number of seeds")
    parser.add_argument("--rival-n", type=int, default=1, help="number of seeds of each rival")
    parser.add_argument("--minutes", type=float, default=minutes, help=f"minutes of a fit; rivals have {TIMES} times")
    parser.add_argument("--max-latency-ms", type=float, default=latency_ms, help="budget, one thread")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps finished runs")
    parser.add_argument("--run", default="", metavar="KIND-SEED,...", help="run these alone, and compare nothing")
    return parser.parse_args()


def rows_of(name: str, args: argparse.Namespace) -> dict[str, list[Row]] | None:
    """Return the rows of effnet and of each rival, run where they are missing; None if some were requested alone."""
    if args.run:
        for one in args.run.split(","):
            kind, _, seed = one.rpartition("-")
            row_of(name, kind, int(seed), args)
        return None
    found = {"effnet": [row_of(name, "effnet", seed, args) for seed in range(args.n)]}
    for kind in RIVALS[name]:
        found[kind] = [row_of(name, kind, seed, args) for seed in range(args.rival_n)]
    return found


def row_of(name: str, kind: str, seed: int, args: argparse.Namespace) -> Row:
    """Return the result of one run on the set `name`, from the cache if it is finished there."""
    asked = {"minutes": args.minutes, "budget_ms": args.max_latency_ms, "cores": usable_cores()}

    def make() -> Row:
        start = time.perf_counter()
        row = (_fitted if kind == "effnet" else _rival)(name, kind, seed, args)
        row.setdefault("seconds", time.perf_counter() - start)
        row["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name}-{kind}-{seed}: {row}", flush=True)
        return row

    return cached(args.cache / f"{name}-{kind}-{seed}.json", make, asked=asked)


def folder_of(name: str, seed: int, args: argparse.Namespace) -> Path:
    """Return the bundle of a fit."""
    return args.cache / f"{name}-effnet-{seed}"


def summary(rows: dict[str, list[Row]]) -> tuple[dict[str, list[float]], float]:
    """Return the samples, and the mean AP of effnet above that of the best rival, in points; print each side."""
    samples = {
        f"{kind}_{key}": [float(row[key]) for row in found]
        for kind, found in rows.items()
        for key in ("ap", "ap50", "seconds", "peak_memory_mb")
    }
    for kind, found in rows.items():
        aps, fifties = samples[f"{kind}_ap"], samples[f"{kind}_ap50"]
        print(
            f"{kind}: AP {np.mean(aps):.1f} ({min(aps):.1f} to {max(aps):.1f}), AP50 {np.mean(fifties):.1f}, "
            f"{np.mean(samples[f'{kind}_seconds']) / 60:.1f} minutes; {found[0]['network']}"
        )
    best = max(float(np.mean(samples[f"{kind}_ap"])) for kind in rows if kind != "effnet")
    return samples, float(np.mean(samples["effnet_ap"])) - best


def _fitted(name: str, _kind: str, seed: int, args: argparse.Namespace) -> Row:
    out = folder_of(name, seed, args)
    result = effnet.fit(
        str(shared("data", name)), weights=str(shared(*LITE0)), max_latency_ms=args.max_latency_ms,
        minutes=args.minutes, seed=seed, out=out, resume=out.is_dir(), report_images=False,
    )  # fmt: skip
    test = result.report.test
    return {
        "ap": 100 * test.ap, "ap50": 100 * test.ap50, "network": result.report.network.title,
        "format": result.model.format.name, "latency_ms": result.latency_ms, "objects": test.most_objects,
        "seconds": result.report.time.used_seconds,  # those before a fit was interrupted as well
    }  # fmt: skip


def _rival(name: str, kind: str, seed: int, args: argparse.Namespace) -> Row:
    dataset = read_dataset(str(shared("data", name)), seed=seed)
    found = train_rival(kind, dataset, minutes=TIMES * args.minutes, seed=seed)
    return {"ap": found.ap, "ap50": found.ap50, "network": f"torchvision, {found.epochs} epochs"}
