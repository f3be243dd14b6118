"""Run many images through a session: while one thread decodes, another computes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from effnet.errors import ImageError

# Large enough to amortise the cost of a call, small enough for its feature maps to stay in the caches.
BATCH = 4

Prepare = Callable[[int], np.ndarray]
Compute = Callable[[np.ndarray], np.ndarray]
Progress = Callable[[int, int], None]


def run_images(
    indices: Sequence[int],
    *,
    prepare: Prepare,
    compute: Compute,
    workers: int,
    progress: Progress | None = None,
) -> tuple[list[np.ndarray], list[int]]:
    """Return the rows that `compute` returns for the images, and their indices, in order.

    `prepare` maps an index to uint8 [R, R, C], `compute` uint8 [batch, R, R, C] to [batch, ...]; both are called from
    `workers` threads. Images for which `prepare` raises ImageError are skipped. `progress` is called with the images
    done and their total.
    """
    chunks = [indices[i : i + BATCH] for i in range(0, len(indices), BATCH)]

    def run(chunk: Sequence[int]) -> tuple[list[np.ndarray], list[int]]:
        images, kept = [], []
        for index in chunk:
            try:
                images.append(prepare(index))
                kept.append(index)
            except ImageError:
                continue
        return (list(compute(np.stack(images))) if images else []), kept

    rows: list[np.ndarray] = []
    found: list[int] = []
    with ThreadPoolExecutor(workers, thread_name_prefix="effnet-images") as pool:
        for done, (some, kept) in enumerate(pool.map(run, chunks), 1):
            rows += some
            found += kept
            if progress:
                progress(min(done * BATCH, len(indices)), len(indices))
    return rows, found
