"""`fit.batch=auto`: the largest micro-batch that fits in memory, with the batch size unchanged."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from effnet.arch.spec import ArchSpec
from effnet.errors import EffnetError
from effnet.training.memory.predict import MemoryNeed, training_memory
from effnet.training.recipe.schema import Recipe

# The share of the available memory that a prediction may fill: leaves room for the largest prediction error seen, and
# for other processes.
SHARE = 0.75

Predict = Callable[[Recipe, int], MemoryNeed]
"""Returns the memory that a recipe without stages needs at a resolution."""
Attempt = Callable[[Recipe, int], None]
"""Trains one step of a recipe without stages at a resolution; raises MemoryError if it does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A recipe that fits in memory, and a sentence about it."""

    recipe: Recipe
    sentence: str


def fit_batch(
    spec: ArchSpec,
    recipe: Recipe,
    *,
    available: int,
    fused: bool = False,
    element_bytes: int = 4,
    heap: bool = True,
    attempt: Attempt | None = None,
) -> Fitted:
    """Return `recipe` with the largest train.micro_batch that fits in `available` bytes, one for each stage.

    The batch size stays. If not even two images fit (one, if BatchNorm statistics are frozen), train.recompute is
    tried. `attempt` then trains a step of each size that was found, which is reduced while memory runs out. Raises
    EffnetError if nothing fits.
    """

    def predict(part: Recipe, side: int) -> MemoryNeed:
        return training_memory(spec, part, resolution=side, fused=fused, element_bytes=element_bytes, heap=heap)

    plans = [recipe]
    if recipe.train.recompute == "none":
        plans.append(_with_train(recipe, recompute="stages"))
    for plan in plans:
        sides = [stage.resolution or spec.resolution for stage in plan.stages] or [spec.resolution]
        sizes = [_largest(plan, side, predict, attempt, available=available) for side in sides]
        if all(sizes):
            chosen = _with_sizes(plan, sizes)
            return Fitted(recipe=chosen, sentence=_sentence(chosen, sides, sizes, predict, available))
    raise EffnetError(_too_little(plans[-1], max(sides), predict, available))


def _with_train(recipe: Recipe, **values: Any) -> Recipe:
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **values))


def _part(recipe: Recipe, images: int) -> Recipe:
    """Return the recipe of one stage with a micro-batch of `images`."""
    return dataclasses.replace(_with_train(recipe, micro_batch=images), stages=())


def _possible(recipe: Recipe) -> list[int]:
    """Return the possible sizes of the largest micro-batch of a step, in descending order."""
    batch, fewest = recipe.train.batch_size, 1 if recipe.train.frozen_norms else 2
    return sorted({math.ceil(batch / parts) for parts in range(1, max(1, batch // fewest) + 1)}, reverse=True)


def _largest(recipe: Recipe, side: int, predict: Predict, attempt: Attempt | None, *, available: int) -> int:
    """Return the largest micro-batch that fits, 0 if not even the smallest does."""
    failed = 0
    for images in _possible(recipe):
        part = _part(recipe, images)
        if failed and images > max(failed // 2, _possible(recipe)[-1]):
            continue
        if predict(part, side).total > SHARE * available:
            continue
        try:
            if attempt is not None:
                attempt(part, side)
        except MemoryError:
            failed = images
            continue
        return images
    return 0


def _with_sizes(recipe: Recipe, sizes: list[int]) -> Recipe:
    """Return the recipe with a micro_batch for every stage, 0 if the whole batch fits."""
    micro = [0 if size == recipe.train.batch_size else size for size in sizes]
    stages = tuple(
        dataclasses.replace(stage, micro_batch=size) for stage, size in zip(recipe.stages, micro, strict=False)
    )
    return dataclasses.replace(_with_train(recipe, micro_batch=micro[-1]), stages=stages)


def _sentence(recipe: Recipe, sides: list[int], sizes: list[int], predict: Predict, available: int) -> str:
    fullest = max(predict(_part(recipe, size), side).total for side, size in zip(sides, sizes, strict=True))
    rows = [f"{size} at {side} pixels" for side, size in zip(sides, sizes, strict=True)]
    again = ", with train.recompute=stages" if recipe.train.recompute == "stages" else ""
    return (
        f"Batches of {recipe.train.batch_size} images, in micro-batches of {', '.join(rows)}{again}: "
        f"about {_amount(fullest)} of the {_amount(available)} available"
    )


def _too_little(recipe: Recipe, side: int, predict: Predict, available: int) -> str:
    fewest = _possible(recipe)[-1]
    need = math.ceil(predict(_part(recipe, fewest), side).total / SHARE)
    return (
        f"training needs about {_amount(need)} of memory for {fewest} images of {side} x {side} pixels at once, "
        f"even with train.recompute=stages; {_amount(available)} are available: give a smaller --resolution or another "
        "--model, or end other processes that use memory"
    )


def _amount(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
