"""The events that a fit sends to its listener: the terminal, a notebook, a test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from effnet.planner.space import Candidate
from effnet.progress import EpochEnd, Noted, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A sentence; with `heading` it starts a new stage of the work."""

    text: str
    heading: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One candidate was measured during planning."""

    candidate: Candidate
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The table of candidates is complete."""

    candidates: Sequence[Candidate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Progress: `done` of `total` items."""

    label: str
    done: int
    total: int


Event = Said | Measured | Planned | Counted | Step | EpochEnd | Noted
Listener = Callable[[Event], None]
