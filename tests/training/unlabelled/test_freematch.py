"""FreeMatch: thresholds and losses against the paper's formulas computed by hand, and its training."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import PREPROCESS, RECIPE, Stop, tiny_dataset, tiny_spec, weights
from torch import Tensor, nn

from effnet.errors import InputError
from effnet.nn.network import build
from effnet.training.device import normalized, pixels_of
from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.training.loop import train
from effnet.training.losses import Batch, cross_entropy
from effnet.training.unlabelled.freematch import (
    FreeMatchLoss,
    Thresholds,
    fairness_loss,
    freematch_recipe,
    kept_over,
    strong_views,
    unlabelled_loss,
    weak_recipe,
    with_thresholds_,
    without_thresholds_,
)
from effnet.training.unlabelled.pseudo import PseudoLabels
from effnet.training.unlabelled.student import student_set

pytestmark = pytest.mark.usefixtures("one_thread")


def thresholds(classes=3, keep=0.9, batches=2):
    return Thresholds(classes, keep=keep, batches=batches)


def test_the_thresholds_follow_equations_5_to_7_and_10():
    """Three answers, of confidences 0.8, 0.5 and 0.6; keep 0.9, so that a tenth of each mean is added."""
    found = thresholds()
    assert found.of_classes.tolist() == pytest.approx([1 / 3] * 3)
    rows = torch.tensor([[0.8, 0.1, 0.1], [0.5, 0.2, 0.3], [0.3, 0.6, 0.1]])
    found.move_(rows)
    level = 0.9 / 3 + 0.1 * (0.8 + 0.5 + 0.6) / 3
    shares = [0.9 / 3 + 0.1 * mean for mean in (1.6 / 3, 0.9 / 3, 0.5 / 3)]
    assert float(found.level) == pytest.approx(level)
    assert found.shares.tolist() == pytest.approx(shares)
    assert found.histogram.tolist() == pytest.approx([0.9 / 3 + 0.1 * 2 / 3, 0.9 / 3 + 0.1 / 3, 0.9 / 3])
    assert found.of_classes.tolist() == pytest.approx([level * share / max(shares) for share in shares])
    found.move_(rows[:1])
    assert float(found.level) == pytest.approx(0.9 * level + 0.08)


def test_an_answer_passes_by_the_threshold_of_its_class():
    found = thresholds()
    found.level.fill_(0.8)
    found.shares.copy_(torch.tensor([0.5, 0.25, 0.25]))
    rows = torch.tensor([[0.79, 0.21, 0.0], [0.81, 0.19, 0.0], [0.3, 0.41, 0.29], [0.35, 0.39, 0.26]])
    assert found.passing(rows).tolist() == [False, True, True, False]


def test_the_counts_are_those_of_one_epoch():
    found, answers = thresholds(batches=2), torch.tensor([0, 2, 2])
    for passing, passed, seen in (([1, 1, 0], [1, 0, 1], 3), ([1, 1, 1], [2, 0, 3], 6), ([0, 0, 1], [0, 0, 1], 3)):
        found.count_(answers, torch.tensor(passing, dtype=torch.bool))
        assert (found.passed.tolist(), int(found.seen)) == (passed, seen)


def test_the_unlabelled_loss_is_equation_8():
    """Cross-entropies of ln 2 and ln 4 pass, of three images."""
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.25, 0.65], [0.9, 0.05, 0.05]]))
    found = unlabelled_loss(logits, torch.tensor([0, 1, 2]), torch.tensor([True, True, False]))
    assert float(found) == pytest.approx((math.log(2) + math.log(4)) / 3)


def test_the_fairness_loss_is_equation_11():
    """Of the two passing views one is answered with class 0, one with class 1; none with class 2."""
    rows = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]])
    shares, histogram = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.5, 0.2, 0.3])
    found = fairness_loss(
        torch.log(rows), torch.tensor([True, True, False]), shares=shares, histogram=histogram
    )  # fmt: skip
    wanted = np.array([0.5 / 0.5, 0.3 / 0.2, 0.2 / 0.3])
    wanted /= wanted.sum()
    means = np.array([0.4 / 0.5, 0.5 / 0.5])
    means /= means.sum()
    assert float(found) == pytest.approx(wanted[0] * math.log(means[0]) + wanted[1] * math.log(means[1]))


probabilities = st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=1, max_size=8).map(
    lambda rows: torch.tensor(rows) / torch.tensor(rows).sum(1, keepdim=True)
)


@settings(deadline=None, max_examples=25)
@given(st.lists(probabilities, min_size=1, max_size=6), st.floats(0.5, 0.999))
def test_thresholds_stay_within_0_and_1_whatever_the_answers(steps, keep):
    found = thresholds(4, keep=keep)
    for rows in steps:
        found.move_(rows)
        each = found.of_classes
        assert bool(((each >= 0) & (each <= 1)).all())
        assert float(each.max()) == pytest.approx(float(found.level))
        assert float(found.shares.sum()) == pytest.approx(1, abs=1e-4)
        assert float(found.histogram.sum()) == pytest.approx(1, abs=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 30), st.floats(0, 1), st.integers(1, 9))
def test_of_uniform_probabilities_every_class_has_the_threshold_of_all(classes, level, images):
    found = thresholds(classes)
    found.move_(torch.full((images, classes), 1 / classes))
    found.level.fill_(level)
    torch.testing.assert_close(found.of_classes, torch.full((classes,), level))


@settings(deadline=None, max_examples=25)
@given(probabilities)
def test_if_nothing_passes_there_is_no_loss_and_no_gradient(rows):
    logits, none = rows.log().requires_grad_(True), torch.zeros(len(rows), dtype=torch.bool)
    found = unlabelled_loss(logits, rows.argmax(1), none)
    found = found + fairness_loss(logits, none, shares=rows.mean(0), histogram=torch.full((4,), 0.25))
    found.backward()
    assert found.item() == 0
    assert not logits.grad.any()


def test_the_memory_is_a_tenth_of_the_run_up_to_that_of_the_paper():
    assert [kept_over(steps) for steps in (3, 400, 10_000, 2**20)] == pytest.approx([0.9, 0.975, 0.999, 0.999])


def test_pixels_come_back_exactly():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(2, 3, 1, 1)
    preprocess = dataclasses.replace(PREPROCESS, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert torch.equal(pixels_of(normalized(pixels, preprocess), preprocess), pixels)


def test_strong_views_are_the_policy_on_the_same_pixels():
    images = normalized(torch.randint(0, 256, (6, 1, 16, 16), dtype=torch.uint8), PREPROCESS)
    augment = freematch_recipe(RECIPE, epochs=1).augment
    torch.manual_seed(1)
    found = strong_views(images, augment, PREPROCESS)
    assert (found != images).flatten(1).any(1).sum() >= 4
    torch.manual_seed(1)
    assert torch.equal(strong_views(images, augment, PREPROCESS), found)
    alone = dataclasses.replace(augment, policy="none", jitter=0.5, rotation=90.0)
    assert torch.equal(strong_views(images, alone, PREPROCESS), images)


def test_the_recipe_has_the_policy_for_strong_views_alone():
    asked = dataclasses.replace(RECIPE, augment=dataclasses.replace(RECIPE.augment, mixup=0.2, cutmix=1.0))
    found = freematch_recipe(asked, epochs=7)
    assert (found.name, found.train.epochs, found.train.last_counts, found.model.dropout) == ("freematch", 7, True, 0)
    assert (found.augment.policy, found.augment.num_ops, found.augment.mixup, found.augment.cutmix) == (
        "randaugment", 2, 0, 0,
    )  # fmt: skip
    assert weak_recipe(found).augment.policy == "none"


class Brightness(nn.Module):
    """Logits that are the mean of the image times a slope."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([2.0, 0.0, -2.0]))
        self.add_module("thresholds", thresholds())

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))[:, None] * self.slope


