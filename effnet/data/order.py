"""The order of the training images in an epoch: a function of seed and epoch alone."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocks:
    """Parts that cannot all be available at once: the part of each image, int64 [images], and how many can be."""

    numbers: np.ndarray
    mixed: int


def epoch_order(num_images: int, *, seed: int, epoch: int, blocks: Blocks | None = None) -> np.ndarray:
    """Return a permutation of the images, int64 [num_images], the same for the same seed and epoch.

    Without blocks all permutations are equally likely. With blocks, the blocks are shuffled, and the images of the
    n-th block get random positions between n and n + `mixed` (in blocks): at any time images of at most `mixed` + 1
    blocks are in use, old blocks end one by one as new ones begin, and no block is needed twice.
    """
    rng = np.random.default_rng([seed, epoch])
    if blocks is None:
        return rng.permutation(num_images)
    _, block = np.unique(blocks.numbers, return_inverse=True)
    turn = rng.permutation(int(block.max(initial=-1)) + 1)[block]
    return np.argsort(turn + blocks.mixed * rng.random(num_images), kind="stable")
