"""The optimiser, and the average of the weights that is kept beside it."""

import torch
from torch import nn

from effnet.training.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Returns AdamW that decays kernels and matrices only, not norms and biases.

    Its groups carry `lr_scale`, the factor that the recipe's layer decay gives to their depth.
    """
    depth = (
        _depths(model)
        if recipe.train.layer_decay < 1
        else dict.fromkeys((name for name, _ in model.named_parameters()), 0)
    )
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((depth[name], parameter.ndim > 1), []).append(parameter)
    rows = [
        {
            "params": parameters,
            "weight_decay": recipe.optimizer.weight_decay if decays else 0.0,
            "lr_scale": recipe.train.layer_decay**below,
        }
        for (below, decays), parameters in groups.items()
    ]
    return torch.optim.AdamW(
        rows, lr=recipe.train.peak_lr, betas=(recipe.optimizer.momentum, recipe.optimizer.decay), fused=True
    )


def _depths(model: nn.Module) -> dict[str, int]:
    """Returns for each parameter how many parts lie between its own and the classifier: head, stages, stem."""

    def part(name: str) -> str:
        words = name.split(".")
        return ".".join(words[:2]) if words[0] == "stages" else words[0]

    order = list(dict.fromkeys(part(name) for name, _ in model.named_parameters()))
    return {name: len(order) - 1 - order.index(part(name)) for name, _ in model.named_parameters()}


@torch.no_grad()
def update_average_(average: nn.Module, model: nn.Module, *, step: int, decay: float) -> None:
    """Moves the averaged weights and norm statistics towards the model's.

    The decay ramps up as (1 + step) / (10 + step), so that a short run is not an average of its first weights.
    Source: tf.train.ExponentialMovingAverage with num_updates.
    """
    keep = min(decay, (1 + step) / (10 + step))
    pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
    targets, sources = [], []
    for mine, theirs in pairs:
        if mine.is_floating_point():
            targets.append(mine)
            sources.append(theirs)
        else:
            mine.copy_(theirs)
    torch._foreach_lerp_(targets, sources, 1 - keep)
