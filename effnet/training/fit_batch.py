"""`--batch auto`: as many images at once as the memory holds, with the effective batch as it was."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from effnet.arch.spec import ArchSpec
from effnet.errors import EffnetError
from effnet.training.memory import MemoryNeed, training_memory
from effnet.training.recipe import Recipe

# The share of the memory at hand that a prediction may fill: the largest error that was seen, and something for others.
SHARE = 0.75

Predict = Callable[[Recipe, int], MemoryNeed]
"""What a recipe without stages needs at a resolution."""
Attempt = Callable[[Recipe, int], None]
"""Trains one step of a recipe without stages at a resolution; raises MemoryError where it does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A recipe that fits into the memory, and what to say of it."""

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
    """Return `recipe` with the largest train.micro_batch that fits into `available` bytes, in every stage its own.

    The batch of a step stays as it is. Where no two images fit (one, where norms keep their statistics) it is tried
    with train.recompute. `attempt` then trains a step of each size that was found, and has it made smaller while
    memory runs out. Raises EffnetError where nothing fits.
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
    """Return the recipe as it is in a stage of so many images at once."""
    return dataclasses.replace(_with_train(recipe, micro_batch=images), stages=())


def _possible(recipe: Recipe) -> list[int]:
    """Return how many images the largest part of a step can have, the most first."""
    batch, fewest = recipe.train.batch_size, 1 if recipe.train.frozen_norms else 2
    return sorted({math.ceil(batch / parts) for parts in range(1, max(1, batch // fewest) + 1)}, reverse=True)


def _largest(recipe: Recipe, side: int, predict: Predict, attempt: Attempt | None, *, available: int) -> int:
    """Return how many images of a step fit at once, 0 where not even the fewest do."""
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
    """Return the recipe with a micro_batch for every stage, 0 where the whole batch fits."""
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
        f"Batches of {recipe.train.batch_size} images, at once {', '.join(rows)}{again}: "
        f"about {_amount(fullest)} of the {_amount(available)} at hand"
    )


def _too_little(recipe: Recipe, side: int, predict: Predict, available: int) -> str:
    fewest = _possible(recipe)[-1]
    need = math.ceil(predict(_part(recipe, fewest), side).total / SHARE)
    return (
        f"training must have about {_amount(need)} of memory for {fewest} images of {side} x {side} pixels at once, "
        f"even with train.recompute=stages; {_amount(available)} are at hand: give a smaller --resolution or another "
        "--model, or end what else takes memory"
    )


def _amount(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
