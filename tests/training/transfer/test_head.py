"""The linear probe is scikit-learn's logistic regression, for features that are not standardised."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from effnet.errors import DataError, MissingExtraError
from effnet.training.recipe.schema import Balance
from effnet.training.transfer.head import PENALTIES, known_head, train_head


def clouds(classes, *, images=120, channels=12, seed=0, spread=2.0):
    """Return features of overlapping classes, with channels of different scale and mean, and labels of every class.

    The classes are the same for every seed.
    """
    rng = np.random.default_rng(99)
    centres = rng.standard_normal((classes, channels))
    scales, places = rng.uniform(0.1, 3, channels), rng.uniform(-2, 2, channels)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % classes)
    values = (centres[labels] + spread * rng.standard_normal((images, channels))) * scales + places
    return values.astype(np.float32), labels


def fit(values, labels, *, classes, val=None, **options):
    val_values, val_labels = val or (values, labels)
    return train_head(values, labels, num_classes=classes, val_features=val_values, val_labels=val_labels, **options)


def probabilities(head, values):
    logits = values.astype(np.float64) @ head.weight.T + head.bias
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def reference(values, labels, penalty):
    """Return scikit-learn's own classifier on standardised features, at a small tolerance."""
    model = LogisticRegression(C=1 / (penalty * len(labels)), tol=1e-9, max_iter=10_000)
    return make_pipeline(StandardScaler(), model).fit(values.astype(np.float64), labels)


@pytest.mark.parametrize("penalty", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_head_is_scikit_learns_logistic_regression(classes, penalty):
    values, labels = clouds(classes)
    new, _ = clouds(classes, seed=1, spread=3.0)
    head = fit(values, labels, classes=classes, penalties=(penalty,))
    expected = reference(values, labels, penalty)
    for some in (values, new):
        np.testing.assert_allclose(probabilities(head, some), expected.predict_proba(some), rtol=0, atol=1e-2)
    assert head.weight.shape == (classes, 12)
    assert head.bias.shape == (classes,)
    assert head.weight.dtype == head.bias.dtype == np.float32
    assert head.weight.flags.c_contiguous  # safetensors writes memory as it lies
    assert expected.predict_proba(values).max(1).min() < 0.9  # else they would agree too easily


@pytest.mark.parametrize("classes", [2, 4])
def test_the_strongest_penalty_within_one_standard_error_of_the_least_loss_is_taken(classes):
    values, labels = clouds(classes, images=60)
    val = clouds(classes, images=200, seed=1)
    penalties = (10.0, 1.0, 0.1, 1e-3, 1e-5)
    rows = {p: reference(values, labels, p).predict_proba(val[0]) for p in penalties}
    losses = {p: log_loss(val[1], rows[p]) for p in penalties}
    least = min(losses, key=losses.get)
    each = -np.log(rows[least][np.arange(200), val[1]])
    head = fit(values, labels, classes=classes, val=val, penalties=penalties)
    best = max(p for p in penalties if losses[p] <= losses[least] + each.std(ddof=1) / 200**0.5)
    assert head.penalty == best
    assert best not in (penalties[0], penalties[-1])  # else the order of the penalties would do as well
    assert head.val_loss == pytest.approx(losses[best], abs=2e-3)
    assert head.val_figure == pytest.approx((probabilities(head, val[0]).argmax(1) == val[1]).mean())
    assert fit(values, labels, classes=classes, val=val, penalties=penalties[::-1]).penalty == best
    assert fit(values, labels, classes=classes).penalty in PENALTIES


def test_weights_are_small_where_chance_can_explain_what_larger_ones_bring():
    """Twelve validation images say little: the lowest loss alone would choose a weaker penalty."""
    values, labels = clouds(3, spread=1.0)
    val = clouds(3, images=12, seed=1, spread=1.0)
    heads = {p: fit(values, labels, classes=3, val=val, penalties=(p,)) for p in (1e-1, 1e-2)}
    assert heads[1e-2].val_loss < heads[1e-1].val_loss
    chosen = fit(values, labels, classes=3, val=val, penalties=(1e-2, 1e-1))
    assert chosen.penalty == 1e-1
    assert np.linalg.norm(chosen.weight) < 0.5 * np.linalg.norm(heads[1e-2].weight)
    one = fit(values, labels, classes=3, val=(values[:1], labels[:1]), penalties=(1e-2, 1e-4))
    assert one.penalty == 1e-4


@settings(max_examples=15, deadline=None)
@given(
    classes=st.integers(2, 4),
    scale=st.sampled_from((1e-6, 1e-3, 0.3, 50.0, 1e4)),
    offset=st.sampled_from((-20.0, 0.0, 3.0)),
    seed=st.integers(0, 5),
)
def test_scale_and_offset_of_the_features_do_not_matter(classes, scale, offset, seed):
    values, labels = clouds(classes, images=60, seed=seed)
    moved = ((values + np.float32(offset)) * np.float32(scale)).astype(np.float32)
    expected = probabilities(fit(values, labels, classes=classes), values)
    found = probabilities(fit(moved, labels, classes=classes), moved)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3)


