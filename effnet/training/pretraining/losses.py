"""Losses of self-supervised pretraining, on the projections [batch, width] of two views of each image."""

import torch
from torch import Tensor
from torch.nn import functional


def nt_xent(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Return the contrastive loss: each view must find its other view among all other views of the batch.

    Source: Chen et al. 2020, "A simple framework for contrastive learning" (arXiv 2002.05709), eq. 1.
    """
    cosines, partners = _cosines(first, second)
    return functional.cross_entropy(cosines / temperature, partners)


def decoupled(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Return the contrastive loss without the positive pair in the denominator, which suits batches of 256 and less.

    Source: Yeh et al. 2022, "Decoupled contrastive learning" (arXiv 2110.06848), eq. 6.
    """
    cosines, partners = _cosines(first, second)
    positives = cosines.gather(1, partners[:, None])[:, 0] / temperature
    negatives = cosines.scatter(1, partners[:, None], float("-inf")) / temperature
    return (torch.logsumexp(negatives, dim=1) - positives).mean()


def _cosines(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosines of all views [2 batch, 2 batch], -inf with themselves, and the row of each one's partner."""
    rows = functional.normalize(torch.cat([first, second]).float(), dim=1)
    own = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    partners = torch.arange(len(rows), device=rows.device).roll(len(first))
    return (rows @ rows.T).masked_fill(own, float("-inf")), partners


def byol(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared distance of vectors of length 1: 2 - 2 cos.

    Source: Grill et al. 2020, "Bootstrap your own latent" (arXiv 2006.07733), eq. 2.
    """
    return (2 - 2 * functional.cosine_similarity(predicted.float(), target.float(), dim=1)).mean()


def similarities(
    student: Tensor, teacher: Tensor, queue: Tensor, *, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Return the cross-entropy of a student's similarities to those of its teacher, of vectors of length 1.

    Both are compared with the teacher's vectors of this batch and of the `queue` [kept, width].
    Source: Fang et al. 2021, "SEED: self-supervised distillation" (arXiv 2101.04731), eq. 6.
    """
    keys = torch.cat([teacher, queue])
    wanted = torch.softmax(teacher @ keys.T / teacher_temperature, dim=1)
    found = torch.log_softmax(student @ keys.T / student_temperature, dim=1)
    return -(wanted * found).sum(1).mean()
