"""The losses of pairs equal open_clip's formulas, and several processes compute the loss of one."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from effnet.training.distributed.ranks import Met, Ranks
from effnet.training.losses import Batch
from effnet.training.words.losses import PairLoss, info_nce, sigmoid_loss
from effnet.training.words.towers import Fixed, Towers

PAIRS, WIDTH = 12, 6


def pairs(seed=0, count=PAIRS):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, count, WIDTH, generator=generator, dtype=torch.float64)
    return functional.normalize(rows, dim=2)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_info_nce_is_open_clips_clip_loss(scale):
    """open_clip/loss.py, ClipLoss.forward, of one process."""
    images, texts = pairs()
    per_image = scale * images @ texts.T
    per_text = scale * texts @ images.T
    labels = torch.arange(PAIRS)
    expected = (functional.cross_entropy(per_image, labels) + functional.cross_entropy(per_text, labels)) / 2
    assert info_nce(images, texts, scale=torch.tensor(scale)) == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("scale, bias", [(1.0, 0.0), (10.0, -10.0), (100.0, -3.0)])
def test_the_sigmoid_loss_is_open_clips_siglip_loss(scale, bias):
    """open_clip/loss.py, SigLipLoss._loss: -logsigmoid(labels * logits).sum() / batch, labels 1 on the diagonal."""
    images, texts = (rows.numpy() for rows in pairs())
    logits = scale * images @ texts.T + bias
    labels = 2 * np.eye(PAIRS) - np.ones((PAIRS, PAIRS))
    expected = np.log1p(np.exp(-labels * logits)).sum() / PAIRS
    found = sigmoid_loss(*pairs(), scale=torch.tensor(scale), bias=torch.tensor(bias))
    assert found == pytest.approx(expected, abs=1e-5 * max(1, expected))


class Meeting:
    """What Ranks gathers, of processes that run one after the other: first all give, then all take."""

    def __init__(self, size):
        self.size, self.given, self.met = size, [], 0

    def of(self, rank):
        meeting = self

        class Process(Ranks):
            def meet(self, *, asked=False):
                meeting.met += 1
                return Met(asked=False, clock=0.0)

            def gather(self, value):
                if len(meeting.given) < meeting.size:
                    meeting.given.append(value)
                    raise StopIteration
                return meeting.given

        return Process(rank=rank, size=self.size)


def towers(loss):
    torch.manual_seed(3)
    made = Towers(nn.Linear(5, WIDTH), nn.Linear(4, WIDTH), loss=loss).double()
    made.bias.requires_grad_(loss == "siglip")
    return made


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("loss", ["clip", "siglip"])
@pytest.mark.parametrize("bounds", [(0, 6, 12), (0, 3, 8, 12)], ids=["even", "uneven"])
def test_the_processes_gradients_sum_to_that_of_one(loss, bounds):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(PAIRS, 5, generator=generator, dtype=torch.float64)
    labels = torch.randn(PAIRS, 4, generator=generator, dtype=torch.float64)
    alone = towers(loss)
    expected = PairLoss()(alone, Batch(images=images, labels=labels))
    expected.backward()
    parts = [slice(*pair) for pair in itertools.pairwise(bounds)]
    meeting = Meeting(len(parts))
    batches = [Batch(images=images[part], labels=labels[part]) for part in parts]
    model = towers(loss)
    for rank, batch in enumerate(batches):  # all give their rows
        with pytest.raises(StopIteration):
            PairLoss(ranks=meeting.of(rank))(model, batch)
    total = 0.0
    for rank, (part, batch) in enumerate(zip(parts, batches, strict=True)):
        found = PairLoss(ranks=meeting.of(rank))(model, batch)
        weight = (part.stop - part.start) / PAIRS
        (found * weight).backward()  # as Stepper weights it; gradients add up
        total += found.item() * weight
    assert meeting.met == 2 * len(parts)
    assert total == pytest.approx(expected.item(), abs=1e-5)
    wanted, summed = gradients(alone), gradients(model)
    assert set(wanted) == set(summed) >= {"image.weight", "text.weight", "log_scale"}
    for name in wanted:
        torch.testing.assert_close(summed[name], wanted[name], atol=1e-5, rtol=1e-5)


def test_a_batch_that_all_compute_whole_has_no_pair_twice():
    generator = torch.Generator().manual_seed(1)
    batch = Batch(
        images=torch.randn(3, 5, generator=generator, dtype=torch.float64),
        labels=functional.normalize(torch.randn(3, WIDTH, generator=generator, dtype=torch.float64), dim=1),
    )
    model = Towers(nn.Linear(5, WIDTH), Fixed(), loss="clip").double()
    meeting = Meeting(2)
    for rank in range(2):
        with pytest.raises(StopIteration):
            PairLoss(ranks=meeting.of(rank))(model, batch)
    expected = PairLoss()(model, batch).item()
    assert PairLoss(ranks=meeting.of(0))(model, batch).item() == pytest.approx(expected)
