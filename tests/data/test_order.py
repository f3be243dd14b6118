"""The order of an epoch: a permutation, fixed by seed and epoch, that needs few blocks at a time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from effnet.data.order import Blocks, epoch_order

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def blocks_of(sizes, mixed):
    # Numbers with gaps: a split has images of some shards only.
    return Blocks(numbers=np.repeat(3 * np.arange(len(sizes)), sizes), mixed=mixed)


@given(SIZES, st.integers(1, 6), st.integers(0, 2**31), st.integers(0, 99))
def test_every_image_comes_once_and_few_blocks_are_due_at_a_time(sizes, mixed, seed, epoch):
    blocks = blocks_of(sizes, mixed)
    order = epoch_order(sum(sizes), seed=seed, epoch=epoch, blocks=blocks)
    assert sorted(order) == list(range(sum(sizes)))
    visited = blocks.numbers[order]
    first = {number: int(np.argmax(visited == number)) for number in set(visited.tolist())}
    last = {number: len(visited) - 1 - int(np.argmax(visited[::-1] == number)) for number in first}
    due = [sum(first[n] <= place <= last[n] for n in first) for place in range(len(visited))]
    assert max(due) <= mixed + 1


@given(SIZES, st.integers(0, 2**31), st.integers(0, 99))
def test_seed_and_epoch_fix_the_order(sizes, seed, epoch):
    blocks = blocks_of(sizes, 2)
    total = sum(sizes)
    one, again = (epoch_order(total, seed=seed, epoch=epoch, blocks=blocks) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    if total > 20 and len(sizes) > 2:
        assert (one != epoch_order(total, seed=seed, epoch=epoch + 1, blocks=blocks)).any()
        assert (one != epoch_order(total, seed=seed + 1, epoch=epoch, blocks=blocks)).any()


def test_without_blocks_any_order_is_as_likely_as_another():
    counts = np.zeros((4, 4))
    for epoch in range(4000):
        counts[np.arange(4), epoch_order(4, seed=5, epoch=epoch)] += 1
    # Chi-squared with 9 degrees of freedom exceeds 27.9 once in a thousand.
    assert ((counts - 1000) ** 2 / 1000).sum() < 27.9


def test_blocks_are_mixed_and_not_read_one_after_the_other():
    blocks = blocks_of([100] * 20, 4)
    order = epoch_order(2000, seed=0, epoch=0, blocks=blocks)
    visited = blocks.numbers[order]
    # In the middle, an interval as long as a block holds about equal parts of four blocks.
    shares = np.unique(visited[950:1050], return_counts=True)[1]
    assert 4 <= len(shares) <= 6
    assert shares.max() < 45
    starts = [visited[0], blocks.numbers[epoch_order(2000, seed=0, epoch=1, blocks=blocks)][0]]
    assert starts[0] != starts[1]
    within = order[visited == visited[1000]]
    assert (np.diff(within) < 0).sum() > 30


def test_a_split_without_images_has_an_empty_order():
    assert len(epoch_order(0, seed=0, epoch=0)) == 0
    assert len(epoch_order(0, seed=0, epoch=0, blocks=Blocks(numbers=np.zeros(0, np.int64), mixed=2))) == 0
