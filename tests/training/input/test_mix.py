"""Mixup and CutMix: images and targets are mixed alike in any batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from effnet.training.input.mix import mix
from effnet.training.losses import Batch, Mixed, cross_entropy, soft_targets
from effnet.training.recipe.schema import Augment

pytestmark = pytest.mark.usefixtures("one_thread")

BOTH = Augment(mixup=0.5, cutmix=1.0)


def numbered(count: int, *, height: int = 12, width: int = 12) -> Batch:
    """Return images whose pixels all equal their number, which is also their label."""
    labels = torch.arange(count)
    return Batch(images=labels.float()[:, None, None, None].expand(-1, 2, height, width).clone(), labels=labels)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), st.integers(1, 20), st.integers(1, 20), st.floats(0.05, 3), st.integers(0, 999))
def test_cutmix_weighs_by_the_area_that_is_left(count, height, width, alpha, step):
    batch = numbered(count, height=height, width=width)
    result = mix(batch, Augment(cutmix=alpha), seed=1, step=step)
    own = result.images == batch.labels[:, None, None, None]
    partner = result.images == result.mixed.partner[:, None, None, None]
    assert (own ^ partner).all()
    assert torch.equal(result.mixed.weight, own.float().mean((1, 2, 3))) or torch.allclose(
        result.mixed.weight, own.float().mean((1, 2, 3)), atol=1e-6
    )
    for box in partner[:, 0]:  # one rectangle each
        rows, columns = box.any(1), box.any(0)
        assert torch.equal(box, rows[:, None] & columns[None])
        for line in (rows, columns):
            assert (line.int().diff().abs().sum() + line[0].int() + line[-1].int()) <= 2


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.floats(0.05, 3), st.integers(0, 999))
def test_mixup_weighs_images_as_labels(count, alpha, step):
    batch = numbered(count)
    result = mix(batch, Augment(mixup=alpha), seed=1, step=step)
    shown = soft_targets(result, num_classes=count) @ torch.arange(count).float()
    assert torch.allclose(result.images, shown[:, None, None, None].expand_as(result.images), atol=1e-4)
    assert ((result.mixed.weight >= 0) & (result.mixed.weight <= 1)).all()


@pytest.mark.parametrize("count", [2, 3, 8])
def test_no_image_is_its_own_partner_and_each_is_one_once(count):
    partner = mix(numbered(count), BOTH, seed=0, step=0).mixed.partner
    assert not (partner == torch.arange(count)).any()
    assert sorted(partner.tolist()) == list(range(count))


def test_a_batch_of_one_and_one_without_mixing_stay_as_they_are():
    one, many = numbered(1), numbered(4)
    assert mix(one, BOTH, seed=0, step=0) is one
    assert mix(many, Augment(), seed=0, step=0) is many


def test_where_both_are_on_each_step_takes_one_of_them():
    batch = numbered(16, height=24, width=24)
    cut = []
    for step in range(200):
        images = mix(batch, BOTH, seed=0, step=step).images
        whole = images == images.round()
        cut.append(bool(whole.all()))
        assert cut[-1] or whole.flatten(1).all(1).sum() <= 4  # a weight may be nearly 0 or 1
    assert np.mean(cut) == pytest.approx(0.5, abs=0.12)


def test_the_same_step_mixes_alike_and_the_batch_given_stays():
    batch = numbered(8)
    before = batch.images.clone()
    first, again, other = (mix(batch, Augment(cutmix=1.0), seed=0, step=step) for step in (5, 5, 6))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.mixed.weight, again.mixed.weight)
    assert not torch.equal(first.images, other.images)
    assert torch.equal(batch.images, before)
    assert torch.equal(first.labels, batch.labels)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(2, 12), st.floats(0, 0.9), st.integers(0, 99))
def test_soft_targets_sum_to_one_and_show_both_labels(count, classes, smoothing, seed):
    generator = torch.Generator().manual_seed(seed)
    labels, partner = torch.randint(0, classes, (2, count), generator=generator)
    weight = torch.rand(count, generator=generator)
    batch = Batch(images=torch.zeros(count, 1, 1, 1), labels=labels, mixed=Mixed(partner=partner, weight=weight))
    found = soft_targets(batch, num_classes=classes, smoothing=smoothing)
    assert torch.allclose(found.sum(1), torch.ones(count))
    for row, own, other, share in zip(found, labels, partner, weight, strict=True):
        expected = torch.full((classes,), smoothing / classes)
        expected[own] += (1 - smoothing) * share
        expected[other] += (1 - smoothing) * (1 - share)
        assert torch.allclose(row, expected, atol=1e-6)


class Answers(nn.Module):
    """Returns the images' first pixels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, 0, 0]


def test_the_loss_of_mixed_images_is_the_weighted_loss_of_both_labels():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator)
    labels, partner = torch.randint(0, 5, (2, 6), generator=generator)
    weight = torch.rand(6, generator=generator)
    batch = Batch(images=logits[:, :, None, None], labels=labels, mixed=Mixed(partner=partner, weight=weight))
    both = [functional.cross_entropy(logits, y, reduction="none", label_smoothing=0.1) for y in (labels, partner)]
    expected = (weight * both[0] + (1 - weight) * both[1]).mean()
    assert cross_entropy(0.1)(Answers(), batch).item() == pytest.approx(expected.item(), abs=1e-5)
    plain = Batch(images=batch.images, labels=labels)
    assert cross_entropy(0.1)(Answers(), plain).item() == pytest.approx(both[0].mean().item(), abs=1e-6)
