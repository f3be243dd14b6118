"""Untargeted attacks within a largest change of each pixel: FGSM, and PGD with a random start."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.data.preprocess import Preprocess

# The size of a PGD step, so that all steps together can go from one end of the range to the other. Source: Madry et al.
# 2018, github.com/MadryLab/robustness, which take 2.5 eps / steps.
_REACH = 2.5


def fgsm(model: nn.Module, pixels: Tensor, labels: Tensor, preprocess: Preprocess, *, eps: float) -> Tensor:
    """Return attacked pixels: one step of `eps` against the gradient's sign, from the image itself.

    `pixels` are float [batch, C, R, R] in 0..1, `labels` classes [batch], `eps` the largest change of a pixel; `model`
    maps normalised images to logits. Source: Goodfellow et al. 2015 (arXiv 1412.6572), section 4.
    """
    return _step(model, pixels, pixels, labels, preprocess, size=eps, eps=eps)


def pgd(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    preprocess: Preprocess,
    *,
    eps: float,
    steps: int,
    generator: torch.Generator,
    size: float | None = None,
) -> Tensor:
    """Return attacked pixels: `steps` steps from a random start, each projected back to at most `eps` from the image.

    Arguments are those of `fgsm`; `size` is that of a step, by default 2.5 eps / steps. Source: Madry et al. 2018
    (arXiv 1706.06083), section 2.1.
    """
    start = (2 * torch.rand(pixels.shape, generator=generator) - 1).to(pixels) * eps
    found = (pixels + start).clamp_(0, 1)
    for _ in range(steps):
        found = _step(model, found, pixels, labels, preprocess, size=size or _REACH * eps / steps, eps=eps)
    return found


def _step(
    model: nn.Module,
    at: Tensor,
    pixels: Tensor,
    labels: Tensor,
    preprocess: Preprocess,
    *,
    size: float,
    eps: float,
) -> Tensor:
    """Return pixels one step of `size` further from the right answers, within `eps` of the image and in 0..1."""
    with torch.enable_grad():
        at = at.detach().requires_grad_()
        loss = functional.cross_entropy(model(standardized(at, preprocess)), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, at)
    moved = at.detach() + size * gradient.sign()
    return torch.minimum(torch.maximum(moved, pixels - eps), pixels + eps).clamp_(0, 1)


def standardized(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Return pixels in 0..1, [batch, C, R, R], as the network's input; gradients pass through."""
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std))
    return (pixels - mean) / std
