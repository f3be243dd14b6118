"""The result of the quantization search."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.config import ModelConfig
from effnet.bundle.formats import Precision
from effnet.compression.step import Gate, Step
from effnet.compression.subject import Sensitivity
from effnet.measurement.budget import Budget
from effnet.runtimes.write import Quantization


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ladder:
    """The result of a search: the winning step, its files in `folder`, its config and weights, and all steps.

    `changed` says that spec or weights differ from the original, `met` that the budget and the
    required precision, if any, are met. `quantization`
    holds the winner's settings, None if it is not int8. `sensitivity` is that of the winner's layers or, if only
    another network's layers were ranked, of those; it is empty without a ranking. `tested` has the accuracy of the fp32
    artifact and of the winner on the test images, and their paired comparison; it is empty without test images, and did
    not influence the search.
    """

    runtime: str
    budget: Budget
    precision: Precision | None
    gate: Gate
    steps: tuple[Step, ...]
    winner: Step
    quantization: Quantization | None
    folder: Path
    config: ModelConfig
    state: Mapping[str, np.ndarray]
    changed: bool
    met: bool
    sentence: str
    tested: Mapping[str, Any]
    sensitivity: Sensitivity = ()

    @property
    def format(self) -> str:
        """The winner's format."""
        return self.winner.format

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-able data, without paths and weights."""
        return {
            "runtime": self.runtime,
            "budget": self.budget.asked(),
            "precision": self.precision,
            "gate": dataclasses.asdict(self.gate),
            "steps": [step.to_dict() for step in self.steps],
            "winner": self.winner.name,
            "format": self.winner.format,
            "network": self.config.arch.name,
            "changed": self.changed,
            "quantization": None if self.quantization is None else dataclasses.asdict(self.quantization),
            "met": self.met,
            "sentence": self.sentence,
            "tested": dict(self.tested),
            "sensitivity": [
                {"layer": layer, "harm": harm if math.isfinite(harm) else None} for layer, harm in self.sensitivity
            ],
        }
