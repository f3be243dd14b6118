"""Training of whole towers in the loop: the checks, the loss, and validation by the retrieval of captions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess
from effnet.errors import InputError
from effnet.measurement.retrieval import ranks as ranks_of
from effnet.training.device import to_input
from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.training.losses import LossFn
from effnet.training.recipe.schema import Recipe
from effnet.training.words.losses import PairLoss, loss_called
from effnet.training.words.towers import SIGLIP_SCALE, Towers

# The loss of the validation pairs is computed for as many at once, whatever the batches are.
_TOGETHER = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsValidated:
    """The validation result: the mean loss, R@10 and the mean reciprocal rank of the captions."""

    loss: float
    recall_at_10: float
    mrr: float

    @property
    def figures(self) -> Mapping[str, float]:
        """The figures, as in metrics.jsonl."""
        return {"val_recall_at_10": self.recall_at_10, "val_mrr": self.mrr}

    @property
    def words(self) -> str:
        """The figure in words."""
        return f"R@10 {self.recall_at_10:.2%}"

    def score(self, recipe: Recipe) -> tuple[float, float]:
        """Return a key that is larger for better towers: the mean reciprocal rank, which moves before R@10 does."""
        return self.mrr, -self.loss

    def images(self, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Return no images."""
        return {}


def check(model: nn.Module, dataset: Dataset, recipe: Recipe) -> list[str]:
    """Raise InputError for a network without a text tower, and for settings that pairs do not have."""
    if not isinstance(model, Towers):
        raise InputError("captions are learnt with words: `effnet align DATA --text COLUMN --words PATH` does it")
    given = {
        "augment.mixup": recipe.augment.mixup,
        "augment.cutmix": recipe.augment.cutmix,
        "loss.teacher": recipe.loss.teacher,
        "balance.method": recipe.balance.method != "none",
    }
    if wrong := [name for name, value in given.items() if value]:
        raise InputError(f"pairs of images and captions have no {', '.join(wrong)}; leave out what sets them")
    return []


def loss_of(dataset: Dataset, recipe: Recipe, *, preprocess: Preprocess, device: torch.device | None) -> LossFn:
    """Return the loss of a process that trains alone."""
    return PairLoss()


def guessed_loss(dataset: Dataset) -> float:
    """Return the sigmoid loss at its start, the larger of the two losses."""
    return SIGLIP_SCALE


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    preprocess: Preprocess,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> PairsValidated:
    """Return the result of towers, in evaluation mode, on batches of uint8 images and their texts."""
    assert isinstance(model, Towers)
    model.eval()
    parts = [
        (model(to_input(images, preprocess, device)).cpu(), model.text(torch.from_numpy(texts).to(device)).cpu())
        for images, texts in batches
    ]
    ranks.meet()
    pairs = [pair for found in ranks.gather(parts) for pair in found]
    images, texts = (torch.cat(rows).float() for rows in zip(*pairs, strict=True))
    places = ranks_of(images.numpy(), texts.numpy())
    compute, scale, bias = loss_called(model.loss), model.scale.cpu(), model.bias.cpu()
    losses = [
        float(compute(some, others, scale, bias)) * len(some)
        for some, others in zip(images.split(_TOGETHER), texts.split(_TOGETHER), strict=True)
    ]
    return PairsValidated(
        loss=sum(losses) / len(images),
        recall_at_10=float((places < 10).mean()),
        mrr=float((1 / (1 + places)).mean()),
    )
