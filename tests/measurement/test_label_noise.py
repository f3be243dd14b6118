"""Wrong labels: simulated scores whose truth is known."""

import numpy as np
import pytest

from effnet.measurement.label_noise import label_noise


def simulated(*, classes: int, spread: float, rate: float, seed: int, images: int = 2000):
    """Return twice the true log probabilities of Gaussian classes, the given labels, which are wrong, and the truth."""
    rng = np.random.default_rng(seed)
    centres = np.eye(classes) * 4
    truth = rng.integers(0, classes, images)
    points = centres[truth] + spread * rng.normal(size=(images, classes))
    logits = 2 * (points @ centres.T - 8) / spread**2
    wrong = rng.random(images) < rate
    given = np.where(wrong, (truth + rng.integers(1, classes, images)) % classes, truth)
    return logits, given, wrong, truth


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.1, 0.3])
@pytest.mark.parametrize("spread", [0.8, 2.0])
def test_the_stated_rate_and_precision_are_the_true_ones(rate, spread):
    logits, given, wrong, truth = simulated(classes=8, spread=spread, rate=rate, seed=int(100 * rate))
    found = label_noise(logits, given)
    assert found.rate == pytest.approx(rate, abs=0.02)
    first = max(40, round(rate * len(given)))
    listed = np.argsort(-found.probabilities)[:first]
    assert found.expected_precision(first) == pytest.approx(wrong[listed].mean(), abs=0.3 if rate == 0 else 0.12)
    assert (np.diff(found.probabilities[listed]) <= 0).all()
    sure = listed[(found.probabilities[listed] > 0.9) & wrong[listed]]
    assert len(sure) == 0 or (found.likely[sure] == truth[sure]).mean() > 0.8
    assert (found.likely != given).all()


def test_classes_that_cannot_be_told_apart_raise_no_alarm():
    logits, given, *_ = simulated(classes=8, spread=3.5, rate=0.0, seed=0)
    assert (logits.argmax(1) != given).mean() > 0.5
    assert (label_noise(logits, given).probabilities > 0.5).mean() < 0.01


def test_the_temperature_of_scores_that_are_too_sharp_is_found():
    logits, given, *_ = simulated(classes=5, spread=2.0, rate=0.05, seed=3)
    assert label_noise(logits, given).temperature == pytest.approx(2, rel=0.1)
    assert label_noise(3 * logits, given).temperature == pytest.approx(6, rel=0.1)


def test_two_classes_and_a_handful_of_images_are_judged():
    logits = np.array([[4.0, -4], [4, -4], [-4, 4], [-4, 4], [4, -4]])
    found = label_noise(logits, np.array([0, 0, 1, 1, 1]))
    assert found.probabilities.argmax() == 4
    assert list(found.likely) == [1, 1, 0, 0, 0]
