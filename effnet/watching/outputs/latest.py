"""The latest answers and events of a watch, in memory, for whoever looks; no images are kept but the newest."""

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

_EVENTS = 100


class Latest:
    """What a view shows; safe for several threads."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._events: deque[tuple[int, Mapping[str, Any]]] = deque(maxlen=_EVENTS)
        self._answers: dict[str, Mapping[str, Any]] = {}
        self._images: dict[str, np.ndarray] = {}
        self._number = self._changes = 0
        self.closed = False

    def answered(self, source: str, answer: Mapping[str, Any], image: np.ndarray) -> None:
        """Take the answer to the newest frame of a source, uint8 [height, width, 3]."""
        with self._turn:
            self._answers[source], self._images[source] = answer, image
            self._changes += 1

    def event(self, event: Mapping[str, Any]) -> None:
        """Take an event."""
        with self._turn:
            self._number += 1
            self._events.append((self._number, event))

    def events(self, after: int = 0) -> list[tuple[int, Mapping[str, Any]]]:
        """Return the events with a higher number, and their numbers."""
        with self._turn:
            return [each for each in self._events if each[0] > after]

    def answers(self) -> tuple[int, dict[str, Mapping[str, Any]]]:
        """Return the answers by source, and a number that grows with each."""
        with self._turn:
            return self._changes, dict(self._answers)

    def image(self, source: str) -> np.ndarray | None:
        """Return the newest answered frame of a source."""
        with self._turn:
            return self._images.get(source)

    def close(self) -> None:
        """Say that nothing more will come."""
        self.closed = True
