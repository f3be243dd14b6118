"""The preprocessing of a model as a callable, for evaluation or for training."""

import os
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from effnet.bundle.config import read_config
from effnet.data.images.decode import convert_pillow
from effnet.data.items import ReadsFiles
from effnet.data.preprocess import Preprocess
from effnet.data.view.crop import open_file
from effnet.data.view.evaluation import IMAGES, ImageLike, checked_array, eval_decoding, prepare_image
from effnet.errors import InputError
from effnet.nn.network import Trunk
from effnet.runtimes.predictor import Predictor
from effnet.training.device import normalized, to_pixels
from effnet.training.input.augment import augment_batch
from effnet.training.input.batches import augmented
from effnet.training.recipe.schema import Recipe
from effnet.weights.network_file import default_preprocess

_CPU = torch.device("cpu")


def transforms(
    model: nn.Module | Predictor | Preprocess | str | os.PathLike[str],
    *,
    train: bool = False,
    recipe: Recipe | None = None,
) -> "Transform":
    """Return the preprocessing of a model: a callable from one image to its input, float32 [channels, R, R].

    `model` is a module of `create_model`, a bundle's folder, a Predictor or a Preprocess. The image may be a path, the
    bytes of a file, a Pillow image or a uint8 array [height, width, channels]. The input is the one that the model is
    evaluated on or, with `train`, a random view with the augmentation of `recipe` (a random crop and a flip by
    default; mixup and cutmix need a batch, and are left out). Randomness comes from torch's global generator, which
    DataLoader seeds in each worker. Raises InputError for anything else.
    """
    if recipe is not None and not train:
        raise InputError("recipe is for training; give train=True with it, or leave it out")
    return Transform(preprocess=_preprocess(model), recipe=(recipe or Recipe()) if train else None)


def _preprocess(model: nn.Module | Predictor | Preprocess | str | os.PathLike[str]) -> Preprocess:
    if isinstance(model, Preprocess):
        return model
    if isinstance(model, Predictor):
        return model.config.preprocess
    if isinstance(model, Trunk):
        found = model.preprocess
        return found if isinstance(found, Preprocess) else default_preprocess(model.spec)
    if isinstance(model, str | os.PathLike):
        return read_config(model).preprocess
    raise InputError(
        "transforms takes a network of effnet, a bundle's folder, a Predictor or a Preprocess; got "
        f"{type(model).__name__}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform(ReadsFiles):
    """The result of `transforms`; `recipe` is None for evaluation."""

    preprocess: Preprocess
    recipe: Recipe | None = None

    @property
    def channels(self) -> int:
        """The input channels of the model."""
        return self.preprocess.channels

    def __call__(self, image: ImageLike) -> Tensor:
        """Return float32 [channels, R, R]; raise ImageError if the image cannot be decoded."""
        if self.recipe is None:
            pixels = to_pixels(prepare_image(image, self.preprocess)[None], _CPU)
        else:
            pixels = self._random_view(image, self.recipe)
        return normalized(pixels, self.preprocess)[0].contiguous()

    def _random_view(self, image: ImageLike, recipe: Recipe) -> Tensor:
        seed = int(torch.randint(2**31, ()))
        rng, preprocess = np.random.default_rng(seed), self.preprocess
        if isinstance(image, np.ndarray):
            view = augmented(checked_array(image, preprocess), recipe, preprocess, rng=rng)
        elif isinstance(image, Image.Image):
            view = augmented(convert_pillow(image, eval_decoding(preprocess)), recipe, preprocess, rng=rng)
        elif isinstance(image, str | bytes | os.PathLike):
            file = os.fspath(image)
            with open_file(file, eval_decoding(preprocess)) as raw:
                view = augmented(raw, recipe, preprocess, rng=rng)
        else:
            raise InputError(f"an image must be {IMAGES}; got {type(image).__name__}")
        return augment_batch(to_pixels(view[None], _CPU), recipe.augment, mean=preprocess.mean, seed=seed, step=0)
