"""Re-estimate the BatchNorm statistics of a pruned network before it is trained again."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn

from effnet.bundle.config import ModelConfig
from effnet.bundle.weights import state_arrays
from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.errors import ImageError
from effnet.nn.dense import DenseNetwork
from effnet.nn.network import Network
from effnet.tasks.task import activated
from effnet.training.device import to_input
from effnet.training.input.batches import eval_batches
from effnet.training.input.own import OwnInput
from effnet.training.losses import Batch
from effnet.training.recipe.schema import Recipe
from effnet.weights.adapt import Arrays

# The number of images for statistics and importance, and their batch size.
_IMAGES, _BATCH = 512, 32


def sample_batches(
    split: Split, preprocess: Preprocess, *, seed: int, count: int = _IMAGES, device: torch.device | None = None
) -> Iterator[Batch]:
    """Yield at most `count` images of a split, drawn by `seed`, preprocessed as for evaluation and normalised."""
    device = device or torch.device("cpu")
    chosen = drawn(split, seed=seed, count=count)
    part = Split(sources=[split.sources[i] for i in chosen], labels=split.labels[chosen])
    for images, indices in eval_batches(part, preprocess, batch_size=_BATCH):
        labels = torch.from_numpy(part.labels[indices]).to(device)
        yield Batch(images=to_input(images, preprocess, device), labels=labels)


def drawn(split: Split, *, seed: int, count: int = _IMAGES) -> np.ndarray:
    """Return the places of at most `count` images of a split, drawn by `seed`, int64 [images]."""
    return np.random.default_rng(seed).permutation(len(split))[:count]


def sample_views(
    dataset: Dataset, recipe: Recipe, preprocess: Preprocess, *, own: OwnInput, seed: int, count: int = _IMAGES
) -> Iterator[Batch]:
    """Yield views of training images as a task with input of its own makes them, normalised, and their targets.

    Of at most `count` images one each, drawn by `seed`; unreadable ones are left out.
    """
    views, cpu = own.views(dataset.train, recipe, preprocess, limit=0), torch.device("cpu")
    found: list[tuple[np.ndarray, np.ndarray]] = []
    chosen = drawn(dataset.train, seed=seed, count=count)
    for number, index in enumerate(chosen.tolist(), 1):
        with suppress(ImageError):
            found.append(views.view(index, recipe, np.random.default_rng([seed, index])))
        if found and (len(found) == recipe.train.batch_size or number == len(chosen)):
            images, targets = zip(*found, strict=True)
            yield Batch(
                images=to_input(np.stack(images), preprocess, cpu), labels=torch.from_numpy(views.stack(targets))
            )
            found = []


@torch.no_grad()
def right_answers(network: Network, split: Split, config: ModelConfig) -> np.ndarray:
    """Return whether the network is right on each image of a split, bool [images]; unreadable images are wrong.

    What is right the task of `config` says (`Task.right`); of several outputs, int8 [images, columns].
    """
    network.eval()
    is_right, cpu = config.task_record.right, torch.device("cpu")
    assert is_right is not None
    right: np.ndarray | None = None
    for images, indices in eval_batches(split, config.preprocess, batch_size=_BATCH):
        values = network(to_input(images, config.preprocess, cpu)).numpy()
        found = is_right(activated(values, config.file_outputs), split.labels[indices])
        if right is None:
            right = np.zeros((len(split), *found.shape[1:]), dtype=found.dtype)
        right[indices] = found
    return np.zeros(len(split), dtype=bool) if right is None else right


def rebased(network: Network | DenseNetwork, batches: Iterable[Tensor]) -> Arrays:
    """Return a state that computes the same, with BatchNorm statistics from `batches`.

    If BatchNorm was folded away, or frozen while the weights were trained, its statistics are not those of its inputs,
    and training that recomputes them would start from another network. Here gain and bias compensate for the new mean
    and variance.
    """
    state = {name: array.copy() for name, array in state_arrays(network).items()}
    for name, (mean, var) in _input_statistics(network, batches).items():
        gain, bias, old_mean, old_var = (
            state[f"{name}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
        )
        epsilon = network.spec.norm_epsilon
        factor = gain / np.sqrt(old_var + epsilon)
        found = {
            "weight": factor * np.sqrt(var + epsilon),
            "bias": bias + factor * (mean - old_mean),
            "running_mean": mean,
            "running_var": var,
        }
        state |= {f"{name}.{part}": array.astype(np.float32) for part, array in found.items()}
    return state


@torch.no_grad()
def _input_statistics(
    network: Network | DenseNetwork, batches: Iterable[Tensor]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return mean and variance of every BatchNorm's input in evaluation mode, by its name, each [channels].

    Not in training mode, in which BatchNorm uses the batch's statistics: earlier layers would output something else.
    """
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    sums = {name: torch.zeros(3, norm.num_features, dtype=torch.float64) for name, norm in norms.items()}

    def hook(name: str):
        def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].double()
            count = torch.full((x.shape[1],), x.numel() / x.shape[1], dtype=torch.float64)
            sums[name] += torch.stack([count, x.sum((0, 2, 3)).cpu(), x.square().sum((0, 2, 3)).cpu()])

        return add

    handles = [norm.register_forward_pre_hook(hook(name)) for name, norm in norms.items()]
    try:
        network.eval()
        for images in batches:
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    means = {name: (total[1] / total[0]).numpy() for name, total in sums.items()}
    return {
        name: (means[name], np.maximum((total[2] / total[0]).numpy() - means[name] ** 2, 0.0))
        for name, total in sums.items()
    }
