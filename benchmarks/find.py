"""`python -m benchmarks.find`: the search of 100,000 embeddings of 256 numbers, as `effnet find` does it.

Exact brute force on one thread: each query is compared with every embedding, and the ten nearest are sorted. The figure
is the median time of a query, the spread is in the samples; a million embeddings are searched too. The rows found are
those of a sort of all cosines.
"""

import statistics
import time

import numpy as np

from benchmarks.harness import finish, options
from effnet.jobs.find.search import nearest_rows
from effnet.runtimes.results import unit_rows

ROWS, WIDTH, TOP, A_MILLION = 100_000, 256, 10, 1_000_000
_LARGE_QUERIES = 5


def main() -> None:
    """Time queries, each a new one."""
    args = options(__doc__ or "", n=50)
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng.standard_normal((ROWS, WIDTH), dtype=np.float32))
    samples = {"ms": timed(vectors, rng, args.n)}
    large = np.tile(vectors, (A_MILLION // ROWS, 1))
    million = timed(large, rng, _LARGE_QUERIES)
    low, high = np.percentile(samples["ms"], (2.5, 97.5))
    details = {
        "rows": ROWS, "width": WIDTH, "spread_ms": [float(low), float(high)], "million_ms": statistics.median(million),
    }  # fmt: skip
    print(details)
    finish(
        "find", args, figure=statistics.median(samples["ms"]), goal=50.0, unit="ms", better="lower", samples=samples,
        details=details,
    )  # fmt: skip


def timed(vectors: np.ndarray, rng: np.random.Generator, count: int) -> list[float]:
    """Return the milliseconds of `count` queries, after one that is not counted; exit if a result is not exact."""
    times = []
    for number in range(count + 1):
        query = unit_rows(rng.standard_normal((1, WIDTH), dtype=np.float32))[0]
        start = time.perf_counter()
        rows, cosines = nearest_rows(vectors, query, top=TOP)
        times.append(1e3 * (time.perf_counter() - start))
        if number == 0:
            expected = np.sort(vectors @ query)[::-1][:TOP]
            assert np.array_equal(cosines, expected), (rows, cosines, expected)
    return times[1:]


if __name__ == "__main__":
    main()
