"""A space of networks: independent decisions, and pure functions that draw, change and encode their choices."""

from dataclasses import dataclass
from typing import Any, Protocol

from effnet.arch.spec import ArchSpec

Genome = tuple[int, ...]
"""One choice of each decision of a space, as an index into its choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One independent decision: its name, such as "stage 3 kernel", and its choices.

    `ordered` choices are encoded as one number, others one-hot. Decisions of one `group` have the same choices, or
    similar ones, at several places, such as the kernels of all stages: their effects are expected to be similar.
    """

    name: str
    choices: tuple[Any, ...]
    ordered: bool = False
    group: str = ""


class Space(Protocol):
    """What the algorithms of a search know of a space.

    `baselines` are the genomes of the best networks known without a search, such as uniformly scaled ones; it may be
    empty.
    """

    @property
    def decisions(self) -> tuple[Decision, ...]: ...

    @property
    def baselines(self) -> tuple[Genome, ...]: ...

    def network(self, genome: Genome) -> ArchSpec | None:
        """Return the network of these choices, scaled to the budget; None if none of these choices fits it."""
