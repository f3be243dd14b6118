"""The history of a search: every network that was trained, and its scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from effnet.nas.spaces.space import Genome, Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One short training: the choices, where it was proposed, and its scores.

    `score` is the objective, higher is better; `share` the part of a whole short training after which it was taken
    (stopped trainings have less than 1). `accuracy` and `nll` are those of the validation images, `loss` the mean
    training loss of the last epoch; `rungs` are the scores at which it might have been stopped. `figures` are the
    network's costs by the names of the budget, and `predicted` names those that were predicted rather than measured.
    `network` is what was trained, as data, if measurements gave it another width than the space does.
    """

    genome: Genome
    generation: int
    slot: int
    seed: int
    score: float
    share: float = 1.0
    accuracy: float = 0.0
    nll: float | None = None
    loss: float | None = None
    rungs: tuple[float, ...] = ()
    figures: Mapping[str, float] | None = None
    predicted: tuple[str, ...] = ()
    network: Mapping[str, Any] | None = None


class Propose(Protocol):
    """An algorithm: a pure function of the completed generations."""

    def __call__(self, history: Sequence[Trained], space: Space, *, number: int, seed: int) -> list[Genome]:
        """Return `number` different choices to train next, whose networks exist and were never trained before.

        Fewer are returned only if the space has no more. Equal arguments give equal answers on every machine.
        """
