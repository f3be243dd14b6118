"""`python -m benchmarks.search_table`: effnet's search on NAS-Bench-Macro, whose networks are all trained already.

Every algorithm runs n times (200) at each of three limits, 40, 60 and 80 M multiply-accumulates, through effnet's own
code: the space is the table's, a training is a look-up. A search sees one of the three trainings of a network; its
result is the mean accuracy of the other two, of the network that it liked best. The runs of all algorithms are paired:
the same seed and the same training. `published` is the reward of MnasNet, which trains networks above the limit too.

The figure is the gain of the default algorithm over random search at 50 trainings and 40 M, in percentage points. It is
0 if another demand is missed: the lower end of its 95 % interval above 0.1 there and above 0 at the other limits; with
20 trainings the default at least as good as random search with 100, at every limit; and at 100 trainings no algorithm
more than 0.05 below random search.
"""

import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from benchmarks.harness import finish, options, shared
from benchmarks.nas_tables import BATCH, Table, TableSpace, paired_gain, read_macro, search
from effnet.nas.algorithms.by_name import ALGORITHMS, DEFAULT
from effnet.nas.objective import Objective

LIMITS = (40, 60, 80)
_AT = (20, 50, 100)
# The grid has only uniformly scaled networks, of which the table says nothing.
_NAMES = tuple(name for name in ALGORITHMS if name != "grid")
_PUBLISHED = "published"
_RUNS, _GOAL, _LEAST, _BELOW_RANDOM = 200, 0.2, 0.1, 0.05
_PROPOSALS = 1000


def main() -> None:
    """Run every search and print a table."""
    args = options(__doc__.splitlines()[0], n=_RUNS)
    table = read_macro(shared("data", "nas_bench_macro"))
    jobs = [(limit, name) for limit in LIMITS for name in (*_NAMES, _PUBLISHED)]
    with ProcessPoolExecutor(max_workers=2) as pool:
        runs = partial(run_all, table, number=args.n)
        found = dict(zip(jobs, pool.map(runs, *zip(*jobs, strict=True)), strict=True))
    for (limit, name), results in found.items():
        means = " ".join(f"{value:6.2f}" for value in results.mean(axis=0))
        gain, half = paired_gain(results[:, 1], found[limit, "random"][:, 1])
        print(f"{limit} M {name:10} {means}   over random at {_AT[1]}: {gain:+.3f} +- {half:.3f}")
    missed = missed_demands(found)
    print("\n".join(f"missed: {line}" for line in missed) or "every other demand is met")
    print(f"{_PROPOSALS} proposals of {DEFAULT}: {overhead(table):.2f} s of processor time")
    gain = paired_gain(found[40, DEFAULT][:, 1], found[40, "random"][:, 1])[0]
    finish(
        "search_table", args, figure=0.0 if missed else gain, goal=_GOAL,
        unit="pp over random search", better="higher",
        samples={f"{name} {limit} M, {at} trainings": results[:, place].round(3).tolist()
                 for (limit, name), results in found.items() for place, at in enumerate(_AT)},
        details={"means": {f"{name} {limit} M": results.mean(axis=0).round(3).tolist()
                           for (limit, name), results in found.items()}, "missed": missed},
    )  # fmt: skip


def run_all(table: Table, limit: int, name: str, *, number: int) -> np.ndarray:
    """Return the honest accuracies of `number` searches, in percent: a row a search, a column a number of trainings."""
    strict = name == _PUBLISHED
    space = TableSpace(table=table, limit=np.inf if strict else 1e6 * limit)
    published = Objective(form="product", target=1e6 * limit, strict_paper=True)
    objective = published if strict else Objective()
    rows = []
    for run in range(number):
        seen = run % table.accuracies.shape[1]

        def score(genome: tuple[int, ...], seen: int = seen) -> float:
            row = table.rows[genome]
            return objective.score(table.accuracies[row, seen] / 100, figures={"macs": table.costs[row]})

        history = search(ALGORITHMS["reinforce" if strict else name], space, score, number=_AT[-1], seed=run)
        rows.append([table.honest(history[:at], limit=1e6 * limit, seen=seen) for at in _AT])
    return np.array(rows)


def missed_demands(found: Mapping[tuple[int, str], np.ndarray]) -> list[str]:
    """Return the demands that the searches miss, without the gain at the first limit."""
    missed = []
    for limit in LIMITS:
        ours, random = found[limit, DEFAULT], found[limit, "random"]
        gain, half = paired_gain(ours[:, 1], random[:, 1])
        least = _LEAST if limit == LIMITS[0] else 0.0
        if gain - half <= least:
            missed.append(f"{limit} M: the interval of the gain over random search begins at {gain - half:.3f}")
        if ours[:, 0].mean() < random[:, 2].mean():
            missed.append(f"{limit} M: {DEFAULT} with {_AT[0]} trainings is worse than random search with {_AT[2]}")
        for name in _NAMES:
            if (below := random[:, 2].mean() - found[limit, name][:, 2].mean()) > _BELOW_RANDOM:
                missed.append(f"{limit} M: {name} is {below:.3f} below random search at {_AT[2]} trainings")
    return missed


def overhead(table: Table) -> float:
    """Return the seconds of processor time of 1,000 proposals of the default algorithm, in generations of five."""
    space = TableSpace(table=table, limit=60e6)
    start = time.process_time()
    history = search(
        ALGORITHMS[DEFAULT], space, lambda genome: table.accuracies[table.rows[genome], 0], number=_PROPOSALS, seed=0
    )
    assert len(history) == _PROPOSALS
    assert max(trained.generation for trained in history) == _PROPOSALS // BATCH - 1
    return time.process_time() - start


if __name__ == "__main__":
    main()
