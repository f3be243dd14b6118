"""`python -m benchmarks.budgets`: does every file meet its random budget, or is the nearest feasible one named?

20 budgets, drawn from seed 0 over digits, photos7 and CIFAR-10: a latency of 0.5 to 20 ms, a size of 0.2 to 20 MB, a
memory of 15 to 200 MB, alone or combined; and for every four of them one with limits 30 times smaller, most of which
no network meets. Training takes one epoch, so that the budget limits the network. Each delivered file is re-measured
by a process independent of the fit. Each refusal must name the nearest feasible budget, and a fit with that budget
must succeed.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.cifar import unpack
from benchmarks.harness import ROOT, finish, options, shared
from effnet.data.datasets import read_dataset
from effnet.measurement.in_image import outside_ms
from effnet.measurement.speed.stopwatch import FINISHED, Stopwatch
from effnet.measurement.speed.timing import Timing
from effnet.runtimes.predictor import load

EPOCHS = 1
RANGES = {"latency-ms": (0.5, 20.0), "size-mb": (0.2, 20.0), "memory-mb": (15.0, 200.0)}
# One more for every so many, with limits smaller by this factor.
_EVERY, _TIGHTER = 4, 30
# Background load may last a minute.
_PATIENCE = replace(FINISHED, pauses=(1, 2, 4, 8, 15, 15, 15), looks=7)
_LABELS = {"latency": "latency-ms", "size on disk": "size-mb", "peak memory": "memory-mb"}
_A_CLASS = 120
_REFUSED = 3


def main() -> None:
    """Fit every budget and count those that were met or correctly refused."""
    args = options(__doc__ or "", n=20)
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        data = {
            "digits": "digits",
            "photos7": str(shared("data", "photos7")),
            "cifar10": str(_cifar(Path(scratch) / "cifar10")),
        }
        budgets = [draw(rng) for _ in range(args.n)]
        budgets += [draw(rng, tighter=_TIGHTER) for _ in range(args.n // _EVERY)]
        for number, budget in enumerate(budgets):
            name = list(data)[number % len(data)]
            row = try_budget(data[name], budget, Path(scratch) / f"fit-{number}")
            rows.append({"data": name, **row})
            print(f"{number + 1}: {rows[-1]}", flush=True)
    right = [float(bool(row["right"])) for row in rows]
    finish(
        "budgets", args, figure=sum(right), goal=float(len(right)),
        unit=f"budgets of {len(right)} met or correctly refused",
        better="higher", samples={"right": right}, details={"budgets": rows, "epochs": EPOCHS},
    )  # fmt: skip


def draw(
    rng: np.random.Generator, *, tighter: float = 1, ranges: Mapping[str, tuple[float, float]] = RANGES
) -> dict[str, float]:
    """Return one to three limits, log-uniform in their ranges, tighter by the factor `tighter`."""
    count = int(rng.integers(1, len(ranges) + 1))
    names = rng.permutation(list(ranges))[:count]
    limits = {str(name): np.exp(rng.uniform(*np.log(ranges[name]))) / tighter for name in sorted(names)}
    return {name: float(f"{limit:.3g}") for name, limit in limits.items()}


def try_budget(data: str, budget: dict[str, float], out: Path, *, task: str = "auto") -> dict[str, object]:
    """Fit once; return the result, and whether it is right."""
    code, text = _fit(data, budget, out, task)
    found: dict[str, object] = {"budget": budget, "exit_code": code}
    if code == 0:
        measured = _measure(data, out, budget)
        return found | {"measured": measured, "right": all(measured[key] <= budget[key] for key in budget)}
    if code != _REFUSED:
        return found | {"said": text, "right": False}
    nearest = budget | _advised(text)
    again, _ = _fit(data, nearest, out.with_name(out.name + "-nearest"), task)
    return found | {"said": text, "nearest": nearest, "right": nearest != budget and again == 0}


def _fit(data: str, budget: dict[str, float], out: Path, task: str) -> tuple[int, str]:
    words = [word for key, value in budget.items() for word in (f"--max-{key}", repr(value))]
    command = ["-m", "effnet", "fit", data, *words, "--epochs", str(EPOCHS), "--weights", "none", "--task", task]
    command += ["--out", str(out)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]


def _measure(data: str, bundle: Path, budget: dict[str, float]) -> dict[str, float]:
    """Measure the file, and again while it misses the budget: the minimum of all measurements counts."""
    model = load(bundle)
    # Of a detector or a segmenter, what follows the network is part of the latency.
    after = 0.0
    if model.config.task_record.whole is not None:
        after = outside_ms(model, read_dataset(data, task=model.config.task).test)

    def figures(timing: Timing) -> dict[str, float]:
        return {"latency-ms": timing.p50_ms + after, "size-mb": timing.size_mb, "memory-mb": timing.memory_mb}

    def excess(timing: Timing) -> float:
        return max(figures(timing)[key] / limit for key, limit in budget.items())

    path = bundle / model.format.file
    found = Stopwatch().measure(path, patience=_PATIENCE, doubtful=lambda timing: excess(timing) > 1, rank=excess)
    return {key: min(figures(timing)[key] for timing in found.timings) for key in RANGES}


def _advised(text: str) -> dict[str, float]:
    """Return the limits that a refusal advises; it does not repeat the name of a single one."""
    _, _, advice = text.partition("ask for ")
    label = next((label for label in _LABELS if label in text), "")
    found = {}
    for part in advice.split(" or more")[:-1]:
        key = _LABELS[next((label for label in _LABELS if label in part), label)]
        found[key] = float(re.findall(r"[0-9.]+", part)[0])
    return found


def _cifar(folder: Path) -> Path:
    """Write a part of CIFAR-10's images."""
    return (
        unpack(shared("data", "cifar10_12k.tar.gz"), folder, lambda part, number: "all" if number <= _A_CLASS else "")
        / "all"
    )


if __name__ == "__main__":
    main()
