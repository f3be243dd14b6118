"""Arguments and options that several verbs share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from effnet.runtimes.registry import RUNTIMES


class Output(StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"


Format = Annotated[Output, typer.Option("--format", help="How to print the result.")]
Resolution = Annotated[int | None, typer.Option(help="Input resolution, in pixels.")]
Subject = Annotated[str, typer.Argument(metavar="NAME|BUNDLE|SPEC.json", help="A network's name, a bundle, or a spec.")]

Bundle = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A folder written by `effnet fit` or `effnet models pull`.")
]
Use = Annotated[
    str | None,
    typer.Option(metavar="FORMAT", help="Export to run, such as onnx-int8; by default the bundle's own."),
]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the runtime; 0: one per core.")]

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder with one subfolder per class, a CSV or JSONL manifest, WebDataset shards (a folder, "
        "train-{000..009}.tar, URLs), hf:NAME, or digits.",
    ),
]

GroupBy = Annotated[
    str,
    typer.Option(
        metavar="PATTERN",
        help="Regular expression such as 'patient(\\d+)'; images whose paths match it with the same text stay in one "
        "split.",
    ),
]

Outputs = Annotated[
    str,
    typer.Option(
        metavar="A,B,...",
        help="Columns of a manifest to learn, such as gender,year; default: label:NAME, tags:NAME, number:NAME and "
        "label.",
    ),
]

ValueRange = Annotated[
    str,
    typer.Option(
        metavar="LOW,HIGH|auto",
        help="Values of black and white in images of more than 8 bits; auto: chosen from DATA; window: that of each "
        "DICOM file.",
    ),
]

Profiled = StrEnum("Profiled", {name: name for name, found in RUNTIMES.items() if found.profiled})  # type: ignore[misc]
"""The runtimes that can be profiled."""
