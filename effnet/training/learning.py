"""What training asks of a task: the functions of its module `learning`, and the result of a validation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from torch import nn

from effnet.bundle.config import ModelConfig
from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.measurement.classification.calibration import Abstain, Calibration
from effnet.tasks.registry import find_task
from effnet.training.distributed.ranks import Ranks
from effnet.training.input.own import OwnInput
from effnet.training.losses import LossFn
from effnet.training.recipe.schema import Balance, Recipe
from effnet.training.transfer.head import Head


class Validated(Protocol):
    """The result on held-out images: `loss` is the mean loss, without terms that only training has."""

    @property
    def loss(self) -> float:
        """The mean loss over the images."""
        ...

    @property
    def figures(self) -> Mapping[str, float]:
        """The figures by their keys in files, val_FIGURE, that of the task (`Task.figure`) first."""
        ...

    @property
    def words(self) -> str:
        """The figures in words, such as "accuracy 93.21%"."""
        ...

    def score(self, recipe: Recipe) -> tuple[float, float]:
        """Return a key that is larger for a better network: the figure first."""
        ...

    def images(self, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Return images that show the errors, uint8 [height, width, 3] by name, none if there are none."""
        ...


class Learning(Protocol):
    """The module `learning` of a task; one whose targets move with the pixels has a module `inputs`: see `OwnInput`."""

    def check(self, model: nn.Module, dataset: Dataset, recipe: Recipe) -> list[str]:
        """Return warnings about a run; raise DataError or InputError if it cannot work."""
        ...

    def loss_of(
        self, dataset: Dataset, recipe: Recipe, *, preprocess: Preprocess, device: torch.device | None
    ) -> LossFn:
        """Return the loss of a recipe; raise InputError for settings that the task does not have."""
        ...

    def guessed_loss(self, dataset: Dataset) -> float:
        """Return the loss of a network that has learnt nothing; ten times as much, for long, means divergence."""
        ...

    def fit_head(
        self,
        features: np.ndarray,
        targets: np.ndarray,
        *,
        dataset: Dataset,
        val_features: np.ndarray,
        val_targets: np.ndarray,
        balance: Balance,
        own: "OwnHead | None",
    ) -> Head:
        """Return the last layer fitted on features [images, channels], or the weights' `own` if that is better.

        Only a task whose record says `pretrained` has it.
        """
        ...

    def calibrated(
        self, config: ModelConfig, rows: np.ndarray, targets: np.ndarray, *, dataset: Dataset, abstain: Abstain
    ) -> tuple[ModelConfig, Calibration]:
        """Return the config with temperatures and thresholds from the outputs of validation images, and how.

        `rows` are at temperature 1; there may be none. Only a task whose record says `calibrated` has it.
        """
        ...

    def validate(
        self,
        model: nn.Module,
        batches: Iterable[tuple[np.ndarray, np.ndarray]],
        preprocess: Preprocess,
        device: torch.device,
        ranks: Ranks,
    ) -> Validated:
        """Return the result of `model` on batches of uint8 images and their targets.

        Each process of `ranks` gives batches of its own, perhaps none; all get the joint result.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnHead:
    """The last layer of weights that know the data's classes, with `removed` of their frequencies taken out."""

    weight: np.ndarray
    bias: np.ndarray
    removed: float


def learning_of(dataset: Dataset) -> Learning:
    """Return the module that trains and validates on the labels of a data set.

    If the module has a function `bound`, it is what that returns for the data set.
    """
    module = find_task(dataset.task).module("learning")
    bound = getattr(module, "bound", None)
    return cast(Learning, module if bound is None else bound(dataset))


def own_input(learning: Learning) -> OwnInput | None:
    """Return the module that makes the batches of a task, None if images are augmented without their targets."""
    return cast(OwnInput | None, getattr(learning, "inputs", None))
