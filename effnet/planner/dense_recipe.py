"""The recipes of detectors and segmenters, by the data and the start of the backbone."""

import dataclasses
import math

from effnet.arch.decoders.record import Detector
from effnet.arch.spec import ArchSpec
from effnet.training.recipe.kept import Kept
from effnet.training.recipe.masks import Masks
from effnet.training.recipe.schema import Augment, Loss, Model, Optimizer, Recipe, Train

# Epochs without a time limit: few images need many.
_VIEWS, _LEAST_EPOCHS, _MOST_EPOCHS = 15_000, 12, 150
_BATCH = 8
# Views of each image on whose kept feature maps the decoder is trained first.
_KEPT_VIEWS, _KEPT_LR = 4, 3e-3
_JITTER, _MASKS_LR = 0.3, 2e-3


def dense_epochs(num_train: int) -> int:
    """Return the number of epochs that is worthwhile."""
    return max(_LEAST_EPOCHS, min(_MOST_EPOCHS, round(_VIEWS / num_train)))


def early_stages(spec: ArchSpec, *, most: int = 4) -> int:
    """Return the number of the first stages whose feature maps have a stride of at most `most`.

    Those of up to 4 hold edges and colours, and half of the time of a training step.
    """
    stride = spec.stem.stride * (2 if spec.stem.max_pool else 1)
    for number, blocks in enumerate(spec.stages):
        stride *= math.prod(block.stride for block in blocks)
        if stride > most:
            return number
    return len(spec.stages)


def dense_recipe(spec: ArchSpec, *, epochs: int, mirror_safe: bool, pretrained: bool, seed: int) -> Recipe:
    """Return the recipe of a detector or a segmenter.

    A pretrained backbone keeps its BatchNorm statistics, which batches of a few images would only blur, and learns more
    slowly from its last stage to its first. That of a detector, whose decoder was trained before, does not learn in its
    early stages, and no epoch may be worse than the first.
    """
    detects = pretrained and isinstance(spec.decoder, Detector)
    recipe = Recipe(
        train=Train(
            epochs=epochs,
            batch_size=_BATCH,
            lr=5e-4 if detects else 1e-3,
            ema_decay=0.998,
            frozen_stages=early_stages(spec) if detects else 0,
            start_counts=detects,
            layer_decay=0.8 if pretrained else 1.0,
            frozen_norms=pretrained,
            seed=seed,
        ),
        model=Model(dropout=0.0),
        optimizer=Optimizer(weight_decay=0.05),
        augment=Augment(flip=mirror_safe, jitter=_JITTER),
        kept=Kept(views=_KEPT_VIEWS if pretrained else 0, lr=_KEPT_LR),
    )
    return recipe if isinstance(spec.decoder, Detector) else _for_masks(recipe)


def _for_masks(recipe: Recipe) -> Recipe:
    """Return the recipe of a segmenter.

    Pixels are many and rare classes are few of them: without weights, 300 seconds of processor time on aerial images
    left a class of 5 % of the pixels at an IoU of 0. Bilinear views are those of prediction.
    """
    return dataclasses.replace(
        recipe,
        train=dataclasses.replace(recipe.train, lr=_MASKS_LR),
        augment=dataclasses.replace(recipe.augment, interpolation="bilinear"),
        loss=Loss(label_smoothing=0.0),
        masks=Masks(class_weights=0.5),
    )
