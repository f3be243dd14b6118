"""Progressive training: the recipe and resolution of each epoch. Source: Tan & Le 2021 (EfficientNetV2), section 4."""

import dataclasses
from itertools import accumulate

from effnet.training.recipe.schema import Recipe, Stage

# Mosaics look unlike the images that a detector is for. Source: Ge et al. 2021 (YOLOX), the last 15 of 300 epochs.
_MOSAIC_UNTIL = 0.85


def stage_at(recipe: Recipe, epoch: int) -> Stage | None:
    """Return the stage of `epoch` (from 0), or None if the recipe has no stages.

    Stages begin at whole epochs; a stage whose share rounds to no epoch is left out, the last one never.
    """
    if not recipe.stages:
        return None
    sums = list(accumulate(stage.share for stage in recipe.stages))
    ends = [round(recipe.train.epochs * done / sums[-1]) for done in sums[:-1]]
    ends = [min(end, recipe.train.epochs - 1) for end in ends]
    return recipe.stages[sum(epoch >= end for end in ends)]


def recipe_at(recipe: Recipe, epoch: int) -> Recipe:
    """Return the recipe of `epoch` (from 0), without stages, and at the end without mosaics."""
    if recipe.boxes.mosaic and epoch >= round(_MOSAIC_UNTIL * recipe.train.epochs):
        recipe = dataclasses.replace(recipe, boxes=dataclasses.replace(recipe.boxes, mosaic=0.0))
    stage = stage_at(recipe, epoch)
    if stage is None:
        return recipe

    def given(*names: str) -> dict:
        return {name: getattr(stage, name) for name in names if getattr(stage, name) is not None}

    return dataclasses.replace(
        recipe,
        train=dataclasses.replace(recipe.train, **given("micro_batch")),
        model=dataclasses.replace(recipe.model, **given("dropout")),
        augment=dataclasses.replace(recipe.augment, **given("magnitude", "mixup", "cutmix")),
        stages=(),
    )


def resolution_at(recipe: Recipe, epoch: int, *, final: int) -> int:
    """Return the side in pixels of training images in `epoch` (from 0); `final` is the network's own."""
    stage = stage_at(recipe, epoch)
    return final if stage is None or stage.resolution is None else stage.resolution
