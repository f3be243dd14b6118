"""What pruning does otherwise for detectors and segmenters: they recover by the training of their own task."""

import dataclasses

from effnet.arch.spec import ArchSpec
from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.planner.dense_recipe import dense_recipe
from effnet.training.recipe.schema import Recipe
from effnet.training.speed import run_speed


def dense_recovery_recipe(spec: ArchSpec, dataset: Dataset, *, epochs: int, rate: float, seed: int) -> Recipe:
    """Return the recipe that recovers a pruned detector or segmenter, on the annotations alone.

    It is that of fine-tuning, at `rate` times its learning rate, for all layers at once; the initial weights are a
    candidate too, so that the result is never worse on the validation images.
    """
    recipe = dense_recipe(spec, epochs=epochs, mirror_safe=dataset.mirror_safe, pretrained=True, seed=seed)
    return dataclasses.replace(
        recipe,
        name="recovery",
        train=dataclasses.replace(
            recipe.train,
            lr=rate * recipe.train.lr,
            batch_size=min(recipe.train.batch_size, max(2, len(dataset.train))),
            frozen_stages=0,
            start_counts=True,
        ),
        kept=dataclasses.replace(recipe.kept, views=0),
    )


def dense_speed(spec: ArchSpec, dataset: Dataset, preprocess: Preprocess) -> float:
    """Return training images per second of the recovery of a detector or a segmenter, with reading and augmentation."""
    recipe = dense_recovery_recipe(spec, dataset, epochs=1, rate=1.0, seed=0)
    return run_speed(spec, dataset, recipe, preprocess)
