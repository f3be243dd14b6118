"""Train the text tower, and the linear map of images, on the features of a locked network: seconds on a CPU."""

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from effnet.errors import EffnetError
from effnet.measurement.retrieval import ranks
from effnet.training.recipe.schema import Recipe
from effnet.training.words.losses import loss_called
from effnet.training.words.towers import Towers

Told = Callable[[int, float, float], None]
"""Is called after each epoch with its number from 1, its mean loss, and the validation's mean reciprocal rank."""


def train_on_features(
    towers: Towers,
    features: np.ndarray,
    texts: np.ndarray,
    *,
    val_features: np.ndarray,
    val_texts: np.ndarray,
    recipe: Recipe,
    told: Told = lambda epoch, loss, rank: None,
) -> float:
    """Train `towers`, whose image tower maps features, in place; return the best mean reciprocal rank of validation.

    `features` are float32 [pairs, channels], `texts` [pairs, ...] as the text tower takes them. The weights of the best
    epoch are kept; the initial ones count as one. AdamW with a cosine to 0, without decay of vectors; the same result
    for the same seed on one machine. Raises EffnetError if the loss is not finite.
    """
    rng, plan = np.random.default_rng(recipe.train.seed), recipe.train
    parameters = [parameter for parameter in towers.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.optimizer.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=plan.lr)
    rows, tokens = torch.from_numpy(np.asarray(features, np.float32)), torch.from_numpy(texts)
    size = min(plan.batch_size, len(rows))
    steps = max(1, len(rows) // size)
    compute, total, done = loss_called(towers.loss), plan.epochs * steps, 0
    best, kept = validated(towers, val_features, val_texts), copy.deepcopy(towers.state_dict())
    for epoch in range(plan.epochs):
        towers.train()
        order, losses = rng.permutation(len(rows)), 0.0
        for step in range(steps):
            chosen = torch.from_numpy(order[step * size : (step + 1) * size])
            for group in optimizer.param_groups:
                group["lr"] = plan.lr * (1 + math.cos(math.pi * done / total)) / 2
            loss = compute(towers(rows[chosen]), towers.text(tokens[chosen]), towers.scale, towers.bias)
            losses, done = losses + _finite(loss) / steps, done + 1
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, plan.clip_norm or math.inf)
            optimizer.step()
        found = validated(towers, val_features, val_texts)
        told(epoch + 1, losses, found)
        if found > best:
            best, kept = found, copy.deepcopy(towers.state_dict())
    towers.load_state_dict(kept)
    towers.eval()
    return best


def _finite(loss: Tensor) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise EffnetError("the loss must be finite; it is not: lower --set train.lr")
    return value


@torch.no_grad()
def validated(towers: Towers, features: np.ndarray, texts: np.ndarray) -> float:
    """Return the mean reciprocal rank of the captions of `features` [pairs, channels]."""
    towers.eval()
    images = towers(torch.from_numpy(np.asarray(features, np.float32)))
    vectors = torch.cat([towers.text(part) for part in torch.from_numpy(texts).split(256)])
    return float((1 / (1 + ranks(images.numpy(), vectors.numpy()))).mean())
