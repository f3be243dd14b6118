"""The score of a student: its divergence from the teacher's answers."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional


def divergence(teacher: Tensor, student: Tensor) -> float:
    """Return the mean over images of KL(teacher || student), in nats, of logits [images, classes]."""
    return float(
        functional.kl_div(
            functional.log_softmax(student.double(), dim=1),
            functional.log_softmax(teacher.double(), dim=1),
            reduction="batchmean",
            log_target=True,
        )
    )


def logits_of(network: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Tensor:
    """Return the logits [images, classes] for batches of the network's inputs."""
    with torch.no_grad():
        return torch.cat([network(batch) for batch in batches])