FREE = freematch_recipe(RECIPE, epochs=1)


def made_loss(recipe=FREE):
    return FreeMatchLoss(recipe=recipe, preprocess=PREPROCESS, labels=np.arange(3), num_classes=3)


def test_labelled_images_alone_have_the_loss_of_classifiers():
    batch = Batch(images=torch.randn(6, 1, 4, 4), labels=torch.eye(3).repeat(2, 1))
    expected = cross_entropy()(Brightness(), dataclasses.replace(batch, labels=batch.labels.argmax(1)))
    torch.testing.assert_close(made_loss()(ALONE)(Brightness(), batch), expected)


def test_the_loss_is_the_sum_of_its_parts():
    """Without a policy strong views are weak ones; all pass thresholds of 1 / classes, which one step barely moves."""
    recipe = weak_recipe(FREE)
    pixels = torch.tensor([250, 10, 240, 20, 5], dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 4, 4)
    images, model = normalized(pixels, PREPROCESS), Brightness()
    labels = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    moved = copy.deepcopy(model.thresholds)
    found = made_loss(recipe)(ALONE)(model, Batch(images=images, labels=labels))
    rows = torch.softmax(model(images), 1)
    moved.move_(rows[2:])
    own = -(rows[0, 0].log() + rows[1, 2].log()) / 2
    others = -(rows[2, 0].log() + rows[3, 2].log() + rows[4, 2].log()) / 3
    fair = fairness_loss(
        model(images)[2:], torch.ones(3, dtype=torch.bool), shares=moved.shares, histogram=moved.histogram
    )
    torch.testing.assert_close(found, own + others + 0.01 * fair)
    assert torch.equal(model.thresholds.shares, moved.shares)
    assert (model.thresholds.passed.tolist(), int(model.thresholds.seen)) == ([1, 0, 2], 3)


