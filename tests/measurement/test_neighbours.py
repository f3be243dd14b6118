"""Near-duplicates and outliers among features."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

from effnet.measurement.neighbours import near_pairs, outlier_distances


def test_near_pairs_are_the_copies_nearest_first():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2100, 32))  # more than one block of products
    rows[2050] = rows[3] + 0.01 * rng.normal(size=32)
    rows[7] = rows[9] + 0.2 * rng.normal(size=32)
    pairs, limit = near_pairs(rows)
    assert [pair[:2] for pair in pairs[:2]] == [(3, 2050), (7, 9)]
    assert all(cosine >= limit for *_, cosine in pairs)


def test_sets_of_alike_images_have_a_higher_limit():
    rng = np.random.default_rng(0)
    rows = 1 + 0.2 * rng.normal(size=(500, 64))  # all cosines are above 0.9
    rows[7] = rows[3] + 0.01
    pairs, limit = near_pairs(rows)
    assert limit > 0.95
    assert pairs[0][:2] == (3, 7)
    assert len(pairs) < 30  # of 124,750


def test_outlier_distances_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1300, 16)) + 3
    centred = rows - rows.mean(0)
    expected, _ = NearestNeighbors(n_neighbors=6, metric="cosine").fit(centred).kneighbors(centred)
    np.testing.assert_allclose(outlier_distances(rows), expected[:, 1:].mean(1), atol=1e-9)
    assert outlier_distances(rows[:1]).tolist() == [0]
