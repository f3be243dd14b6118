"""The losses of pretraining against pytorch-metric-learning's and their formulas written out."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretrained_runs import tiny_headless
from torch import nn
from torch.nn import functional

from effnet.nn.network import build
from effnet.training.pretraining.losses import byol, decoupled, nt_xent, similarities
from effnet.training.pretraining.model import Byol, Distilled, SimClr
from effnet.training.pretraining.views import Look

pytestmark = pytest.mark.usefixtures("one_thread")
NEEDS_PEER = pytest.mark.skipif(
    find_spec("pytorch_metric_learning") is None, reason="pytorch-metric-learning is not installed"
)


def two(count=6, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, width, generator=generator) for _ in range(2)]


@NEEDS_PEER
@pytest.mark.parametrize("temperature", [0.07, 0.1, 0.5])
@pytest.mark.parametrize("count, width, seed", [(2, 2, 0), (3, 16, 1), (9, 5, 2), (64, 128, 3)])
def test_nt_xent_is_that_of_pytorch_metric_learning(count, width, temperature, seed):
    from pytorch_metric_learning.losses import NTXentLoss

    first, second = two(count, width, seed)
    labels = torch.arange(count).repeat(2)
    expected = NTXentLoss(temperature=temperature)(torch.cat([first, second]), labels)
    torch.testing.assert_close(nt_xent(first, second, temperature=temperature), expected, atol=1e-5, rtol=1e-5)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@settings(deadline=None)
@given(st.integers(2, 7), st.sampled_from([0.1, 0.5]), st.integers(0, 99))
def test_decoupled_leaves_the_pair_out_of_its_denominator(count, temperature, seed):
    first, second = two(count, seed=seed)
    rows = unit(np.concatenate([first.numpy(), second.numpy()]).astype(np.float64))
    scores, total = rows @ rows.T / temperature, 0.0
    for i in range(2 * count):
        pair = (i + count) % (2 * count)
        others = [j for j in range(2 * count) if j not in (i, pair)]
        total += np.log(np.exp(scores[i, others]).sum()) - scores[i, pair]
    assert float(decoupled(first, second, temperature=temperature)) == pytest.approx(total / (2 * count), abs=1e-4)


def test_byol_is_the_squared_distance_of_unit_vectors():
    first, second = two()
    expected = (np.square(unit(first.numpy()) - unit(second.numpy()))).sum(1).mean()
    assert float(byol(first, second)) == pytest.approx(expected, abs=1e-6)


def test_similarities_are_a_cross_entropy_over_batch_and_queue():
    student, teacher = (functional.normalize(rows, dim=1) for rows in two(4))
    queue = functional.normalize(two(7, seed=3)[0], dim=1)
    found = similarities(student, teacher, queue, student_temperature=0.2, teacher_temperature=0.01)
    keys, total = np.concatenate([teacher.numpy(), queue.numpy()]).astype(np.float64), 0.0
    for own, other in zip(student.numpy(), teacher.numpy(), strict=True):
        wanted = np.exp((keys @ other - 1) / 0.01)
        logits = keys @ own / 0.2
        total -= (wanted / wanted.sum() * (logits - np.log(np.exp(logits).sum()))).sum()
    assert float(found) == pytest.approx(total / 4, abs=1e-5)
    same = similarities(teacher, teacher, queue, student_temperature=0.01, teacher_temperature=0.01)
    entropy = torch.softmax(teacher @ torch.cat([teacher, queue]).T / 0.01, dim=1)
    assert float(same) == pytest.approx(float(-(entropy * entropy.clamp_min(1e-30).log()).sum(1).mean()), abs=1e-5)


def network(seed=0):
    return build(tiny_headless(), seed=seed)


def images(seed=0):
    return torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_the_target_follows_the_network_and_gets_no_gradient():
    model = Byol(network(), momentum=0.9).train()
    before = [p.clone() for p in model.target.parameters()]
    model.loss(images(0), images(1)).backward()
    assert all(p.grad is None for p in model.target.parameters())
    # The network has not moved yet, and so its target has not.
    for old, now in zip(before, model.target.parameters(), strict=True):
        torch.testing.assert_close(old, now, atol=1e-7, rtol=1e-6)
    with torch.no_grad():
        for p in [*model.network.parameters(), *model.projector.parameters()]:
            p.add_(1.0)
    model.loss(images(0), images(1))
    for old, now in zip(before, model.target.parameters(), strict=True):
        torch.testing.assert_close(now, old + 0.1, atol=1e-5, rtol=1e-5)
    model.eval()
    after = [p.clone() for p in model.target.parameters()]
    model.loss(images(0), images(1))
    assert all(torch.equal(a, b) for a, b in zip(after, model.target.parameters(), strict=True))


def test_the_queue_keeps_the_latest_features_of_the_teacher():
    model = Distilled(network(), width=3, queued=10, student_temperature=0.2, teacher_temperature=0.01).train()
    shown = []

    class Teacher(nn.Module):
        def forward(self, batch):
            shown.append(functional.normalize(batch.flatten(1)[:, :3], dim=1))
            return shown[-1]

    for step in range(3):
        model.distil(images(step), images(step + 9), Teacher())
    assert int(model.filled) == 10
    torch.testing.assert_close(model.queue, torch.cat([shown[2], shown[1][:2]]))
    model.eval()
    kept = model.queue.clone()
    model.distil(images(0), images(1), Teacher())
    assert torch.equal(model.queue, kept)


def test_the_projector_is_no_part_of_the_network():
    model = SimClr(network(), temperature=0.1)
    assert model.network(images()).shape == (4, model.network.num_features)
    assert model(images()).shape == (4, 128)
    assert not any("projector" in name for name in model.network.state_dict())


def test_views_change_colours_as_asked():
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    still = Look(min_area=1.0, flip=False, strength=0.0, blur=False)
    assert still.distorted(image, np.random.default_rng(1)) is image
    loud = Look(min_area=1.0, flip=False, strength=1.0, blur=True)
    views = [loud.distorted(image, np.random.default_rng(seed)) for seed in range(40)]
    assert all(view.dtype == np.uint8 and view.shape == image.shape for view in views)
    grey = [np.ptp(view.astype(int), axis=2).max() == 0 for view in views]
    assert 2 <= sum(grey) <= 16
    again = loud.distorted(image, np.random.default_rng(3))
    assert np.array_equal(again, views[3])


@pytest.mark.parametrize("channels", [1, 4])
def test_views_of_other_channels_have_no_hue(channels):
    image = np.random.default_rng(0).integers(0, 256, (12, 12, channels), dtype=np.uint8)
    loud = Look(min_area=1.0, flip=False, strength=1.0, blur=True)
    assert all(loud.distorted(image, np.random.default_rng(s)).shape == image.shape for s in range(10))
