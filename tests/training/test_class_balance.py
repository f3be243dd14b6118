"""Class balancing: weights as scikit-learn's, reproducible sampling, and no correction twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from tiny_runs import PREPROCESS, RECIPE, Stop, run, weights

from effnet.data.datasets import Split
from effnet.data.order import Blocks
from effnet.errors import DataError, InputError
from effnet.training.input.batches import cached_loader, train_batches
from effnet.training.recipe.balance import class_weights, held_out_weights, log_prior, sampled
from effnet.training.recipe.file import recipe_from_dict, with_values
from effnet.training.recipe.schema import Balance, Recipe

COUNTS = st.lists(st.integers(1, 60), min_size=2, max_size=8)
STRENGTHS = st.floats(0.01, 1.0)


def labels_of(counts):
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


@given(counts=COUNTS, strength=STRENGTHS)
def test_weights_are_scikit_learns_balanced_ones_and_of_mean_one_at_any_strength(counts, strength):
    labels, number = labels_of(counts), len(counts)
    known = compute_class_weight("balanced", classes=np.arange(number), y=labels)
    np.testing.assert_allclose(class_weights(labels, num_classes=number, strength=1.0), known)
    found = class_weights(labels, num_classes=number, strength=strength)
    assert found[labels].mean() == pytest.approx(1.0)
    np.testing.assert_allclose(found / found[0], (known / known[0]) ** strength)


@given(counts=COUNTS, held=COUNTS, removed=STRENGTHS)
def test_held_out_images_weigh_what_the_answers_assume(counts, held, removed):
    number = len(counts)
    val = labels_of((held * number)[:number])
    found = held_out_weights(val, train_labels=labels_of(counts), num_classes=number, removed=removed)
    wanted = np.array(counts, float) ** (1 - removed)
    np.testing.assert_allclose(np.bincount(val, found) / len(val), wanted / wanted.sum())
    assert held_out_weights(val, train_labels=labels_of(counts), num_classes=number, removed=0.0) is None


def test_a_class_without_an_image_has_no_frequency():
    with pytest.raises(DataError, match="class 1, 3 of 5 has none: add images, or leave balance out"):
        log_prior(np.array([0, 2, 4, 4]), num_classes=5)


@given(counts=COUNTS, strength=STRENGTHS, seed=st.integers(0, 99))
def test_samples_show_classes_as_often_as_asked_and_images_of_a_class_equally_often(counts, strength, seed):
    labels = labels_of(counts)
    places, times = sampled(labels, Balance(method="sample", strength=strength), seed=seed, epoch=3)
    assert len(places) == len(times) == len(labels)
    shares = np.array(counts) ** (1 - strength)
    shown = np.bincount(labels[places], minlength=len(counts))
    assert (np.abs(shown - shares / shares.sum() * len(labels)) < 1 + 1e-9).all()
    for label in range(len(counts)):
        often = np.bincount(places, minlength=len(labels))[labels == label]
        assert often.max() - often.min() <= 1
    assert len(set(zip(places.tolist(), times.tolist(), strict=True))) == len(places)  # no view comes twice
    again = sampled(labels, Balance(method="sample", strength=strength), seed=seed, epoch=3)
    assert all(map(np.array_equal, again, (places, times)))


def rare(num=34):
    """Return two classes, 16:1, of noise images: no two views of an image are equal."""
    labels = (np.arange(num) % 17 == 0).astype(np.int64)
    images = np.random.default_rng(0).integers(0, 256, (num, 24, 24, 1), dtype=np.uint8)
    return Split(sources=list(images), labels=labels)


SAMPLE = with_values(Recipe(), {"train.batch_size": 8, "balance.method": "sample"})


def batches(split, recipe=SAMPLE, **options):
    load = cached_loader(split, PREPROCESS)
    return list(train_batches(load, split.labels, recipe, PREPROCESS, epoch=1, **options))


def test_sampled_batches_are_shared_out_and_resumed_exactly_and_views_differ():
    split = rare()
    whole = batches(split)
    assert sum(len(labels) for _, labels in whole) == len(split)
    assert sum(labels.sum() for _, labels in whole) == len(split) // 2  # half of all are of the rare class
    seen = {image.tobytes() for images, _ in whole for image in images}
    assert len(seen) == len(split)
    parts = [batches(split, own=own) for own in (lambda n: slice(0, n // 2), lambda n: slice(n // 2, n))]
    for (images, labels), *shares in zip(whole, *parts, strict=True):
        assert np.array_equal(np.concatenate([share[0] for share in shares]), images)
        assert np.array_equal(np.concatenate([share[1] for share in shares]), labels)
    for (images, labels), (others, same) in zip(whole[2:], batches(split, start=2), strict=True):
        assert np.array_equal(images, others)
        assert np.array_equal(labels, same)


def test_sampled_batches_fetch_one_block_after_the_other():
    split, numbers = rare(68), np.arange(68) // 17  # each block holds one rare image
    blocks = Blocks(numbers=numbers, mixed=1)
    found = np.concatenate([labels for _, labels in batches(split, blocks=blocks)])
    assert found.sum() == len(found) // 2
    places, _ = sampled(split.labels, SAMPLE.balance, seed=0, epoch=1)
    assert len(np.unique(numbers[places])) == 4


def test_a_balanced_run_that_was_interrupted_ends_with_the_same_weights(tmp_path):
    recipe = with_values(RECIPE, {"train.epochs": 2, "balance.method": "sample", "loss.focal_gamma": 0.5})
    expected = weights(run(tmp_path / "whole", recipe=recipe))

    def stop(event):
        if getattr(event, "val_loss", None) is not None:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "cut", recipe=recipe, listener=stop)
    again = weights(run(tmp_path / "cut", recipe=recipe))
    assert all(np.array_equal(expected[name], again[name]) for name in expected)


def test_the_best_epoch_is_the_one_of_the_best_balanced_accuracy(tmp_path):
    recipe = with_values(RECIPE, {"train.epochs": 2, "balance.method": "adjust"})
    found = run(tmp_path, recipe=recipe)
    reached = [row["val_balanced_accuracy"] for row in found.history]
    assert reached[found.best_epoch - 1] == max(reached)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"balance.method": "oversample"}, "balance.method must be one of none, adjust, sample, weight"),
        ({"balance.strength": 0.0}, "balance.strength must lie above 0 and be at most 1; got 0"),
        ({"loss.focal_gamma": -1.0}, "loss.focal_gamma must lie in 0..10; got -1"),
        ({"loss.focal_gamma": 2.0, "loss.name": "bce"}, "set one of them"),
        ({"balance.method": "adjust", "loss.name": "bce"}, "give sample, which suits every loss"),
    ],
)
def test_what_contradicts_itself_is_refused(values, words):
    with pytest.raises(InputError, match=words):
        with_values(Recipe(), values)


def test_a_recipe_of_before_is_not_balanced():
    data = Recipe().to_dict()
    del data["balance"], data["loss"]["focal_gamma"]
    assert recipe_from_dict(data) == Recipe()
