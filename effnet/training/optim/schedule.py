"""The learning rate over the steps of a run."""

import math

from effnet.training.recipe.schema import Recipe

# torch's div_factor: the peak over the initial learning rate of one_cycle.
_ONE_CYCLE_START = 25.0


def learning_rate(recipe: Recipe, step: int, *, total_steps: int, epoch_steps: int) -> float:
    """Return the learning rate of `step` (from 0) of a run whose epochs have `epoch_steps` steps.

    The first step of a warm-up is one step above its start, which may be 0. Sources: torch's
    OneCycleLR; tensorflow/tpu, efficientnet/utils.py, build_learning_rate (staircase, counted from the first step).
    """
    plan, peak = recipe.schedule, recipe.train.peak_lr
    if plan.name == "one_cycle":
        return peak * _one_cycle(recipe, step, total_steps=total_steps, epoch_steps=epoch_steps)
    if plan.warmup_epochs:
        rise = min(round(plan.warmup_epochs * epoch_steps), total_steps // 2)
    else:
        rise = max(1, round(plan.warmup * total_steps))
    if step < rise:
        return peak * (plan.warmup_from + (1 - plan.warmup_from) * (step + 1) / rise)
    if plan.name == "constant":
        return peak
    if plan.name == "cosine":
        return peak * _half_cosine(1.0, plan.final, (step - rise) / max(1, total_steps - rise))
    # Rounded to whole steps: 2.4 epochs of 10 steps are 24 steps, but 24 / (2.4 * 10) may be less than 1.
    decays = step / round(plan.decay_epochs * epoch_steps, 6)
    return peak * plan.decay_rate ** (math.floor(decays) if plan.name == "step" else decays)


def _one_cycle(recipe: Recipe, step: int, *, total_steps: int, epoch_steps: int) -> float:
    """Return the one-cycle learning rate at `step`, relative to the peak, which is the last step of the warm-up."""
    plan = recipe.schedule
    top = (min(plan.warmup_epochs * epoch_steps, total_steps / 2) or plan.warmup * total_steps) - 1
    if step <= top:
        return _half_cosine(1 / _ONE_CYCLE_START, 1.0, step / top) if top > 0 else 1.0
    return _half_cosine(1.0, plan.final, (step - top) / max(1.0, total_steps - 1 - top))


def _half_cosine(start: float, end: float, progress: float) -> float:
    """Return the value at `progress` (0 to 1) of half a cosine from `start` to `end`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
