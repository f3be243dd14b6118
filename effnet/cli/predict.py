"""predict: classify images, or answer with several outputs."""

import csv
import sys
from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import typer

from effnet.cli.answers import classes_in_words, prediction_data, print_answers
from effnet.cli.console import fail, print_json, print_table
from effnet.cli.images import chunks, end_with, expand
from effnet.cli.options import Bundle, Threads, Use
from effnet.system.text import cell, printable


class Rows(StrEnum):
    """How predictions are printed."""

    table = "table"
    json = "json"
    csv = "csv"


def predict(
    bundle: Bundle,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="Files, folders, globs; - reads a list of paths.")
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to print.")] = 5,
    output: Annotated[Rows, typer.Option("--format", help="How to print the result.")] = Rows.table,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="P", help='Answer "unknown" below this probability; default: the bundle\'s threshold; 0: never.'
        ),
    ] = None,
    use: Use = None,
    threads: Threads = 1,
) -> None:
    """Classify images, or print the answers of several outputs. Exit code 2 if any image could not be read."""
    from effnet.runtimes.predictor import load

    model = load(bundle, threads=threads, format=use)
    model.say = fail
    least, answer = model.chosen_threshold(threshold), model.config.task_record.answer
    compute = model.outputs if model.config.specs else model.probabilities
    _ = model.engine  # fail for a model that does not match its config before any image is prepared
    bad: list[str] = []

    def results() -> Iterator[tuple[str, Any]]:
        for names, pixels in chunks(expand(images), model.prepare, bad=bad):
            for name, row in zip(names, compute(pixels), strict=True):
                yield name, answer(row, model.config.class_names, top=top, threshold=least)

    if model.config.specs:
        print_answers(results(), model.config.specs, as_csv=output is Rows.csv, as_json=output is Rows.json)
    else:
        _print_predictions(results(), output)
    end_with(bad)


def _print_predictions(results: Iterator[tuple[str, Any]], output: Rows) -> None:
    if output is Rows.csv:
        # Text is quoted, because spreadsheets may split cells at another character than the comma; numbers are not.
        writer = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(("path", "rank", "label", "probability", "known"))
        for path, found in results:
            for rank, (label, p) in enumerate(zip(found.labels, found.probabilities, strict=True), 1):
                known = str(found.known).lower()
                writer.writerow((cell(path), rank, cell(label), Decimal(f"{p:.6f}"), known))
    elif output is Rows.json:
        print_json([{"path": path} | prediction_data(found) for path, found in results])
    else:
        rows = [(printable(path), classes_in_words(found)) for path, found in results]
        if rows:
            print_table(("image", "classes"), rows, left=("image", "classes"))
