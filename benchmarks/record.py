"""The record behind every published number: command, commit, machine, versions, samples and result."""

import dataclasses
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from effnet.system.machine import machine, versions


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRecord:
    """One benchmark's result; `figure` is better when `better` (lower or higher), `samples` holds every measurement.

    `missed` are the other goals that were missed, in words with their figures.
    """

    name: str
    figure: float
    goal: float
    unit: str
    better: Literal["lower", "higher"]
    command: str
    commit: str
    samples: Mapping[str, Sequence[float]]
    details: Mapping[str, Any] = field(default_factory=dict)
    missed: Sequence[str] = ()
    machine: Mapping[str, Any] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def reached(self) -> bool:
        """Whether the figure meets the goal, and no other goal was missed."""
        if self.missed:
            return False
        return self.figure <= self.goal if self.better == "lower" else self.figure >= self.goal

    @property
    def n(self) -> int:
        """The number of measurements behind the figure, of the side with the fewest."""
        return min((len(values) for values in self.samples.values()), default=0)

    def write(self, path: Path) -> None:
        """Write the record as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        data = dataclasses.asdict(self) | {"n": self.n, "reached": self.reached}
        path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def commit(folder: Path) -> str:
    """Return the commit checked out in `folder`, with "+" if files were changed since, or "unknown"."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--", "effnet", "benchmarks/*.py"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def rounded(figure: float, *, digits: int) -> str:
    """Return a figure with about this many digits, and whole if it has more before the point."""
    return f"{figure:,.0f}" if abs(figure) >= 10**digits else f"{figure:.{digits}g}"
