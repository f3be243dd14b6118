"""The decisions of people on the images of --review: kept in memory, and appended to corrections.jsonl."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from effnet.data.corrections import read_corrections
from effnet.serving.page.gallery import Gallery


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person decided on an image: its right label, or None to leave it out; `old` is the label before."""

    label: str | None
    old: str | None = None


class Decisions:
    """The decisions by the number of their image. A file that exists is read, and only appended to.

    Raises DataError if it is damaged.
    """

    def __init__(self, path: Path, gallery: Gallery) -> None:
        self.path = path
        self._gallery, self._turn = gallery, threading.Lock()
        self._order: list[int] = []
        numbers = {name: number for number, name in enumerate(gallery.names)}
        found = read_corrections(path) if path.exists() else ()
        self._made = {numbers[each.path]: Decision(label=each.label) for each in found if each.path in numbers}

    @property
    def made(self) -> Mapping[int, Decision]:
        """The decisions so far."""
        return dict(self._made)

    def add(self, number: int, decision: Decision, *, digest: str, model: str, version: str) -> None:
        """Record a decision: append its line, and flush it; raises OSError if that is not possible."""
        with self._turn:
            self._append(number, digest, old=decision.old, new=decision.label, model=model, version=version)
            self._made[number] = decision
            self._order = [*(other for other in self._order if other != number), number]

    def undo(self, *, digest: str = "") -> int | None:
        """Take the latest decision since the start back, and return the number of its image; None if there is none."""
        with self._turn:
            if not self._order:
                return None
            number = self._order[-1]
            self._append(number, digest, undo=True)
            self._order.pop()
            del self._made[number]
            return number

    def _append(self, number: int, digest: str, **facts: Any) -> None:
        line = {"path": self._gallery.names[number], **({"sha256": digest} if digest else {}), **facts}
        line["when"] = datetime.now(UTC).isoformat(timespec="seconds")
        with open(self.path, "a+b") as file:
            # A line that a full disk cut off must not swallow this one.
            cut = file.seek(0, 2) and (file.seek(-1, 2), file.read(1))[1] != b"\n"
            file.write((b"\n" if cut else b"") + json.dumps(line).encode("ascii") + b"\n")
