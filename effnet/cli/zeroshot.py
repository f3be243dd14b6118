"""zeroshot: a classifier of words."""

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.console import print_text

Aligned = Annotated[Path, typer.Argument(metavar="MODEL", help="A bundle that `effnet align` wrote.")]
Words = Annotated[
    str | None,
    typer.Option(metavar="PATH|ID", help="The words that the bundle was aligned with, if it does not hold them."),
]


def zeroshot(
    model: Aligned,
    classes: Annotated[
        str,
        typer.Argument(
            metavar="CLASSES",
            help="Class names with commas, or a JSON file: a list of names, or an object of texts that describe each.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the new bundle, new or empty.")],
    template: Annotated[
        list[str] | None,
        typer.Option(
            "--templates",
            metavar="TEXT",
            help="A text with {} for the class name; repeatable; default: {} and a photo of a {}.",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Labelled images, to calibrate the probabilities and to score.")
    ] = None,
    words: Words = None,
) -> None:
    """Write a classifier whose classes are words; every export, budget and check applies to it."""
    from effnet import zeroshot as make
    from effnet.words.space import TEMPLATES

    result = make(model, classes, out=out, templates=tuple(template or TEMPLATES), data=data, words=words)
    for note in result.notes:
        print_text(note)
    print_text(f"Bundle: {result.folder} classifies {len(result.class_names)} classes")
