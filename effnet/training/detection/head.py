"""A detector's two outputs, what they mean and should be: by the kind of its heads and the size of its input."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from effnet.arch.decoders.record import AnchorHead, Detector
from effnet.errors import InputError
from effnet.tasks.boxes.anchors import anchors
from effnet.training.detection.anchor_loss import AnchorLoss
from effnet.training.detection.grid import Grid, make_grid
from effnet.training.detection.objective import PointLoss


class Answers(NamedTuple):
    """The raw boxes [batch, n, 4] and the logits [batch, n, classes] of a batch."""

    boxes: Tensor
    scores: Tensor

    @classmethod
    def of(cls, outputs: Mapping[str, Tensor]) -> "Answers":
        """Return the two among a network's outputs by their names."""
        return cls(outputs["boxes"], outputs["scores"])

    def to_numpy(self) -> tuple[np.ndarray, np.ndarray]:
        """Return both as float32 arrays."""
        return self.boxes.float().cpu().numpy(), self.scores.float().cpu().numpy()


class Head(Protocol):
    """What the outputs for an input of one size should be."""

    def loss(self, answers: Answers, targets: Tensor) -> Tensor:
        """Return the loss for targets [batch, m, COLUMNS] in pixels of the input, a scalar."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Points:
    """The points of a detector without anchors."""

    grid: Grid
    learns: PointLoss

    def loss(self, answers: Answers, targets: Tensor) -> Tensor:
        """See `Head.loss`."""
        return self.learns(answers.boxes, answers.scores, targets, self.grid)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anchors:
    """The anchors of an EfficientDet, [n, 4]."""

    boxes: Tensor
    learns: AnchorLoss

    def loss(self, answers: Answers, targets: Tensor) -> Tensor:
        """See `Head.loss`."""
        return self.learns(answers.boxes, answers.scores, targets, self.boxes)


class Heads:
    """The heads of one detector for inputs of any size; each is made once."""

    def __init__(self, model: nn.Module, learns: PointLoss | None = None) -> None:
        decoder = getattr(getattr(model, "spec", None), "decoder", None)
        if not isinstance(decoder, Detector):
            raise InputError(
                f"to find objects a network must have the decoder of a detector; got {type(model).__name__}: see "
                "effnet.arch.decoders.usual.with_detector"
            )
        self.decoder, self.learns = decoder, learns or PointLoss()
        self.known: dict[tuple[int, int, torch.device], Head] = {}

    def at(self, images: Tensor) -> Head:
        """Return the head for images [batch, channels, height, width], on their device."""
        return self.at_size(images.shape[2], images.shape[3], device=images.device)

    def at_size(self, height: int, width: int, *, device: torch.device) -> Head:
        """Return the head for images of these sides on a device."""
        key = height, width, device
        if key not in self.known:
            self.known[key] = self._make(height, width, device)
        return self.known[key]

    def _make(self, height: int, width: int, device: torch.device) -> Head:
        head, levels = self.decoder.head, tuple(self.decoder.neck.levels)
        if isinstance(head, AnchorHead):
            found = anchors(height, width, levels=levels, scale=head.scale, octaves=head.octaves, ratios=head.ratios)
            return Anchors(boxes=torch.from_numpy(found).to(device), learns=AnchorLoss())
        return Points(grid=make_grid(height, width, levels=levels, device=device), learns=self.learns)
