"""Temperatures and thresholds of several outputs, against brute force."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import f1_score, log_loss

from effnet.data.several.outputs import OutputSpec
from effnet.measurement.classification import calibration
from effnet.measurement.classification.calibration import Abstain
from effnet.measurement.several.calibrate import (
    calibrate_outputs,
    choose_tag_threshold,
    fit_tag_temperature,
    tempered,
)

KIND = OutputSpec(name="kind", kind="one", classes=("a", "b", "c"))
TAGS = OutputSpec(name="tags", kind="many", classes=("x", "y"))
YEAR = OutputSpec(name="year", kind="number")

_pairs = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.5001, 0.8, 1.0]), st.booleans()), min_size=1, max_size=12
)
_costs = st.none() | st.tuples(st.sampled_from([0.5, 1.0, 5.0]), st.sampled_from([1.0, 2.0]))


def merit(p, on, said, costs):
    """Return the F1, or minus the cost, of the labels mixed with the probabilities as if by 20 images with the tag."""
    weight = on.sum() / (on.sum() + 20)
    expected = weight * on + (1 - weight) * p
    if costs is not None:
        return -(costs[0] * expected[~said].sum() + costs[1] * (1 - expected)[said].sum())
    both, weights = np.repeat([1, 0], len(p)), np.concatenate([expected, 1 - expected])
    return f1_score(both, np.tile(said, 2), sample_weight=weights, zero_division=0.0)


@settings(deadline=None)
@given(_pairs, _costs)
def test_a_threshold_is_the_best_of_all(pairs, costs):
    p, on = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    found = choose_tag_threshold(p, on.astype(float), costs)
    usual = 0.5 if costs is None else costs[1] / sum(costs)
    if not on.any():
        assert found == usual
        return
    every = sorted({0.0, usual, *np.unique(p), *(np.unique(p) + 1e-6)})
    best = max(merit(p, on, p >= threshold, costs) for threshold in every if threshold <= 1)
    assert 0 <= found <= 1
    assert merit(p, on, p >= found, costs) == pytest.approx(best)
    if merit(p, on, p >= usual, costs) == pytest.approx(best, abs=1e-14):
        assert found == pytest.approx(usual)
    order = np.random.default_rng(0).permutation(len(p))
    assert choose_tag_threshold(p[order], on[order].astype(float), costs) == found


def test_a_few_images_with_a_tag_hardly_move_its_threshold_and_many_do():
    p, on = np.array([0.9, 0.7, 0.6, 0.2, 0.1]), np.array([1.0, 0.0, 0.0, 0.0, 0.0])
    assert choose_tag_threshold(p, on) < 0.6  # its own labels alone say between 0.7 and 0.9
    assert 0.7 < choose_tag_threshold(np.tile(p, 100), np.tile(on, 100)) < 0.9


def test_unknown_images_do_not_move_a_threshold():
    p, on = np.array([0.2, 0.35, 0.4, 0.9]), np.array([0.0, 1.0, np.nan, 1.0])
    assert choose_tag_threshold(p, on) == pytest.approx(0.275)
    assert choose_tag_threshold(p[:0], on[:0]) == 0.5
    assert choose_tag_threshold(p, np.full(4, np.nan)) == 0.5


def tags_of(scale, count=400, *, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, (count, 2))
    on = rng.random((count, 2)) < 1 / (1 + np.exp(-true))
    return 1 / (1 + np.exp(-true * scale)), on.astype(float)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_of_tags_minimises_cross_entropy(scale):
    p, on = tags_of(scale, 4000)
    on[::3, 1] = np.nan
    known = ~np.isnan(on)
    found = fit_tag_temperature(p, on)
    assert found == pytest.approx(scale, rel=0.1)
    cost = lambda t: log_loss(on[known], tempered(p, t)[known])  # noqa: E731
    best = minimize_scalar(cost, bounds=(0.05, 20), method="bounded").x
    assert found == pytest.approx(best, rel=0.01)  # but for the pseudo-image
    assert cost(found) <= cost(1.0) + 1e-9


def rows_of(count=200, *, unknown=0.2, seed=0):
    rng = np.random.default_rng(seed)
    labels, (p, on) = rng.integers(0, 3, count), tags_of(2.0, count, seed=seed)
    logits = 3 * np.eye(3)[labels] + rng.normal(0, 2, (count, 3))
    classes = calibration.apply_temperature(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1.0)
    targets = np.column_stack([labels.astype(float), on, rng.normal(size=count)])
    targets[rng.random(count) < unknown, 0] = np.nan
    targets[rng.random(count) < unknown, 1:3] = np.nan
    return np.column_stack([classes, p, rng.normal(size=count)]).astype(np.float32), targets


def test_each_output_is_calibrated_on_its_known_images():
    rows, targets = rows_of()
    (kind, tags, year), record = calibrate_outputs(rows, targets, (KIND, TAGS, YEAR), Abstain(coverage=0.9))
    known = ~np.isnan(targets[:, 0])
    alone = calibration.calibrate(rows[known, :3], targets[known, 0].astype(int), Abstain(coverage=0.9))
    assert (kind.temperature, kind.threshold) == (alone.temperature, alone.threshold)
    assert tags.temperature == fit_tag_temperature(rows[:, 3:5], targets[:, 1:3])
    p = tempered(rows[:, 3:5], tags.temperature)
    assert tags.thresholds == tuple(choose_tag_threshold(p[:, i], targets[:, 1 + i]) for i in range(2))
    assert year == YEAR
    assert (record.images, record.temperature, record.threshold, record.coverage) == (200, 1.0, None, 0.9)
    assert record.sentence == f'Thresholds below which an output answers "unknown": kind {kind.threshold:.4g}.'


def test_costs_choose_the_thresholds_of_tags():
    rows, targets = rows_of(800)
    dear = dataclasses.replace(TAGS, miss=(20.0, 1.0), false=(1.0, 1.0))
    (_, tags, _), _ = calibrate_outputs(rows, targets, (KIND, dear, YEAR), Abstain())
    (_, plain, _), _ = calibrate_outputs(rows, targets, (KIND, TAGS, YEAR), Abstain())
    assert tags.thresholds[0] < 0.25 < plain.thresholds[0]


def test_outputs_without_known_values_or_images_keep_the_usual():
    rows, targets = rows_of(30)
    targets[:, :3] = np.nan
    for part in (slice(None), slice(0)):
        (kind, tags, _), record = calibrate_outputs(
            rows[part], targets[part], (KIND, TAGS, YEAR), Abstain(coverage=0.9)
        )
        assert (kind.temperature, kind.threshold) == (1.0, None)
        assert (tags.temperature, tags.thresholds) == (1.0, (0.5, 0.5))
    assert record.sentence == "There were no validation images to calibrate on."
    _, record = calibrate_outputs(rows, targets, (TAGS, YEAR), Abstain())
    assert record.sentence == "No threshold was requested: each output always answers."
