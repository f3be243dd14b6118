import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from effnet.data.annotated.masks.codes import IGNORE
from effnet.training.losses import Batch
from effnet.training.segmentation.losses import dice_loss, pixel_loss, pixel_weights, segmentation_loss

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(seed, *, classes=4, size=(3, 9, 7), ignored=0.2):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((size[0], classes, *size[1:])) * 2
    masks = rng.integers(0, classes, size)
    masks[rng.random(size) < ignored] = IGNORE
    return logits, masks


def softmax(logits):
    values = np.exp(logits - logits.max(1, keepdims=True))
    return values / values.sum(1, keepdims=True)


def tensors(logits, masks):
    return torch.from_numpy(logits).requires_grad_(), torch.from_numpy(masks).long()


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.sampled_from([0.0, 0.3, 0.95]))
@settings(max_examples=25, deadline=None)
def test_cross_entropy_is_the_weighted_mean_over_known_pixels(seed, classes, ignored):
    logits, masks = drawn(seed, classes=classes, ignored=ignored)
    weights = np.random.default_rng(seed).uniform(0.1, 3, classes)
    known = masks != IGNORE
    if not known.any():
        return
    p = softmax(logits).transpose(0, 2, 3, 1)[known]
    true = masks[known]
    each = -np.log(p[np.arange(len(true)), true])
    values, target = tensors(logits, masks)
    assert pixel_loss(values, target).item() == pytest.approx(each.mean(), abs=1e-9)
    expected = (each * weights[true]).sum() / weights[true].sum()
    assert pixel_loss(values, target, weights=torch.from_numpy(weights)).item() == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.sampled_from([0.0, 0.3, 0.95]))
@settings(max_examples=25, deadline=None)
def test_dice_is_the_formula_over_the_classes_that_are_true_in_the_batch(seed, classes, ignored):
    logits, masks = drawn(seed, classes=classes, ignored=ignored)
    p, known, found = softmax(logits), masks != IGNORE, []
    for number in range(classes):
        true = (masks == number)[known]
        if true.any():
            guessed = p[:, number][known]
            found.append(1 - 2 * guessed[true].sum() / (guessed.sum() + true.sum()))
    values, target = tensors(logits, masks)
    assert dice_loss(values, target).item() == pytest.approx(np.mean(found) if found else 0.0, abs=1e-6)


def test_dice_is_that_of_segmentation_models_pytorch_if_all_classes_are_true():
    logits, masks = drawn(1)
    values, target = tensors(logits, masks)
    # smp 0.5, losses/dice.py, mode multiclass, from_logits, ignore_index=255, smooth=0.
    known = target != IGNORE
    p = values.log_softmax(1).exp().view(3, 4, -1) * known.view(3, 1, -1)
    t = functional.one_hot((target * known).to(torch.long).view(3, -1), 4).permute(0, 2, 1) * known.view(3, 1, -1)
    score = 2 * (p * t).sum((0, 2)) / (p + t).sum((0, 2)).clamp_min(1e-7)
    assert dice_loss(values, target).item() == pytest.approx((1 - score).mean().item(), abs=1e-6)


def test_ignored_pixels_have_no_gradient_and_masks_without_a_known_pixel_no_loss():
    logits, masks = drawn(2)
    values, target = tensors(logits, masks)
    (pixel_loss(values, target) + dice_loss(values, target)).backward()
    assert (values.grad[:, 0][target == IGNORE] == 0).all()
    assert (values.grad[:, 0][target != IGNORE] != 0).all()
    values, target = tensors(logits, np.full_like(masks, IGNORE))
    loss = pixel_loss(values, target) + dice_loss(values, target)
    loss.backward()
    assert loss.item() == 0
    assert not values.grad.any()


def test_logits_of_a_coarse_stride_are_enlarged_to_the_masks():
    net = nn.Conv2d(3, 2, 4, stride=4)
    images = torch.rand(2, 3, 16, 24)
    masks = torch.randint(0, 2, (2, 16, 24), dtype=torch.uint8)
    batch = Batch(images=images, labels=masks)
    coarse = net(images)
    cell = np.clip((np.arange(16) + 0.5) / 4 - 0.5, 0, 3)
    rows = np.stack([np.interp(cell, np.arange(4), coarse[0, 1, :, 2].detach().numpy())])
    enlarged = functional.interpolate(coarse, (16, 24), mode="bilinear", align_corners=False)
    assert np.interp(2.125, [2, 3], coarse[0, 1, :, 2].detach().numpy()[2:]) == pytest.approx(rows[0, 10], abs=1e-6)
    whole = functional.cross_entropy(enlarged, masks.long()) + 0.5 * dice_loss(enlarged, masks.long())
    assert segmentation_loss(dice=0.5)(net, batch).item() == pytest.approx(whole.item(), abs=1e-6)

    class Named(nn.Module):
        def forward(self, x):
            return {"mask": net(x)}

    assert segmentation_loss(dice=0.5)(Named(), batch).item() == pytest.approx(whole.item(), abs=1e-6)


def test_weights_of_pixels():
    counts = np.array([900, 90, 10, 0])
    pixels = np.repeat(np.arange(3), counts[:3])
    # scikit-learn's compute_class_weight("balanced"): pixels / (classes * pixels of the class).
    assert pixel_weights(counts, strength=1.0)[:3] == pytest.approx(1000 / (3 * counts[:3]), abs=1e-9)
    found = pixel_weights(counts, strength=0.5)
    assert found[1] / found[0] == pytest.approx(np.sqrt(900 / 90))
    assert found[pixels].mean() == pytest.approx(1)
    assert found[3] == 1
