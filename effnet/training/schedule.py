"""The learning rate over the steps of a run."""

import math

from effnet.training.recipe import Recipe


def learning_rate(recipe: Recipe, step: int, *, total_steps: int, epoch_steps: int) -> float:
    """Returns the learning rate of `step` (from 0) of a run whose epochs have `epoch_steps` steps."""
    plan, peak = recipe.schedule, recipe.train.peak_lr
    rise = round(plan.warmup_epochs * epoch_steps) if plan.warmup_epochs else max(1, round(plan.warmup * total_steps))
    if step < rise:
        return peak * (step + 1) / rise
    progress = (step - rise) / max(1, total_steps - rise)
    return peak * (plan.final + (1 - plan.final) * 0.5 * (1 + math.cos(math.pi * progress)))
