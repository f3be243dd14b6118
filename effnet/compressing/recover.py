"""What a pruned network needs to work again: statistics of its norms, and training from the original's answers."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.nn.network import Network
from effnet.training.batches import eval_batches
from effnet.training.device import to_input
from effnet.training.losses import Batch
from effnet.training.norms import precise_norms
from effnet.training.recipe import Augment, Loss, Model, Optimizer, Recipe, Schedule, Train
from effnet.weights.adapt import Arrays
from effnet.weights.bundle import state_arrays

# Pictures that statistics and importance are taken from, and how many at once.
_PICTURES, _BATCH = 512, 32
# Few pictures would only blur statistics that were taken from all of them at once.
_ENOUGH_FOR_STATISTICS = 5000
_RATE, _TEACHER_WEIGHT, _TEMPERATURE = 1e-3, 0.7, 2.0


def sample_batches(
    split: Split, preprocess: Preprocess, *, seed: int, pictures: int = _PICTURES, device: torch.device | None = None
) -> Iterator[Batch]:
    """Yields at most so many pictures of a split, drawn by `seed`, as evaluation sees them, normalised."""
    device = device or torch.device("cpu")
    chosen = np.random.default_rng(seed).permutation(len(split))[:pictures]
    part = Split(sources=[split.sources[i] for i in chosen], labels=split.labels[chosen])
    for images, indices in eval_batches(part, preprocess, batch_size=_BATCH):
        labels = torch.from_numpy(part.labels[indices]).to(device)
        yield Batch(images=to_input(images, preprocess, device), labels=labels)


def renormed(network: Network, batches: Iterable[Tensor]) -> Arrays:
    """Returns the network's state with the norms' statistics of normalised `batches`, as they are with its weights now.

    Where channels were taken away, those that read them get other inputs than their norms were made for.
    """
    with precise_norms(network, batches):
        return {name: array.copy() for name, array in state_arrays(network).items()}


def unfolded(network: Network, batches: Iterable[Tensor]) -> Arrays:
    """Returns a state that computes the same, with norms that hold the statistics of `batches`.

    For networks whose norms were folded away: with mean, variance, gain sqrt(variance + epsilon) and bias + mean the
    norms do what they did, and can again be taken anew once channels are gone.
    """
    before = {name: array.copy() for name, array in state_arrays(network).items()}
    state = renormed(network, batches)
    for name, module in network.named_modules():
        if not isinstance(module, nn.BatchNorm2d):
            continue
        old_gain, old_bias, old_mean, old_var = (
            before[f"{name}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
        )
        mean, var = (state[f"{name}.{part}"].astype(np.float64) for part in ("running_mean", "running_var"))
        factor = old_gain / np.sqrt(old_var + module.eps)
        state[f"{name}.weight"] = (factor * np.sqrt(var + module.eps)).astype(np.float32)
        state[f"{name}.bias"] = (old_bias + factor * (mean - old_mean)).astype(np.float32)
    return state


def recovery_recipe(
    dataset: Dataset, preprocess: Preprocess, *, epochs: int, teacher: str, short_side: int, seed: int
) -> Recipe:
    """Returns the recipe for a pruned network: the original's answers beside the labels, small steps, mild views.

    Norms keep their statistics where pictures are few.
    """
    batch_size = 64 if len(dataset.train) >= 2000 else 32
    mirror = dataset.mirror_safe
    return Recipe(
        name="prune",
        train=Train(
            epochs=epochs,
            batch_size=batch_size,
            lr=_RATE * (batch_size / 32) ** 0.5,
            ema_decay=0.99,
            frozen_norms=len(dataset.train) < _ENOUGH_FOR_STATISTICS,
            start_counts=True,
            seed=seed,
        ),
        model=Model(dropout=0.0),
        optimizer=Optimizer(weight_decay=0.02),
        schedule=Schedule(warmup=0.1),
        augment=Augment(
            view="crop" if mirror else "shift",
            min_area=0.6 if short_side <= 40 else 0.4,
            flip=mirror,
            interpolation=preprocess.interpolation,
        ),
        loss=Loss(teacher=teacher, teacher_weight=_TEACHER_WEIGHT, temperature=_TEMPERATURE, label_smoothing=0.0),
    )
