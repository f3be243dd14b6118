"""Statistics of drift against scipy, and against chance."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from effnet.measurement.drift.compare import compare_samples
from effnet.measurement.drift.sample import PROPERTIES, Sample
from effnet.measurement.drift.statistics import index_by_chance, ks_distance, ks_p_value, stability_index


@pytest.mark.parametrize("seed", range(6))
def test_the_test_of_kolmogorov_and_smirnov_is_scipys(seed):
    rng = np.random.default_rng(seed)
    before, after = rng.normal(0, 1, rng.integers(20, 400)), rng.normal(0.1 * seed, 1, rng.integers(20, 400))
    before[:5] = after[:5]  # ties
    theirs = scipy.stats.ks_2samp(before, after, method="exact")
    distance = ks_distance(before, after)
    assert distance == pytest.approx(theirs.statistic, abs=1e-12)
    assert ks_p_value(distance, len(before), len(after)) == pytest.approx(theirs.pvalue, rel=0.25, abs=0.01)


def test_the_limit_distribution_is_kolmogorovs():
    for value in (0.05, 0.1, 0.3):
        size = 10**10
        root = np.sqrt(size / 2)
        wanted = scipy.stats.kstwobign.sf(root * value / 1e4)
        assert ks_p_value(value / 1e4, size, size) == pytest.approx(wanted, abs=1e-4)
    assert ks_p_value(0.0, 10, 10) == 1


def test_chance_gives_the_index_that_is_simulated():
    before, after = np.full(8, 4000.0), np.full(8, 9000.0)
    wanted = scipy.stats.chi2.isf(1e-3, 7) * (1 / before.sum() + 1 / after.sum())
    assert index_by_chance(before, after) == pytest.approx(wanted, rel=0.15)
    rng, shares = np.random.default_rng(0), np.array([0.9, 0.05, 0.03, 0.01, 0.01])
    limits = index_by_chance(300 * shares, 20 * shares)
    found = [stability_index(rng.multinomial(300, shares), rng.multinomial(20, shares)) for _ in range(500)]
    assert np.mean(np.array(found) > limits) <= 0.01


def _sample(rng, images, *, shift=0.0, classes=4):
    logits = rng.normal(0, 2, (images, classes))
    logits[:, 0] += shift
    rows = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Sample(probabilities=rows.astype(np.float32), properties=rng.normal(0.5, 0.1, (images, len(PROPERTIES))))


def test_few_comparisons_without_drift_find_any_and_most_with_drift_do():
    rng, names = np.random.default_rng(1), tuple("abcd")

    def share(shift: float, times: int, images: int = 150) -> float:
        pairs = [(_sample(rng, 300), _sample(rng, images, shift=shift)) for _ in range(times)]
        found = [compare_samples(*pair, names, reference="") for pair in pairs]
        return sum(each.drifted for each in found) / len(found)

    assert share(0.0, 60) <= 0.1  # at most 5 % are expected
    assert share(0.0, 40, images=20) <= 0.1
    assert share(1.5, 8) >= 0.9


def test_what_changed_is_named_and_the_share_of_unknown_counted():
    rng, names = np.random.default_rng(2), tuple("abcd")
    before, after = _sample(rng, 300), _sample(rng, 200)
    after.properties[:, PROPERTIES.index("brightness")] -= 0.2
    after.probabilities[:50] = 0.25
    before, after = (replace(each, unknown=each.probabilities.max(1) < 0.3) for each in (before, after))
    found = compare_samples(before, after, names, reference="the test split")
    assert "brightness" in [each.name for each in found.shifts if each.drifted]
    assert "megapixels" not in [each.name for each in found.shifts if each.drifted]
    assert found.unknown.after == pytest.approx((after.probabilities.max(1) < 0.3).mean())
    assert found.unknown.before == pytest.approx((before.probabilities.max(1) < 0.3).mean())
    assert found.level == pytest.approx(0.05 / 9)
    assert found.to_dict()["drifted"] is True
