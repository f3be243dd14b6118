"""The result of a segmenter on held-out images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from effnet.data.annotated.masks.codes import IGNORE
from effnet.data.preprocess import Preprocess
from effnet.measurement.segmentation.figures import MaskCounts, count_mask, segmentation_figures
from effnet.system.text import percent
from effnet.tasks.masks.plan import Plan, classes_in, joined
from effnet.training.device import to_input
from effnet.training.distributed.ranks import ALONE, Ranks
from effnet.training.log.figures import confusion_image
from effnet.training.recipe.schema import Recipe
from effnet.training.segmentation.inputs import Shown
from effnet.training.segmentation.losses import mask_logits, pixel_loss

# Of more classes the confusion matrix is too large to look at, and each IoU too much to say.
_CONFUSED_CLASSES, _NAMED_CLASSES = 100, 8
# Windows at once, however many an image has.
_TOGETHER = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class MasksValidated:
    """The validation result over the pixels of all images together.

    `loss` is the mean cross-entropy at the stride of the logits; `miou` the mean over the classes that are true or
    predicted somewhere; `ious` those of each class, None for others; `confusion` counts pixels, int64 [true class,
    predicted class].
    """

    loss: float
    miou: float
    ious: tuple[float | None, ...]
    confusion: np.ndarray

    @property
    def figures(self) -> Mapping[str, float]:
        """The mIoU, as in metrics.jsonl."""
        return {"val_miou": self.miou}

    @property
    def words(self) -> str:
        """The mIoU, and of few classes the IoU of each in their order, in words."""
        each = ", ".join("-" if iou is None else percent(iou) for iou in self.ious)
        return f"mIoU {percent(self.miou)}" + (f" ({each})" if len(self.ious) <= _NAMED_CLASSES else "")

    def score(self, recipe: Recipe) -> tuple[float, float]:
        """Return a key that is larger for a better network: the mIoU, then minus the loss."""
        return self.miou, -self.loss

    def images(self, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Return an image of the confusion matrix, if there are few classes."""
        return {"confusion": confusion_image(self.confusion, names)} if len(names) <= _CONFUSED_CLASSES else {}


@torch.no_grad()
def validate(
    model: nn.Module,
    batches: Iterable[tuple[np.ndarray, Sequence[Shown]]],
    preprocess: Preprocess,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> MasksValidated:
    """Return the result of `model`, in evaluation mode, on the batches of `effnet.training.segmentation.inputs`.

    Each process of `ranks` gives batches of its own, perhaps none; all get the joint result.
    """
    model.eval()
    counts: list[np.ndarray] = []
    losses = np.zeros(2)
    for images, shown in batches:
        parts = [images[first : first + _TOGETHER] for first in range(0, len(images), _TOGETHER)]
        logits = np.concatenate(
            [mask_logits(model, to_input(part, preprocess, device)).float().cpu().numpy() for part in parts]
        )
        first = 0
        for one in shown:
            own = logits[first : first + len(one.plan.places)]
            first += len(own)
            found = count_mask(one.truth, classes_in(own, one.plan), num_classes=own.shape[1], boundary=False)
            counts.append(found.confusion)
            losses += _losses(own, one)
    ranks.meet()
    every = [confusion for some in ranks.gather(counts) for confusion in some]
    loss, pixels = ranks.total(torch.from_numpy(losses)).tolist()
    confusion = sum(every[1:], every[0])
    empty = np.zeros((len(confusion), 4), np.int64)
    figures = segmentation_figures([MaskCounts(confusion=confusion, boundary=empty)])
    return MasksValidated(
        loss=loss / max(1.0, pixels),
        miou=figures.miou or 0.0,
        ious=tuple(row.iou for row in figures.per_class),
        confusion=confusion,
    )


def _losses(logits: np.ndarray, shown: Shown) -> np.ndarray:
    """Return the sum of the losses of an image's known pixels, one for each logit, and their number."""
    whole = joined(logits, shown.plan)
    truth = torch.from_numpy(truth_at(shown.truth, shown.plan, rows=whole.shape[1], columns=whole.shape[2])).long()
    known = int((truth != IGNORE).sum())
    return np.array([float(pixel_loss(torch.from_numpy(whole)[None], truth[None])) * known, known])


def truth_at(truth: np.ndarray, shown: Plan, *, rows: int, columns: int) -> np.ndarray:
    """Return the class in the middle of each cell of the logits, uint8 [rows, columns]."""
    stride = -(-shown.inner_height // rows)
    places = [
        np.minimum(((np.arange(cells) + 0.5) * stride * side / inner).astype(np.int64), side - 1)
        for cells, side, inner in (
            (rows, shown.height, shown.inner_height),
            (columns, shown.width, shown.inner_width),
        )
    ]
    return np.ascontiguousarray(truth[np.ix_(*places)])
