"""Networks in self-supervised pretraining: with a projector, and what else a method needs, which no bundle keeps."""

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from effnet.nn.network import Network
from effnet.training.pretraining.losses import byol, decoupled, nt_xent, similarities

WIDTH, BYOL_HIDDEN, MOST_QUEUED = 128, 1024, 65_536
"""The width of projections, the hidden layer of BYOL's heads, and the vectors that SEED compares with."""

Teacher = Callable[[Tensor], Tensor]
"""Maps normalised images of the student to the teacher's features."""


class Pretraining(nn.Module):
    """A `network` without a classifier and a `projector` of its features; `loss` is that of two views of images."""

    network: Network
    projector: nn.Module

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [batch, channels, height, width] to projections [batch, width]."""
        return cast(Tensor, self.projector(self.network(images)))

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the loss of two views, normalised images [batch, channels, height, width] each."""
        raise NotImplementedError


class SimClr(Pretraining):
    """Contrastive learning; `decouples` leaves the positive pair out of the denominator.

    The projector has no BatchNorm: with few images its statistics would tell the pairs.
    """

    def __init__(self, network: Network, *, temperature: float, decouples: bool = True) -> None:
        super().__init__()
        width = network.num_features
        self.network, self.temperature, self.decouples = network, temperature, decouples
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, WIDTH))

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the contrastive loss of two views."""
        one, other = self(torch.cat([first, second])).chunk(2)
        compute = decoupled if self.decouples else nt_xent
        return compute(one, other, temperature=self.temperature)


class Byol(Pretraining):
    """A network that predicts the projection of the other view by a slowly moving average of itself, its target.

    The target keeps the share `momentum` at each step. LayerNorm replaces BatchNorm in the heads, whose statistics of
    few images would be poor.
    """

    def __init__(self, network: Network, *, momentum: float) -> None:
        super().__init__()
        self.network, self.momentum = network, momentum
        self.projector = _head(network.num_features, 2 * WIDTH)
        self.predictor = _head(2 * WIDTH, 2 * WIDTH)
        self.target = nn.ModuleList([copy.deepcopy(network), copy.deepcopy(self.projector)]).requires_grad_(False)

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the loss of predicting each view's target from the other; in training the target moves before it."""
        images = torch.cat([first, second])
        predicted = self.predictor(self(images)).chunk(2)
        with torch.no_grad():
            if self.training:
                self._move_()
            network, projector = self.target
            targets = projector(network(images)).chunk(2)
        return byol(predicted[0], targets[1]) + byol(predicted[1], targets[0])

    def _move_(self) -> None:
        """Move the target towards the network as the last step left it: at the first step they are equal."""
        own: list[Tensor] = [*self.network.parameters(), *self.projector.parameters()]
        targets: list[Tensor] = [*self.target.parameters()]
        torch._foreach_lerp_(targets, own, 1 - self.momentum)


class Distilled(Pretraining):
    """A student of a larger teacher's similarities; its projections have the `width` of the teacher's features.

    The last `queued` features of the teacher are kept for comparison.
    """

    queue: Tensor
    filled: Tensor

    def __init__(
        self, network: Network, *, width: int, queued: int, student_temperature: float, teacher_temperature: float
    ) -> None:
        super().__init__()
        features = network.num_features
        self.network = network
        self.projector = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, width))
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.register_buffer("queue", torch.zeros(queued, width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def distil(self, first: Tensor, second: Tensor, teacher: Teacher) -> Tensor:
        """Return the loss of two views; in training the teacher's features of them join the queue."""
        images = torch.cat([first, second])
        found = functional.normalize(self(images).float(), dim=1)
        with torch.no_grad():
            wanted = functional.normalize(teacher(images).float(), dim=1)
        # The averaged network's queue is an average of changing rows, and means nothing.
        kept = self.queue[: int(self.filled)] if self.training else self.queue[:0]
        loss = similarities(
            found, wanted, kept.clone(),
            student_temperature=self.student_temperature, teacher_temperature=self.teacher_temperature,
        )  # fmt: skip
        if self.training:
            self._enqueue_(wanted)
        return loss

    def _enqueue_(self, rows: Tensor) -> None:
        """Put rows in front of the queue; the oldest ones leave it."""
        count = len(self.queue)
        rows = rows[:count]
        self.queue.copy_(torch.cat([rows, self.queue[: count - len(rows)]]))
        self.filled.copy_((self.filled + len(rows)).clamp_max(count))


def _head(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, BYOL_HIDDEN), nn.LayerNorm(BYOL_HIDDEN), nn.ReLU(), nn.Linear(BYOL_HIDDEN, outputs)
    )
