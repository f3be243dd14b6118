"""What passes between the parts of `effnet watch`: frames, answers, objects, and what is noted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Point = tuple[float, float]
"""A place in a frame, as shares of its width and height, from the upper left corner."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of the frame's width and height."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One decoded frame: `at` is its time in the source, `arrived` that of the watch's clock, both in seconds.

    `image` returns it upright, uint8 [height, width, 3], and raises ImageError if it cannot be converted. `about` is
    the path of a frame that is a file.
    """

    at: float
    arrived: float
    image: Callable[[], np.ndarray]
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """An object that a detector found: `label` is the number of its class."""

    label: int
    score: float
    box: Box


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """The answer to one frame.

    `scores` are float64 [names], one for each name that a rule can use; `things` the objects of a detector, `data` the
    answer as JSON-able data. `row` are the probabilities float32 [classes] of a classifier.
    """

    scores: np.ndarray
    row: np.ndarray | None = None
    things: tuple[Thing, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


Kind = Literal["start", "end", "crossed", "label", "counts", "answer", "opened", "lost", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is worth an event: its kind, the rule behind it, and further facts, JSON-able."""

    kind: Kind
    rule: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
