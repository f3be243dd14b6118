"""The lines of metrics.jsonl, one an epoch."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


def rewrite_metrics(folder: Path, history: Iterable[Mapping[str, Any]]) -> None:
    """Leaves the lines of `history`: epochs that a checkpoint does not know of will be trained again."""
    path = folder / METRICS
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in history), encoding="utf-8")
    os.replace(temporary, path)


def append_metrics(folder: Path, row: Mapping[str, Any]) -> None:
    """Adds a line."""
    with open(folder / METRICS, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
