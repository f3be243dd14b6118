"""Recall at k equals a count by hand, and its interval Wilson's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.errors import DataError
from effnet.measurement.intervals import wilson
from effnet.measurement.retrieval import ranks, score, warnings_about


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_hand(images, texts, k):
    """Return the share of images whose own text is among the `k` nearest, by sorting."""
    found = 0
    for row, image in enumerate(images):
        order = sorted(range(len(texts)), key=lambda place: -float(np.dot(image, texts[place])))
        found += row in order[:k]
    return found / len(images)


@given(st.integers(2, 40), st.integers(0, 1000))
def test_recall_is_the_count_of_own_texts_among_the_nearest(count, seed):
    rng = np.random.default_rng(seed)
    images, texts = unit(rng.normal(size=(count, 5))), unit(rng.normal(size=(count, 5)))
    found = score(images, texts)
    assert found.images == found.candidates == count
    assert found.recall_at_1 == pytest.approx(by_hand(images, texts, 1))
    assert found.recall_at_10 == pytest.approx(by_hand(images, texts, 10))
    assert found.text_recall_at_1 == pytest.approx(by_hand(texts, images, 1))
    assert found.interval == wilson(round(found.recall_at_10 * count), count)


def test_pairs_are_compared_in_blocks_and_the_rest_is_left_out():
    rng = np.random.default_rng(0)
    images, texts = unit(rng.normal(size=(25, 5))), unit(rng.normal(size=(25, 5)))
    found = ranks(images, texts, candidates=10)
    blocks = [ranks(images[part], texts[part]) for part in (slice(0, 10), slice(10, 20))]
    assert np.array_equal(found, np.concatenate(blocks))


def test_equal_captions_count_as_found():
    texts = unit(np.ones((20, 3)))
    assert score(unit(np.random.default_rng(0).normal(size=(20, 3))), texts).recall_at_1 == 1


def test_lengths_of_images_do_not_matter():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(30, 5)), unit(rng.normal(size=(30, 5)))
    lengths = rng.uniform(0.1, 100, (30, 1))
    assert score(images, texts) == score(images * lengths, texts)


def test_captions_that_are_not_found_are_warned_of():
    rng = np.random.default_rng(0)
    images, texts = unit(rng.normal(size=(500, 5))), unit(rng.normal(size=(500, 5)))
    (warning,) = warnings_about(score(images, texts), None, balanced=False)
    assert "2.0% at random" in warning
    assert not warnings_about(score(texts, texts), None, balanced=False)


def test_a_single_pair_is_refused():
    with pytest.raises(DataError, match="at least 2 images with captions; got 1"):
        score(np.ones((1, 3)), np.ones((1, 3)))
