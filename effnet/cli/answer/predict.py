"""predict: classify images, or answer with several outputs."""

import csv
import sys
from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from effnet.cli.answer.answers import classes_in_words, print_answers
from effnet.cli.answer.images import chunks, each, end_with, expand
from effnet.cli.console import fail, print_json, print_table
from effnet.cli.options import Bundle, Threads, Use
from effnet.errors import InputError
from effnet.system.text import cell, printable


class Rows(StrEnum):
    """How predictions are printed."""

    table = "table"
    json = "json"
    csv = "csv"
    coco = "coco"
    yolo = "yolo"
    png = "png"


_Images = Annotated[
    list[str], typer.Argument(metavar="IMAGES...", help="Files, folders, globs; - reads a list of paths.")
]
_Top = Annotated[int, typer.Option(min=1, help="Number of classes to print.")]
_Rows = Annotated[
    Rows, typer.Option("--format", help="How to print the result; coco and yolo: of objects; png: of masks.")
]
_Out = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Of objects or masks: the file to write, or the folder of yolo and png."),
]
_Draw = Annotated[Path | None, typer.Option(metavar="DIR", help="Write each image there with its objects or its mask.")]
_Annotations = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="COCO file whose numbers of images and classes --format coco takes."),
]
_Threshold = Annotated[
    float | None,
    typer.Option(
        metavar="P", help='Answer "unknown" below this probability; default: the bundle\'s threshold; 0: never.'
    ),
]


def predict(
    bundle: Bundle,
    images: _Images,
    top: _Top = 5,
    output: _Rows = Rows.table,
    out: _Out = None,
    draw: _Draw = None,
    annotations: _Annotations = None,
    threshold: _Threshold = None,
    use: Use = None,
    threads: Threads = 1,
) -> None:
    """Classify images, answer with several outputs, find objects or segment. Exit code 2 if any could not be read."""
    from effnet.runtimes.predictor import load

    model = load(bundle, threads=threads, format=use)
    model.say = fail
    if model.config.task_record.whole is not None:
        from effnet.cli.answer.in_image import answer_images

        _ = model.engine
        end_with(
            answer_images(
                model, images, form=output.value, out=out, draw=draw, annotations=annotations, threshold=threshold
            )
        )
        return
    if out or draw or annotations or output.value in ("coco", "yolo", "png"):
        raise InputError(
            f"--out, --draw, --annotations, coco, yolo and png are for objects and masks; the task of {bundle} is "
            f"{model.config.task}"
        )
    least = model.chosen_threshold(threshold)
    if not model.config.specs:
        model.must_classify()
    _ = model.engine  # fail for a model that does not match its config before any image is prepared
    bad: list[str] = []
    answer, names = model.config.task_record.answer, model.config.class_names
    results = ((path, answer(row, names, top=top, threshold=least)) for path, row in _outputs(model, images, bad=bad))
    if model.config.specs:
        print_answers(results, model.config.specs, as_csv=output is Rows.csv, as_json=output is Rows.json)
    else:
        _print_predictions(results, output)
    end_with(bad)


def _outputs(model: Any, images: list[str], *, bad: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield the path of each image and video with the network's output; those that cannot be read go to `bad`."""
    from effnet.data.clips.record import is_video

    for clips, some in groupby(expand(images, videos=True), is_video):
        if clips:
            yield from each(some, model.clip_outputs, bad=bad)
            continue
        for names, pixels in chunks(some, model.prepare, bad=bad):
            yield from zip(names, model.outputs(pixels, scored=True), strict=True)


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
        from effnet.tasks.writing.json_file import prediction_data

        print_json([{"path": path} | prediction_data(found) for path, found in results])
    else:
        rows = [(printable(path), classes_in_words(found)) for path, found in results]
        if rows:
            print_table(("image", "classes"), rows, left=("image", "classes"))
