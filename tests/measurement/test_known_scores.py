"""Scores of how known an image is: as scikit-learn and scipy compute them, and the choice among them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from effnet.errors import BundleError
from effnet.measurement.classification.calibration import Abstain, choose_threshold
from effnet.measurement.known.choice import Estimate, choose_method, why_chosen
from effnet.measurement.known.scores import fit_score, score_values
from effnet.tasks.known import KnownScore


@pytest.fixture(params=[(60, 90), (300, 24)])
def made(request):
    """Features of three classes, with fewer and with more images than channels; labels; a last layer; new features."""
    images, channels = request.param
    rng = np.random.default_rng(images)
    labels = np.arange(images) % 3
    features = np.maximum(rng.normal(size=(images, channels)) + 2 * rng.normal(size=(3, channels))[labels], 0)
    weight, bias = rng.normal(size=(3, channels)) / 9, rng.normal(size=3)
    return features.astype(np.float32), labels, weight, bias, rng.random((20, channels)).astype(np.float32)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_energy_is_scipys_and_react_is_that_of_clipped_features(made):
    features, labels, weight, bias, new = made
    found = score_values(fit_score("energy", features, labels), new, weight, bias)
    np.testing.assert_allclose(found, logsumexp(new @ weight.T + bias, axis=1), rtol=1e-6)
    score = fit_score("react", features, labels)
    assert (features > score.arrays["clip"]).mean() == pytest.approx(0.1, abs=0.01)
    clipped = np.minimum(new, score.arrays["clip"])
    np.testing.assert_allclose(
        score_values(score, new, weight, bias), logsumexp(clipped @ weight.T + bias, axis=1), rtol=1e-6
    )


def test_knn_is_the_cosine_to_the_fifth_nearest_training_image(made):
    features, labels, weight, bias, new = made
    few = np.concatenate([np.flatnonzero(labels == label)[:40] for label in range(3)])
    features, labels = features[few], labels[few]  # 50 a class are kept as they are
    centre = features.mean(0)
    peer = NearestNeighbors(n_neighbors=5, metric="cosine").fit(features - centre)
    distances, _ = peer.kneighbors(new - centre)
    found = score_values(fit_score("knn", features, labels), new, weight, bias)
    np.testing.assert_allclose(found, 1 - distances[:, 4], atol=1e-3)  # fp16


def test_many_images_of_a_class_become_fifty_centres():
    rng = np.random.default_rng(0)
    features, labels = rng.random((400, 8)), np.repeat((0, 1), (390, 10))
    bank = fit_score("knn", features, labels).arrays["bank"]
    assert bank.shape == (60, 8)
    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), 1, atol=1e-3)


def test_mahalanobis_is_that_of_scikit_learns_covariance(made):
    features, labels, weight, bias, new = made
    rows = unit(features.astype(np.float64))
    means = np.stack([rows[labels == label].mean(0) for label in range(3)])
    peer = LedoitWolf(assume_centered=True).fit(rows - means[labels])
    apart = unit(new.astype(np.float64))[:, None] - means
    squares = np.einsum("icx,xy,icy->ic", apart, np.linalg.inv(peer.covariance_), apart)
    found = score_values(fit_score("mahalanobis", features, labels), new, weight, bias)
    np.testing.assert_allclose(found, -squares.min(1) / features.shape[1], rtol=5e-3)  # fp16


def test_the_sum_is_that_of_its_parts_over_their_deviations(made):
    features, labels, weight, bias, new = made
    scales = {"probability": (1.0, 2.0), "energy": (3.0, 0.5), "knn": (0.4, 0.1), "mahalanobis": (-2.0, 0.7)}
    found = score_values(fit_score("sum", features, labels, scales=scales), new, weight, bias, temperature=1.5)
    logs = log_softmax((new @ weight.T + bias) / 1.5, axis=1).max(1)
    parts = {"probability": logs - np.log1p(-np.exp(logs))}
    for method in ("energy", "knn", "mahalanobis"):
        parts[method] = score_values(fit_score(method, features, labels), new, weight, bias)
    wanted = sum((parts[name] - mean) / spread for name, (mean, spread) in scales.items())
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_strange_cluster_is_less_known_by_each_score():
    rng = np.random.default_rng(1)
    centres = 3 * rng.normal(size=(4, 30))
    labels = np.repeat(np.arange(3), 30)
    features = centres[labels] + rng.normal(size=(90, 30))
    weight = centres[:3] / 10
    near, far = centres[labels] + rng.normal(size=(90, 30)), centres[3] + rng.normal(size=(90, 30))
    for method in ("energy", "react", "knn", "mahalanobis"):
        score = fit_score(method, features, labels)
        known, strange = (score_values(score, part, weight, np.zeros(3)) for part in (near, far))
        assert known.min() > strange.max() or (known.mean() - strange.mean()) / known.std() > 2


def estimates(**values):
    return tuple(Estimate(method=name, auroc=value) for name, value in values.items())


def test_the_largest_probability_is_kept_unless_another_is_better_by_more_than_a_point():
    assert choose_method(estimates(probability=0.90, energy=0.905, knn=0.909)) == "probability"
    assert choose_method(estimates(probability=0.90, energy=0.915, knn=0.92)) == "knn"
    assert choose_method(estimates(probability=0.90, energy=0.915, knn=0.92), refused=["knn"]) == "energy"
    assert choose_method(()) == "probability"


def test_the_reason_names_both_estimates():
    found = estimates(probability=0.90, energy=0.905, knn=0.93)
    assert "AUROC 93.0%, 90.0% by the largest probability" in why_chosen("knn", found, asked=False)
    assert "is not better by more than a point" in why_chosen("probability", found[:2], asked=False)
    over = (*found[:2], replace(found[2], left_out="too large"))
    assert "was left out" in why_chosen("probability", over, asked=False)
    assert "as requested" in why_chosen("energy", (), asked=True)


def test_a_threshold_of_scores_answers_the_share_and_may_be_negative():
    rng = np.random.default_rng(2)
    scores = rng.normal(size=999) - 50
    found = choose_threshold(np.full((999, 2), 0.5), np.zeros(999, int), coverage=0.9, scores=scores)
    assert (scores >= found).mean() == pytest.approx(0.9, abs=0.002)
    wrong = np.argsort(scores)[:50]
    labels = np.zeros(999, int)
    labels[wrong] = 1
    rows = np.tile([0.6, 0.4], (999, 1))
    least = choose_threshold(rows, labels, max_error=0.02, scores=scores)
    assert labels[scores >= least].mean() <= 0.02
    assert (scores >= least).mean() > 0.9


def test_what_is_no_score_is_refused():
    from effnet.errors import InputError

    with pytest.raises(InputError, match=r"unknown_score must be one of auto, .*; got 'enegry'; did you mean 'energy'"):
        Abstain(score="enegry")
    with pytest.raises(BundleError, match="the threshold of known must be a finite number"):
        KnownScore(method="energy", threshold=float("nan"))
