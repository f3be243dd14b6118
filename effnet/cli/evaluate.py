"""evaluate: score a bundle on labelled images."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.console import counter, fail, print_json, print_table, print_text
from effnet.cli.options import Bundle, Format, GroupBy, Output, Threads, Use


class Part(StrEnum):
    """Part of a data set."""

    train = "train"
    val = "val"
    test = "test"
    all = "all"


def evaluate(
    bundle: Bundle,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A folder, a manifest, shards, hf:NAME, or digits, as for fit.")
    ],
    split: Annotated[
        Part | None,
        typer.Option(help="Part to score; default: test for the data that the bundle was trained on, else all."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Split DATA as a fit with this seed does.")] = None,
    group_by: GroupBy = "",
    unknown_from: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Images of none of the classes, to measure how many are rejected."),
    ] = None,
    use: Use = None,
    threads: Threads = 1,
    output: Format = Output.table,
) -> None:
    """Measure the accuracy of one of a bundle's exports on labelled images, in its runtime."""
    from effnet.measurement.evaluate import evaluate as evaluate_split
    from effnet.measurement.evaluate import scoring_of
    from effnet.measurement.unknown import unknown_images
    from effnet.runtimes.predictor import load
    from effnet.weights.labels import choose_images

    model = load(bundle, threads=threads, format=use)
    model.say = fail
    if unknown_from is not None:
        unknown_images(unknown_from)  # report its problems before scoring, not after
    part = None if split is None else split.value
    images = choose_images(data, folder=bundle, config=model.config, part=part, seed=seed, group_by=group_by)
    with counter("scoring") as progress:
        found = evaluate_split(model, images.split, unknown_from=unknown_from, leaked=images.leaked, progress=progress)
    if output is Output.json:
        print_json(found.to_dict())
        return
    print_text(images.sentence)
    scoring = scoring_of(model.config.task_record)
    for line in scoring.lines(found):
        print_text(line)
    table = scoring.table(found)
    print_table(table.columns, table.rows, left=table.left)
    if table.note:
        print_text(table.note)
