"""The lines of metrics.jsonl, one per epoch."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from effnet.bundle.names import METRICS
from effnet.system.files import named_errors, written_whole


def rewrite_metrics(folder: Path, history: Iterable[Mapping[str, Any]]) -> None:
    """Keep only the lines of `history`: epochs after the checkpoint will be trained again."""
    with written_whole(folder / METRICS) as beside:
        beside.write_text("".join(json.dumps(row) + "\n" for row in history), encoding="utf-8")


def append_metrics(folder: Path, row: Mapping[str, Any]) -> None:
    """Append a line."""
    with named_errors(folder / METRICS), open(folder / METRICS, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