def test_channels_of_unlike_scales_count_alike():
    values, labels = clouds(3)
    scales = np.geomspace(1e-1, 10, values.shape[1]).astype(np.float32)
    expected = probabilities(fit(values, labels, classes=3), values)
    found = probabilities(fit(values * scales, labels, classes=3), values * scales)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("constant", [0.0, 1.0, -1e3, 0.1])
@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_constant_channels_change_nothing(constant, noise):
    values, labels = clouds(3)
    expected = probabilities(fit(values, labels, classes=3), values)
    rng = np.random.default_rng(0)
    dull = (constant + noise * rng.standard_normal((len(values), 2))).astype(np.float32)
    more = np.concatenate([values, dull], axis=1)
    head = fit(more, labels, classes=3)
    assert np.isfinite(head.weight).all()
    np.testing.assert_allclose(probabilities(head, more), expected, rtol=0, atol=5e-3)
    # A channel that hardly varies here may vary elsewhere, and must not decide then.
    assert np.abs(head.weight[:, -2:]).max() < 0.1 * np.abs(head.weight).max()


def test_features_that_are_all_alike_give_the_shares_of_the_classes():
    labels = np.array([0, 0, 0, 1, 1, 2])
    head = fit(np.full((6, 4), 3.0, np.float32), labels, classes=3)
    np.testing.assert_allclose(probabilities(head, np.full((1, 4), 3.0)), [[1 / 2, 1 / 3, 1 / 6]], atol=1e-3)


def test_classes_that_can_be_told_apart_are(recwarn):
    values, labels = clouds(5, spread=0.05)
    head = fit(values, labels, classes=5)
    assert head.val_figure == 1
    assert head.val_loss < 0.05
    assert np.isfinite(head.weight).all()
    assert not recwarn.list


def test_a_image_far_away_has_a_finite_loss():
    values, labels = clouds(3)
    far = values[:3] * np.float32(1e6)
    head = fit(values, labels, classes=3, val=(far, (labels[:3] + 1) % 3))
    assert np.isfinite(head.val_loss)


def test_a_class_without_a_image_is_named():
    values, labels = clouds(3)
    some = labels != 1
    with pytest.raises(DataError, match=r"each of 3 classes.* none of class 1 among 80"):
        fit(values[some], labels[some], classes=3)
    with pytest.raises(DataError, match="none of class 1"):
        fit(values[labels == 0], labels[labels == 0], classes=2)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtraError, match=r'needs scikit-learn.* pip install "effnet\[train\]"'):
        fit(*clouds(2), classes=2)


def imbalanced(*, seed=0):
    """Return three overlapping classes of 340, 60 and 20 images."""
    values, labels = clouds(3, images=1020, seed=seed)
    kept = np.concatenate([np.flatnonzero(labels == c)[:n] for c, n in enumerate((340, 60, 20))])
    return values[kept], labels[kept]


def test_an_adjusted_head_is_the_same_one_less_the_logarithm_of_the_frequencies():
    values, labels = imbalanced()
    plain = fit(values, labels, classes=3, penalties=(1e-2,))
    found = fit(values, labels, classes=3, penalties=(1e-2,), balance=Balance(method="adjust", strength=0.5))
    assert np.array_equal(found.weight, plain.weight)
    np.testing.assert_allclose(plain.bias - found.bias, 0.5 * np.log(np.bincount(labels) / len(labels)), atol=1e-5)
    assert found.val_balanced_figure > plain.val_balanced_figure


@pytest.mark.parametrize("method", ["weight", "sample"])
def test_a_weighted_head_is_scikit_learns_of_balanced_classes(method):
    values, labels = imbalanced()
    head = fit(values, labels, classes=3, penalties=(1e-2,), balance=Balance(method=method))
    model = LogisticRegression(C=1 / (1e-2 * len(labels)), tol=1e-9, max_iter=10_000, class_weight="balanced")
    expected = make_pipeline(StandardScaler(), model).fit(values.astype(np.float64), labels)
    np.testing.assert_allclose(probabilities(head, values), expected.predict_proba(values), rtol=0, atol=1e-2)


def test_the_loss_that_chooses_a_penalty_counts_classes_as_the_answers_do():
    values, labels = imbalanced()
    head = fit(values, labels, classes=3, penalties=(1e-2,), balance=Balance(method="adjust"))
    losses = -np.log(probabilities(head, values)[np.arange(len(labels)), labels])
    assert head.val_loss == pytest.approx(np.mean([losses[labels == c].mean() for c in range(3)]), rel=1e-4)


@pytest.mark.parametrize(("removed", "strength"), [(0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.5, 1.0)])
def test_a_known_head_gets_the_frequencies_that_are_asked_for_once(removed, strength):
    """Frequencies removed before are not removed again, and those that should stay are restored."""
    values, labels = imbalanced()

    def solved(strength):
        balance = Balance(method="adjust", strength=strength) if strength else Balance()
        return fit(values, labels, classes=3, penalties=(1e-2,), balance=balance), balance

    before, (expected, balance) = solved(removed)[0], solved(strength)
    found = known_head(
        before.weight, before.bias, values, labels, train_labels=labels, balance=balance, removed=removed
    )
    np.testing.assert_allclose(found.bias, expected.bias, atol=1e-5)
    assert found.val_loss == pytest.approx(expected.val_loss, rel=1e-4)
