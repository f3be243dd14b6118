"""`python -m benchmarks.budgets_dense`: does every detector and segmenter meet its random budget?

10 budgets, drawn from seed 0 over cards, nuclei (boxes) and aerial images (masks): a latency of 3 to 60 ms, a size of
0.5 to 20 MB, a memory of 20 to 300 MB, alone or combined; and two with limits 30 times smaller, which hardly any
network meets. Training takes one epoch. Each delivered file is re-measured by a process independent of the fit, with
the time from the network's outputs to the answer; each refusal must name the nearest feasible budget, and a fit with
that budget must succeed.
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.budgets import EPOCHS, draw, try_budget
from benchmarks.harness import finish, options, shared

_RANGES = {"latency-ms": (3.0, 60.0), "size-mb": (0.5, 20.0), "memory-mb": (20.0, 300.0)}
_SETS = {"cards": "detect", "nuclei": "detect", "aerial": "segment"}
# One more for every so many, with limits smaller by this factor.
_EVERY, _TIGHTER = 5, 30


def main() -> None:
    """Fit every budget and count those that were met or correctly refused."""
    args = options(__doc__ or "", n=10)
    rng = np.random.default_rng(0)
    budgets = [draw(rng, ranges=_RANGES) for _ in range(args.n)]
    budgets += [draw(rng, ranges=_RANGES, tighter=_TIGHTER) for _ in range(args.n // _EVERY)]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, budget in enumerate(budgets):
            name, task = list(_SETS.items())[number % len(_SETS)]
            row = try_budget(str(shared("data", name)), budget, Path(scratch) / f"fit-{number}", task=task)
            rows.append({"data": name, **row})
            print(f"{number + 1}: {rows[-1]}", flush=True)
    right = [float(bool(row["right"])) for row in rows]
    finish(
        "budgets_dense", args, figure=sum(right), goal=float(len(right)),
        unit=f"budgets of {len(right)} met or correctly refused", better="higher", samples={"right": right},
        details={"budgets": rows, "epochs": EPOCHS},
    )  # fmt: skip


if __name__ == "__main__":
    main()
