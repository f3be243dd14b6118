"""The map from features to texts is ridge regression, whose penalty validation chooses."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from effnet.measurement.retrieval import ranks
from effnet.training.transfer.ridge import fit_map
from effnet.words.space import whitening


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def draw(count, *, channels=20, width=7, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(2, 1, (count, channels)) * np.linspace(0.1, 3, channels)
    true = np.random.default_rng(9).normal(size=(channels, width))
    return features.astype(np.float32), unit(features @ true + noise * 10 * rng.normal(size=(count, width)) + 5)


@pytest.mark.parametrize("strength", [float("inf"), 1.0])
def test_it_is_scikit_learns_ridge_to_the_texts_of_its_space(strength):
    features, texts = draw(200)
    found = fit_map(features, texts, val_features=features, val_texts=texts, penalties=(0.5,), whitenings=(strength,))
    goals = unit((texts - found.mean) @ found.matrix)
    alpha = 0.5 * features.astype(np.float64).var(0).mean() * len(features)
    peer = Ridge(alpha=alpha).fit(features.astype(np.float64), goals)
    np.testing.assert_allclose(found.weight, peer.coef_, atol=1e-5)
    np.testing.assert_allclose(found.bias, peer.intercept_, atol=1e-4)


def test_the_strongest_penalty_that_loses_at_most_15_percent_is_chosen():
    (features, texts), (val_features, val_texts) = draw(300), draw(200, seed=1)
    grid = (100.0, 3.0, 0.3, 0.01)
    every = [
        fit_map(
            features, texts, val_features=val_features, val_texts=val_texts, penalties=(penalty,), whitenings=(1.0,)
        )
        for penalty in grid
    ]
    found = fit_map(features, texts, val_features=val_features, val_texts=val_texts, penalties=grid, whitenings=(1.0,))
    best = max(one.val_mrr for one in every)
    assert found.penalty == max(one.penalty for one in every if one.val_mrr >= 0.85 * best)
    assert found.val_mrr == pytest.approx(next(one.val_mrr for one in every if one.penalty == found.penalty))


def test_features_that_do_not_fill_their_space_are_no_problem():
    features, texts = draw(30, channels=80)
    features[:, 40:] = 0
    found = fit_map(features, texts, val_features=features, val_texts=texts)
    assert np.isfinite(found.weight).all()
    assert (ranks(unit(features @ found.weight.T + found.bias), unit((texts - found.mean) @ found.matrix)) < 10).all()


def test_full_whitening_gives_texts_the_identity_as_covariance():
    rows = np.random.default_rng(0).normal(size=(500, 4)) @ np.diag([5, 1, 0.2, 1]) + 3
    mean, matrix = whitening(rows.astype(np.float32), strength=0.0)
    covariance = np.cov(((rows - mean) @ matrix).T, bias=True)
    np.testing.assert_allclose(covariance, np.eye(4) * covariance[0, 0], atol=1e-3 * covariance[0, 0])
    assert np.array_equal(whitening(rows.astype(np.float32), strength=float("inf"))[1], np.eye(4))
