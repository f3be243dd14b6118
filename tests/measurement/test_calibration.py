"""Temperature, calibration error, risk-coverage and thresholds, against other implementations and plain counting."""

import json
import math
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from effnet.errors import DataError, InputError, MissingExtraError
from effnet.measurement.classification import calibration as cal
from effnet.tasks.costs import Costs

relaxed = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)


def drawn(seed, *, images=200, classes=5, spread=3.0, temperature=1.0):
    """Return logits, and labels that are drawn from their softmax at a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (images, classes))
    p = softmax(logits / temperature, axis=1)
    labels = (p.cumsum(1) < rng.random((images, 1))).sum(1).clip(max=classes - 1)
    return logits, labels


@pytest.mark.parametrize("true", [0.3, 0.8, 1.0, 1.7, 6.0])
def test_the_temperature_that_made_the_labels_is_found(true):
    logits, labels = drawn(1, images=30_000, temperature=true)
    assert cal.fit_temperature(logits, labels) == pytest.approx(true, rel=0.03)


@relaxed
@given(seed=seeds, images=st.integers(1, 60), classes=st.integers(2, 6), scale=st.floats(0.3, 3))
def test_no_other_temperature_is_likelier(seed, images, classes, scale):
    logits, labels = drawn(seed, images=images, classes=classes, temperature=scale)

    def cost(log_temperature):  # written out with scipy's softmax: all images, and one half first and half second
        log_p = log_softmax(logits * np.exp(-float(np.squeeze(log_temperature))), axis=1)
        best = np.sort(log_p, axis=1)[:, -2:]
        return -log_p[np.arange(images), labels].sum() - best.mean()

    found = cal.fit_temperature(logits, labels)
    starts = [minimize(cost, [x], method="Nelder-Mead").fun for x in (-1.0, 1.0)]
    grid = min(cost(x) for x in np.linspace(math.log(0.05), math.log(20), 200))
    assert cost(math.log(found)) <= min(grid, *starts if 0.06 < found < 19 else [grid]) + 1e-4


@pytest.mark.parametrize("images", [1, 9, 1000])
@pytest.mark.parametrize("gap", [0.9, 3.0, 8.0])
def test_images_that_are_all_right_make_it_no_surer_than_their_number_allows(images, gap):
    logits, labels = np.tile([gap, 0.0], (images, 1)), np.zeros(images, int)
    found = cal.fit_temperature(logits, labels)
    assert found == pytest.approx(gap / math.log(2 * images + 1), rel=1e-3)
    sure = softmax(logits[0] / found)[0]
    assert sure == pytest.approx((2 * images + 1) / (2 * images + 2), rel=1e-3)


def test_images_that_are_all_wrong_end_at_the_bound():
    assert cal.fit_temperature(np.tile([3.0, 0.0], (50, 1)), np.ones(50, int)) == 20
    assert cal.fit_temperature(np.tile([1e-3, 0.0], (50, 1)), np.zeros(50, int)) == 0.05


@pytest.mark.parametrize("logits", [np.zeros((4, 3)), np.zeros((4, 1)), np.full((4, 2), np.nan)])
def test_logits_that_say_nothing_keep_temperature_one(logits):
    assert cal.fit_temperature(logits, np.zeros(4, int)) == 1


@relaxed
@given(seed=seeds, factor=st.floats(0.5, 2), shift=st.floats(-100, 100))
def test_the_temperature_scales_with_the_logits_and_ignores_what_softmax_ignores(seed, factor, shift):
    logits, labels = drawn(seed, spread=2)
    found = cal.fit_temperature(logits, labels)
    assume(found != 1)
    assert cal.fit_temperature(logits * factor + shift, labels) == pytest.approx(found * factor, rel=2e-3)
    order = np.random.default_rng(seed).permutation(5)
    assert cal.fit_temperature(logits[:, order], np.argsort(order)[labels]) == pytest.approx(found, rel=1e-3)


@relaxed
@given(seed=seeds, temperature=st.floats(0.2, 10))
def test_a_temperature_changes_probabilities_but_no_answer(seed, temperature):
    logits, _ = drawn(seed)
    p = softmax(logits, axis=1)
    found = cal.apply_temperature(p, temperature)
    np.testing.assert_allclose(found, softmax(logits / temperature, axis=1), atol=1e-9)
    np.testing.assert_array_equal(found.argmax(1), p.argmax(1))
    np.testing.assert_allclose(cal.apply_temperature(found, 1 / temperature), p, atol=1e-6)


def test_probabilities_of_zero_are_no_trouble():
    p = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    assert np.isfinite(cal.to_logits(p)).all()
    assert cal.negative_log_likelihood(p, np.array([1, 1])) == pytest.approx(38 * math.log(10) / 2)
    assert 0.05 <= cal.fit_temperature(cal.to_logits(p), np.array([0, 1])) <= 20


def test_the_calibration_error_counted_by_hand():
    # Bins of a half: (0, 0.5] holds 0.4 right; (0.5, 1] holds 0.6 wrong, 0.8 right, 1.0 right.
    p = np.array([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2], [0.1, 0.8, 0.1], [0.0, 0.0, 1.0]])
    labels = np.array([0, 1, 1, 2])
    low, high = cal.reliability(p, labels, bins=2)
    assert (low.low, low.high, low.images, low.confidence, low.accuracy) == (0.0, 0.5, 1, 0.4, 1.0)
    assert (high.low, high.high, high.images, high.accuracy) == (0.5, 1.0, 3, 2 / 3)
    assert high.confidence == pytest.approx(0.8)
    expected = 1 / 4 * 0.6 + 3 / 4 * (0.8 - 2 / 3)
    assert cal.expected_calibration_error(p, labels, bins=2) == pytest.approx(expected)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_it():
    (only,) = cal.reliability(np.array([[0.5, 0.5]]), np.array([0]), bins=2)
    assert (only.low, only.high) == (0.0, 0.5)


@relaxed
@given(seed=seeds, images=st.integers(1, 300), bins=st.integers(1, 20))
def test_bins_are_those_of_scikit_learn_and_their_mean_gap_the_error(seed, images, bins):
    logits, labels = drawn(seed, images=images)
    p = softmax(logits, axis=1)
    found = cal.reliability(p, labels, bins=bins)
    right, sure = p.argmax(1) == labels, p.max(1)
    accuracy, confidence = calibration_curve(right, sure, n_bins=bins, strategy="uniform", pos_label=True)
    np.testing.assert_allclose([b.accuracy for b in found], accuracy, atol=1e-12)
    np.testing.assert_allclose([b.confidence for b in found], confidence, atol=1e-12)
    assert sum(b.images for b in found) == images
    gap = sum(b.images / images * abs(a - c) for b, a, c in zip(found, accuracy, confidence, strict=True))
    assert cal.expected_calibration_error(p, labels, bins=bins) == pytest.approx(gap)


@pytest.mark.parametrize("temperature, low, high", [(1.0, 0.0, 0.01), (3.0, 0.15, 1.0), (0.3, 0.1, 1.0)])
def test_only_a_model_that_is_calibrated_has_a_small_error(temperature, low, high):
    logits, labels = drawn(2, images=40_000, spread=2, temperature=temperature)
    assert low <= cal.expected_calibration_error(softmax(logits, axis=1), labels) < high


@relaxed
@given(seed=seeds)
def test_the_likelihood_is_that_of_scikit_learn(seed):
    logits, labels = drawn(seed, spread=2)
    p = softmax(logits, axis=1)
    expected = log_loss(labels, p, labels=range(5))
    assert cal.negative_log_likelihood(p, labels) == pytest.approx(expected, rel=1e-6)


@relaxed
@given(seed=seeds, images=st.integers(1, 40), digits=st.integers(1, 3))
def test_each_point_is_what_its_threshold_gives(seed, images, digits):
    logits, labels = drawn(seed, images=images)
    p = np.round(softmax(logits, axis=1), digits)  # many are equal
    sure, wrong = p.max(1), p.argmax(1) != labels
    curve = cal.risk_coverage(p, labels)
    assert sorted(curve.thresholds, reverse=True) == sorted(set(sure), reverse=True) == list(curve.thresholds)
    for threshold, coverage, risk in zip(curve.thresholds, curve.coverage, curve.risk, strict=True):
        assert coverage == pytest.approx((sure >= threshold).mean())
        assert risk == pytest.approx(wrong[sure >= threshold].mean())
    assert curve.coverage[-1] == 1
    assert curve.aurc == pytest.approx(np.mean([wrong[sure >= s].mean() for s in sure]))
    shuffled = np.random.default_rng(seed).permutation(images)
    assert cal.risk_coverage(p[shuffled], labels[shuffled]).aurc == pytest.approx(curve.aurc)


def test_the_area_counted_by_hand():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    curve = cal.risk_coverage(p, np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 2 / 4])
    assert curve.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)


@pytest.mark.parametrize("images", [1, 2, 100, 5000])
def test_the_points_of_a_curve_are_few_and_end_with_all_images(images):
    logits, labels = drawn(3, images=images)
    curve = cal.risk_coverage(softmax(logits, axis=1), labels)
    points = curve.points()
    assert len(points) <= 101
    assert points[-1] == (curve.thresholds[-1], 1.0, curve.risk[-1])
    assert points == tuple(sorted(points, reverse=True))
    assert set(points) <= set(zip(curve.thresholds, curve.coverage, curve.risk, strict=True))
    json.dumps(points)


def binary(sure, wrong):
    """Return probabilities and labels of images with these confidences, the first `wrong` of them mistaken."""
    sure = np.asarray(sure, float)
    labels = np.zeros(len(sure), int)
    labels[:wrong] = 1
    return np.column_stack([sure, 1 - sure]), labels


def test_a_coverage_leaves_that_share_of_the_least_sure_out():
    p, labels = binary(np.linspace(0.6, 0.98, 39), 0)  # of 40, with one pseudo-image among them, 4 are left out
    found = cal.choose_threshold(p, labels, coverage=0.9)
    assert found == pytest.approx(0.63, abs=2e-6)
    assert (p[:, 0] >= found).sum() == 36
    assert cal.choose_threshold(p, labels, coverage=0.95) == pytest.approx(0.61, abs=2e-6)
    assert cal.choose_threshold(p, labels, coverage=0.999) == pytest.approx(0.60, abs=2e-6)
    assert cal.choose_threshold(p, labels, coverage=1) is None
    assert cal.choose_threshold(p, labels) is None


def test_a_coverage_holds_on_average_for_images_not_seen():
    rng = np.random.default_rng(0)
    for images, coverage in ((50, 0.9), (50, 0.95), (400, 0.5)):
        covered = []
        for _ in range(400):
            sure = 0.5 + rng.beta(3, 1, images + 1000) / 2
            p, labels = binary(sure[:images], 0)
            covered.append((sure[images:] >= cal.choose_threshold(p, labels, coverage=coverage)).mean())
        assert coverage - 0.005 <= np.mean(covered) <= coverage + 1.5 / images


@pytest.mark.parametrize("images, wrong, max_error", [(459, 0, 0.01), (662, 1, 0.01), (44, 0, 0.1)])
def test_an_error_needs_enough_images_to_prove_it(images, wrong, max_error):
    # 459 = ln(0.01) / ln(0.99), rounded up. The mistake has the highest confidence, so that no threshold excludes it.
    for count, proven in ((images, True), (images - 1, False)):
        p, labels = binary(np.linspace(0.99, 0.6, count), wrong)
        found = cal.choose_threshold(p, labels, max_error=max_error)
        assert (found is not None) == proven
        if proven:
            assert (p[:, 0] >= found).all()


def test_the_largest_coverage_that_keeps_the_error_is_taken():
    sure = np.linspace(0.99, 0.6, 2000)
    labels = np.where((np.arange(2000) > 1500) & (np.arange(2000) % 3 == 0), 1, 0)  # mistakes only at low confidence
    p = np.column_stack([sure, 1 - sure])
    found = cal.choose_threshold(p, labels, max_error=0.02)
    kept = (sure >= found).sum()
    assert cal.error_bound(labels[:kept].sum(), kept) <= 0.02
    assert all(cal.error_bound(labels[:k].sum(), k) > 0.02 for k in range(kept + 1, 2001))


@pytest.mark.parametrize("wrong, answered", [(0, 1), (0, 300), (3, 100), (99, 100), (100, 100)])
def test_the_bound_is_that_of_scipys_exact_test(wrong, answered):
    expected = binomtest(wrong, answered, alternative="less").proportion_ci(0.99, method="exact").high
    assert float(cal.error_bound(np.array(wrong), np.array(answered))) == pytest.approx(expected)


def test_an_error_that_was_asked_is_rarely_exceeded_even_where_confidence_says_nothing():
    # Every image is wrong with a probability just above the requested error, so any threshold is a failure.
    rng, failed = np.random.default_rng(0), 0
    for _ in range(300):
        sure = rng.uniform(0.5, 1, 1000)
        p, labels = np.column_stack([sure, 1 - sure]), (rng.random(1000) < 0.0505).astype(int)
        failed += cal.choose_threshold(p, labels, max_error=0.05) is not None
    assert failed / 300 < 0.1


@relaxed
@given(seed=seeds, coverage=st.floats(0.05, 0.99))
def test_every_image_that_decided_reaches_the_threshold_in_32_bits(seed, coverage):
    logits, labels = drawn(seed, images=60)
    p = softmax(logits, axis=1).astype(np.float32)
    found = cal.choose_threshold(p, labels, coverage=coverage)
    assert (p.max(1) >= found).mean() >= coverage - 1 / 60
    assert 0 <= found <= 1
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    "words, message",
    [
        ({"coverage": 0.9, "max_error": 0.1}, "give coverage or max_error, not both"),
        ({"coverage": 0.0}, "coverage must be a share above 0 and at most 1, such as 0.95; got 0.0"),
        ({"coverage": 95}, "coverage must be a share"),
        ({"coverage": math.nan}, "coverage must be a share"),
        ({"max_error": 1.0}, "max_error must be a share between 0 and 1, such as 0.01; got 1.0"),
        ({"max_error": 0}, "max_error must be a share"),
    ],
)
def test_an_aim_out_of_range_is_refused(words, message):
    with pytest.raises(InputError, match=message):
        cal.Abstain(**words)


def test_unknown_images_ask_for_a_coverage_where_nothing_else_is_asked():
    assert cal.Abstain().aim == {"coverage": None, "max_error": None}
    assert cal.Abstain(unknown_from="x").aim == {"coverage": 0.95, "max_error": None}
    assert cal.Abstain(unknown_from="x", max_error=0.1).aim == {"coverage": None, "max_error": 0.1}


@pytest.mark.parametrize(
    "words, sentence",
    [
        ({}, "No threshold was requested: the model always answers."),
        ({"coverage": 0.9}, "The threshold was chosen on 200 validation images, to answer 90 % of them."),
        ({"coverage": 1.0}, "Answering every image needs no threshold."),
        ({"max_error": 0.5}, "The threshold was chosen on 200 validation images, for at most 50 % wrong."),
        ({"max_error": 0.01}, "do not prove it. That needs at least 459 images without a single wrong answer"),
    ],
)
def test_what_was_chosen_is_said_in_a_sentence(words, sentence):
    logits, labels = drawn(4)
    found = cal.calibrate(softmax(logits, axis=1), labels, cal.Abstain(**words))
    assert sentence in found.sentence
    assert (found.threshold is not None) == found.sentence.startswith("The threshold")
    assert found.images == 200
    json.dumps(found.to_dict())


def test_a_threshold_is_chosen_among_calibrated_probabilities():
    logits, labels = drawn(5, images=3000, temperature=3.0)
    found = cal.calibrate(softmax(logits, axis=1).astype(np.float32), labels, cal.Abstain(coverage=0.8))
    assert found.temperature == pytest.approx(3, rel=0.1)
    known = cal.apply_temperature(softmax(logits, axis=1), found.temperature).max(1) >= found.threshold
    assert known.mean() == pytest.approx(0.8, abs=0.01)


def test_images_of_weight_two_count_as_two():
    logits, labels = drawn(7, images=2000, temperature=2.0)
    often = np.where(labels == 0, 2, 1)
    found = cal.fit_temperature(logits, labels, weights=often / often.mean())
    assert found == pytest.approx(cal.fit_temperature(logits.repeat(often, 0), labels.repeat(often)), rel=1e-3)
    assert cal.fit_temperature(logits, labels, weights=np.ones(2000)) == cal.fit_temperature(logits, labels)


def test_probabilities_of_equal_classes_are_calibrated_on_images_weighted_so():
    """Calibrated for equal classes, they look wrong on the training frequencies: no temperature must correct that."""
    rng = np.random.default_rng(0)
    labels = (rng.random(20_000) < 0.05).astype(int)
    evidence = rng.normal(np.where(labels == 1, 1.0, -1.0), 1.0)  # its log odds are 2 * evidence
    logits = np.column_stack([-evidence, evidence])
    counts = np.bincount(labels)
    weights = (len(labels) / (2 * counts))[labels]
    assert cal.fit_temperature(3 * logits, labels, weights=weights) == pytest.approx(3, rel=0.05)


def test_without_images_nothing_is_calibrated():
    found = cal.calibrate(np.empty((0, 3)), np.empty(0, int), cal.Abstain(coverage=0.9))
    assert (found.temperature, found.threshold, found.images) == (1.0, None, 0)


@pytest.mark.parametrize("values, labels", [((0, 3), 0), ((4, 3), 3), ((4,), 4), ((4, 0), 4)])
def test_arrays_that_do_not_fit_are_refused(values, labels):
    for function in (cal.fit_temperature, cal.expected_calibration_error, cal.risk_coverage):
        with pytest.raises(DataError, match=r"needs values \[images, classes\] and a label per image"):
            function(np.zeros(values), np.zeros(labels, int))


def test_without_scipy_the_extra_is_named(monkeypatch):
    for name in ("scipy.optimize", "scipy.stats"):
        monkeypatch.setitem(sys.modules, name, None)
    for act in (lambda: cal.fit_temperature(np.zeros((2, 2)), np.zeros(2, int)), lambda: cal.error_bound(0, 1)):
        with pytest.raises(MissingExtraError, match=r"needs scipy.*effnet\[train\]"):
            act()


def test_the_error_that_a_threshold_bounds_is_that_of_the_answers_that_costs_decide():
    rng = np.random.default_rng(0)
    labels, top = np.arange(1200) % 2, rng.uniform(0.5, 1, 1200)
    labels = np.where(rng.random(1200) < top, 0, 1)
    probabilities = np.column_stack([top, 1 - top])
    costs = Costs(miss=(1.0, 3.0), false=(1.0, 1.0))  # the second class answers below 0.75
    threshold = cal.choose_threshold(probabilities, labels, max_error=0.3, costs=costs)
    answered = top >= threshold
    wrong = np.where(top < 0.75, 1, 0) != labels
    assert wrong[answered].mean() < 0.3
    assert threshold > cal.choose_threshold(probabilities, labels, max_error=0.3)
    curve = cal.risk_coverage(probabilities, labels, costs=costs)
    assert curve.risk[-1] == pytest.approx(wrong.mean())