def test_several_processes_are_refused():
    with pytest.raises(InputError, match=r"freematch trains in one process; got 2"):
        made_loss()(Ranks(rank=0, size=2))


def run(folder, *, listener=None):
    """Train on 6 labelled images, and on the others of the set without their labels."""
    whole = tiny_dataset()
    few = dataclasses.replace(whole.train, sources=whole.train.sources[:6], labels=whole.train.labels[:6])
    alone = PseudoLabels(indices=np.arange(42), classes=np.zeros(42, np.int64), confidences=np.zeros(42, np.float32))
    dataset = student_set(
        dataclasses.replace(whole, train=few), whole.train.sources[6:], alone, smoothing=0.0, seed=0
    )  # fmt: skip
    recipe = freematch_recipe(RECIPE, epochs=2)
    model = build(tiny_spec(), seed=0)
    with_thresholds_(model, recipe, images=len(dataset.train), classes=3)
    loss = FreeMatchLoss(recipe=recipe, preprocess=PREPROCESS, labels=few.labels, num_classes=3)(ALONE)
    return train(
        model, dataset, weak_recipe(recipe), PREPROCESS, folder=folder, loss_fn=loss, listener=listener,
        checkpoint_seconds=0.0,
    )  # fmt: skip


def test_it_trains_and_an_interrupted_run_ends_with_the_same_weights_and_thresholds(tmp_path):
    whole = run(tmp_path / "whole")
    steps = []

    def stop(event):
        steps.append(event)
        if len(steps) == 4:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "parts", listener=stop)
    parts = run(tmp_path / "parts")
    before, after = weights(whole), weights(parts)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    found = without_thresholds_(whole.model)
    assert int(found.seen) == 42
    assert 0 < int(found.passed.sum()) <= 42
    assert float(found.level) != pytest.approx(1 / 3)
    assert not any("thresholds" in name for name in whole.model.state_dict())
