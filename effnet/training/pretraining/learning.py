"""Self-supervised pretraining in the training loop: the loss of pairs of views, and its value on held-out images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.bundle.config import ModelConfig
from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.errors import DataError, InputError
from effnet.measurement.classification.calibration import Abstain, Calibration
from effnet.tasks.task import Figure
from effnet.training.device import normalized, to_input
from effnet.training.distill import as_input
from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.training.learning import OwnHead
from effnet.training.losses import Batch, LossFn
from effnet.training.pretraining.model import Distilled, Pretraining, Teacher
from effnet.training.pretraining.views import PairInput
from effnet.training.recipe.schema import Balance, Recipe
from effnet.training.transfer.head import Head

# Any of the losses at its start.
_GUESSED = 10.0
SPREAD = Figure(key="spread", title="spread of the features")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeacherNetwork:
    """A teacher without a classifier, whose images are preprocessed as `own`; the student's as `preprocess`."""

    network: nn.Module
    own: Preprocess
    preprocess: Preprocess

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of the student's images."""
        return cast(Tensor, self.network(as_input(images, self.preprocess, self.own)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsValidated:
    """The loss on held-out images, and the spread of their features: 1 if they are spread evenly, 0 if all are equal.

    It is the mean standard deviation of features of length 1, times the root of their number.
    """

    loss: float
    spread: float

    @property
    def figures(self) -> Mapping[str, float]:
        """The figure, as in metrics.jsonl."""
        return {"val_spread": self.spread}

    @property
    def words(self) -> str:
        """The figure in words."""
        return f"spread {self.spread:.2f}"

    def score(self, recipe: Recipe) -> tuple[float, float]:
        """Return a key that is larger for a lower loss."""
        return -self.loss, self.spread

    def images(self, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Return no images."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairLearning:
    """Learns from pairs of views alone; `inputs` makes them, `teacher` is that of a Distilled network."""

    inputs: PairInput
    teacher: TeacherNetwork | None = None
    figure: ClassVar[Figure] = SPREAD

    def check(self, model: nn.Module, dataset: Dataset, recipe: Recipe) -> list[str]:
        """Raise InputError for settings that pairs of views do not have."""
        augment = recipe.augment
        given = {
            "augment.mixup": augment.mixup, "augment.cutmix": augment.cutmix, "augment.erasing": augment.erasing,
            "augment.policy": augment.policy != "none", "loss.teacher": recipe.loss.teacher,
            "balance.method": recipe.balance.method != "none", "train.micro_batch": recipe.train.micro_batch,
        }  # fmt: skip
        if wrong := [name for name, value in given.items() if value]:
            raise InputError(f"pretraining has no {', '.join(wrong)}; leave out what sets them")
        return []

    def loss_of(
        self, dataset: Dataset, recipe: Recipe, *, preprocess: Preprocess, device: torch.device | None
    ) -> LossFn:
        """Return the loss of a batch whose labels are the second views."""
        teacher = self._on(device)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            assert isinstance(model, Pretraining)
            second = normalized(batch.labels.permute(0, 3, 1, 2), preprocess)
            return _loss(model, batch.images, second, teacher)

        return loss

    def guessed_loss(self, dataset: Dataset) -> float:
        """Return a loss that no run begins with."""
        return _GUESSED

    def _on(self, device: torch.device | None) -> Teacher | None:
        if self.teacher is not None:
            self.teacher.network.to(device).eval()
        return self.teacher

    def fit_head(
        self, features: np.ndarray, targets: np.ndarray, *, dataset: Dataset, val_features: np.ndarray,
        val_targets: np.ndarray, balance: Balance, own: OwnHead | None,
    ) -> Head:  # fmt: skip
        """Raise DataError: there are no labels."""
        raise DataError("images without labels have no head")

    def calibrated(
        self, config: ModelConfig, rows: np.ndarray, targets: np.ndarray, *, dataset: Dataset, abstain: Abstain
    ) -> tuple[ModelConfig, Calibration]:
        """Raise DataError: there are no labels."""
        raise DataError("images without labels calibrate nothing")

    @torch.no_grad()
    def validate(
        self,
        model: nn.Module,
        batches: Iterable[tuple[np.ndarray, np.ndarray]],
        preprocess: Preprocess,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> PairsValidated:
        """Return the mean loss of batches of two views, and the spread of the features of the first views."""
        assert isinstance(model, Pretraining)
        model.eval()
        teacher, rows, losses = self._on(device), [], []
        for first, second in batches:
            one, other = (to_input(images, preprocess, device) for images in (first, second))
            losses.append((float(_loss(model, one, other, teacher)), len(first)))
            rows.append(functional.normalize(model.network(one).float(), dim=1).cpu())
        ranks.meet()
        parts = ranks.gather((losses, rows))
        losses = [row for found, _ in parts for row in found]
        if not losses:
            raise DataError("validation needs two readable images or more; there are none")
        features = torch.cat([row for _, found in parts for row in found])
        total = sum(count for _, count in losses)
        spread = float(features.std(0, unbiased=False).mean()) * features.shape[1] ** 0.5
        return PairsValidated(loss=sum(loss * count for loss, count in losses) / total, spread=spread)


def _loss(model: Pretraining, first: Tensor, second: Tensor, teacher: Teacher | None) -> Tensor:
    if isinstance(model, Distilled):
        assert teacher is not None
        return model.distil(first, second, teacher)
    return model.loss(first, second)
