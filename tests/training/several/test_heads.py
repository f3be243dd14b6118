"""Heads of several outputs on features, against scikit-learn's models of each output alone."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from effnet.data.several.outputs import OutputSpec, column_names, fitted_specs, label_text, placed, to_targets
from effnet.errors import DataError
from effnet.training.recipe.schema import Balance
from effnet.training.several.heads import known_heads, train_heads
from effnet.training.transfer.head import train_head

NAMES = column_names(
    (
        OutputSpec(name="kind", kind="one", classes=("a", "b", "c")),
        OutputSpec(name="tags", kind="many", classes=("x", "y")),
        OutputSpec(name="year", kind="number"),
    )
)


def made(seed, size):
    """Features whose first columns tell each output, with noise; a third of the cells is unknown."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(size, 12)).astype(np.float32)
    kinds = (features[:, :3] + rng.normal(size=(size, 3)) / 3).argmax(1)
    tags = features[:, 3:5] + rng.normal(size=(size, 2)) / 3 > 0
    years = 2000 + 4 * features[:, 5] + rng.normal(size=size)
    texts = []
    for kind, tag, year in zip(kinds, tags, years, strict=True):
        label = {"kind=": "abc"[kind], "tags:": [n for n, on in zip("xy", tag, strict=True) if on], "year": year}
        texts.append(label_text({key: value for key, value in label.items() if rng.random() > 0.3}))
    return features, to_targets(texts, NAMES)


@pytest.fixture(scope="module")
def both():
    return made(0, 600), made(1, 400)


@pytest.fixture(scope="module")
def head(both):
    (features, targets), (val_features, val_targets) = both
    specs = fitted_specs(NAMES, targets)
    return specs, train_heads(features, targets, specs=specs, val_features=val_features, val_targets=val_targets)


def test_each_output_is_as_good_as_scikit_learns_model_of_it_alone_on_the_images_that_know_it(both, head):
    (features, targets), (x, y) = both
    specs, found = head
    values = x @ found.weight.T + found.bias
    for place in placed(specs):
        column, own = targets[:, place.targets], y[:, place.targets]
        known, held = ~np.isnan(column).any(1), ~np.isnan(own).any(1)
        if place.spec.kind == "number":
            model = Ridge().fit(features[known], column[known, 0])
            error = np.abs(place.spec.mean + place.spec.scale * values[held, place.columns][:, 0] - own[held, 0]).mean()
            assert error < 1.05 * np.abs(model.predict(x[held]) - own[held, 0]).mean()
            assert error < 0.5 * np.abs(np.median(own[held, 0]) - own[held, 0]).mean()
        elif place.spec.kind == "one":
            model = LogisticRegression(max_iter=500).fit(features[known], column[known, 0])
            right = (values[held, place.columns].argmax(1) == own[held, 0]).mean()
            assert right > model.score(x[held], own[held, 0]) - 0.02 > 0.7
        else:
            for tag in range(2):
                model = LogisticRegression(max_iter=500).fit(features[known], column[known, tag])
                right = ((values[held, place.columns][:, tag] > 0) == own[held, tag]).mean()
                assert right > model.score(x[held], own[held, tag]) - 0.02 > 0.7
    assert 0.7 < found.val_figure < 1


def test_the_columns_of_classes_are_those_of_a_head_of_its_own(both, head):
    (features, targets), (x, y) = both
    known, held = (~np.isnan(rows[:, 0]) for rows in (targets, y))
    alone = train_head(
        features[known], targets[known, 0].astype(int), num_classes=3, val_features=x[held],
        val_labels=y[held, 0].astype(int),
    )  # fmt: skip
    np.testing.assert_allclose(head[1].weight[:3], alone.weight, atol=1e-6)
    np.testing.assert_allclose(head[1].bias[:3], alone.bias, atol=1e-6)


def test_balancing_shifts_only_the_classes_and_a_known_layer_the_same_way(both, head):
    (features, targets), (x, y) = both
    specs, plain = head
    balance = Balance(method="adjust", strength=0.5)
    moved = train_heads(features, targets, specs=specs, val_features=x, val_targets=y, balance=balance)
    np.testing.assert_allclose(moved.bias[3:], plain.bias[3:])
    counts = np.bincount(targets[~np.isnan(targets[:, 0]), 0].astype(int))
    expected = -0.5 * np.log(counts / counts.sum())
    shift = moved.bias[:3] - plain.bias[:3]
    np.testing.assert_allclose(shift - shift.mean(), expected - expected.mean(), atol=1e-5)
    known = known_heads(
        plain.weight, plain.bias, x, y, specs=specs, train_targets=targets, balance=balance, removed=0.0
    )
    np.testing.assert_allclose(known.bias[:3] - plain.bias[:3], expected, atol=1e-5)


def test_an_output_that_no_readable_image_knows_is_named(both):
    (features, targets), (x, y) = both
    specs, targets = fitted_specs(NAMES, targets), targets.copy()
    targets[:, 1:3] = np.nan
    with pytest.raises(DataError, match="whose tags is known"):
        train_heads(features, targets, specs=specs, val_features=x, val_targets=y)
    targets[:, 1:3] = [0, 1]
    with pytest.raises(DataError, match=r"^tags x: a head needs"):
        train_heads(features, targets, specs=specs, val_features=x, val_targets=y)
