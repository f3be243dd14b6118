"""Pseudo-labels and the loss of their students, against their definitions written out."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import PREPROCESS, RECIPE, tiny_dataset, tiny_spec
from torch import nn

from effnet.nn.network import build
from effnet.training.distributed.ranks import ALONE
from effnet.training.input.mix import mix
from effnet.training.loop import train
from effnet.training.losses import Batch, Mixed, binary_cross_entropy, cross_entropy, make_terms
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Augment, Recipe
from effnet.training.unlabelled.pseudo import PseudoLabels, choose_threshold, pseudo_labels
from effnet.training.unlabelled.student import StudentLoss, labelled_recipe, noisy_recipe, soft_labels, student_set

pytestmark = pytest.mark.usefixtures("one_thread")


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([0.5, 0.9, 0.95, 1.0]),
    st.integers(1, 8),
)
def test_the_threshold_is_the_lowest_of_the_required_precision(answers, least, few):
    confidences = np.array([0.5 + each / 41 for each, _ in answers])
    right = np.array([good for _, good in answers])
    rows = np.stack([confidences, 1 - confidences], 1)
    labels = np.where(right, rows.argmax(1), 1 - rows.argmax(1))
    passing = [
        value
        for value in np.unique(confidences)
        if (confidences >= value).sum() >= few and right[confidences >= value].mean() >= least - 1e-9
    ]
    found = choose_threshold(rows, labels, least=least, answers=few)
    if not passing:
        assert found is None
        return
    passed = confidences >= min(passing)
    assert found.value == min(passing)
    assert (found.answers, found.precision) == (passed.sum(), pytest.approx(right[passed].mean()))


def test_without_validation_images_there_is_no_threshold():
    assert choose_threshold(np.empty((0, 3)), np.empty(0, np.int64)) is None


def test_pseudo_labels_are_the_confident_answers():
    rows = np.array([[0.9, 0.1], [0.4, 0.6], [0.05, 0.95]])
    found = pseudo_labels(rows, np.array([3, 5, 9]), 0.9)
    assert (found.indices.tolist(), found.classes.tolist()) == ([3, 9], [0, 1])
    assert found.counts(3).tolist() == [1, 1, 0]


def made(count, classes=3):
    rng = np.random.default_rng(1)
    return PseudoLabels(
        indices=np.arange(count), classes=rng.integers(0, classes, count),
        confidences=rng.uniform(0.5, 1, count).astype(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("count, labelled", [(0, 48), (30, 48), (144, 48), (300, 100), (1000, 334)])
def test_a_student_sees_one_labelled_image_for_three_others(count, labelled):
    dataset, pseudo = tiny_dataset(), made(count)
    images = [np.full((4, 4, 1), i % 256, np.uint8) for i in range(count)]
    found = student_set(dataset, images, pseudo, smoothing=0.1, seed=0).train
    assert len(found) == labelled + count
    rows = found.labels
    assert rows.dtype == np.float32
    assert np.allclose(rows[:labelled].sum(1), 1)
    assert np.allclose(rows[labelled:].sum(1), pseudo.confidences)
    known = {id(source): label for source, label in zip(dataset.train.sources, dataset.train.labels, strict=True)}
    assert [known[id(source)] for source in found.sources[:labelled]] == rows[:labelled].argmax(1).tolist()
    times = np.unique([id(source) for source in found.sources[:labelled]], return_counts=True)[1]
    assert len(times) == 48
    assert times.max() - times.min() <= 1
    assert np.allclose(rows[:labelled].max(1), 0.9 + 0.1 / 3)
    assert all(a is b for a, b in zip(found.sources[labelled:], images, strict=True))


class Same(nn.Module):
    def forward(self, images):
        return images.flatten(1)


def batches(mixed=False):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(12, 3, 1, 1, generator=generator), torch.arange(12) % 3
    weight = torch.rand(12, generator=generator)
    hard = Batch(images=images, labels=labels, mixed=Mixed(partner=labels.roll(-1), weight=weight) if mixed else None)
    rows = torch.full((12, 3), 0.1 / 3) + 0.9 * torch.nn.functional.one_hot(labels, 3)
    soft = Batch(images=images, labels=rows, mixed=Mixed(partner=rows.roll(-1, 0), weight=weight) if mixed else None)
    return hard, soft


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{}, {"loss.focal_gamma": 2.0}, {"balance.method": "adjust"}, {"balance.method": "weight"}, {"loss.name": "bce"}],
    ids=str,
)
def test_hard_classes_of_weight_one_have_the_loss_of_classifiers(changes, mixed):
    recipe, labels = with_values(Recipe(), changes), np.repeat([0, 1, 2], [9, 3, 5])
    hard, soft = batches(mixed)
    terms = make_terms(recipe, labels, num_classes=3)
    expected = binary_cross_entropy(0.1) if recipe.loss.name == "bce" else cross_entropy(0.1, terms)
    made_loss = pickle.loads(pickle.dumps(StudentLoss(recipe=recipe, labels=labels, num_classes=3)))(ALONE)
    torch.testing.assert_close(made_loss(Same(), soft), expected(Same(), hard))


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_an_image_counts_by_its_weight(name):
    loss = soft_labels(with_values(Recipe(), {"loss.name": name}))
    _, batch = batches()
    weights = torch.rand(12, generator=torch.Generator().manual_seed(3))
    each = torch.stack(
        [loss(Same(), Batch(images=batch.images[i : i + 1], labels=batch.labels[i : i + 1])) for i in range(12)]
    )
    weighted = dataclasses.replace(batch, labels=batch.labels * weights[:, None])
    torch.testing.assert_close(loss(Same(), weighted), (weights * each).mean())


def test_mixing_keeps_soft_labels_in_their_rows():
    _, batch = batches()
    found = mix(batch, Augment(mixup=0.2), seed=0, step=0)
    torch.testing.assert_close(found.mixed.partner, torch.cat([batch.labels[1:], batch.labels[:1]]))


def test_the_recipe_has_the_noise_and_ends_without_it():
    noisy = noisy_recipe(Recipe(), epochs=7)
    assert (noisy.model.dropout, noisy.model.drop_path) == (0.2, 0.1)
    assert (noisy.augment.policy, noisy.augment.num_ops) == ("randaugment", 2)
    assert (noisy.train.epochs, noisy.train.last_counts, noisy.train.patience) == (7, True, 0)
    last = labelled_recipe(noisy, epochs=2)
    assert (last.augment.policy, last.train.epochs, last.train.last_counts) == ("none", 2, True)
    assert last.train.lr == pytest.approx(0.1 * noisy.train.lr)


def test_the_last_epoch_counts_if_the_recipe_says_so(tmp_path):
    """A loss that rewards wrong answers: the network is worse after every epoch."""
    changes = {"train.epochs": 2, "train.ema_decay": 0.0, "schedule.name": "constant", "schedule.warmup": 0.0}

    def wrong(model, batch):
        return -cross_entropy()(model, batch)

    results = {}
    for last in (False, True):
        recipe = with_values(RECIPE, changes | {"train.last_counts": last})
        results[last] = train(
            build(tiny_spec(), seed=0), tiny_dataset(), recipe, PREPROCESS, folder=tmp_path / str(last), loss_fn=wrong
        )
    rows = results[True].history
    assert rows[1]["val_loss"] > rows[0]["val_loss"]
    assert rows[1]["val_accuracy"] <= rows[0]["val_accuracy"]
    assert (results[False].best_epoch, results[True].best_epoch) == (1, 2)


def test_a_student_is_trained_on_soft_labels(tmp_path):
    dataset = student_set(tiny_dataset(), [], made(0), smoothing=0.1, seed=0)
    loss = StudentLoss(recipe=RECIPE, labels=dataset.train.labels.argmax(1), num_classes=3)(ALONE)
    found = train(build(tiny_spec(), seed=0), dataset, RECIPE, PREPROCESS, folder=tmp_path, loss_fn=loss)
    assert found.history[-1]["loss"] < found.history[0]["loss"]
