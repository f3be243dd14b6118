"""predict and evaluate: run a bundle on images."""

import csv
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.console import counter, fail, print_json, print_table, print_text
from effnet.cli.data import GroupBy
from effnet.cli.networks import Format, Output
from effnet.errors import ImageError, InputError
from effnet.system.text import cell, percent, printable

if TYPE_CHECKING:
    import numpy as np

    from effnet.data.sources import Skipped
    from effnet.measurement.evaluate import Score

_TOGETHER = 16


class Rows(StrEnum):
    """How predictions are printed."""

    table = "table"
    json = "json"
    csv = "csv"


class Part(StrEnum):
    """Part of a data set."""

    train = "train"
    val = "val"
    test = "test"
    all = "all"


Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder written by `effnet fit` or `effnet pull`.")]
Use = Annotated[
    str | None,
    typer.Option(metavar="FORMAT", help="Export to run, such as onnx-int8; by default the bundle's own."),
]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the runtime; 0: one per core.")]


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
    """Classify images. Exit code 2 if any image could not be read."""
    from effnet.runtimes.predictor import load, to_prediction

    model = load(bundle, threads=threads, format=use)
    model.say = fail
    least = model.chosen_threshold(threshold)
    _ = model.engine  # fail for a model that does not match its config before any image is prepared
    bad: list[str] = []

    def results() -> Iterator[tuple[str, Any]]:
        for names, pixels in chunks(expand(images), model.prepare, bad=bad):
            for name, row in zip(names, model.probabilities(pixels), strict=True):
                yield name, to_prediction(row, model.config.class_names, top=top, threshold=least)

    _print_predictions(results(), output)
    end_with(bad)


def chunks(
    paths: Iterable["str | Skipped"], prepare: Callable[[str], "np.ndarray"], *, bad: list[str]
) -> Iterator[tuple[list[str], "np.ndarray"]]:
    """Yield batches of readable images: their paths, and their pixels, uint8 [images, R, R, C].

    Unreadable images are reported on stderr, and their paths are added to `bad`.
    """
    import numpy as np

    from effnet.data.sources import Skipped

    paths = iter(paths)
    while chunk := list(islice(paths, _TOGETHER)):
        names, prepared = [], []
        for path in chunk:
            try:
                if isinstance(path, Skipped):
                    raise ImageError(f"{printable(path.path)}: {path.reason}")
                prepared.append(prepare(path))
                names.append(path)
            except ImageError as error:
                bad.append(path.path if isinstance(path, Skipped) else path)
                fail(str(error))
        if prepared:
            yield names, np.stack(prepared)


def end_with(bad: list[str]) -> None:
    """End the command with exit code 2 if images could not be read."""
    if bad:
        fail(f"{len(bad)} {'image was' if len(bad) == 1 else 'images were'} not readable")
        raise typer.Exit(2)


def expand(words: list[str]) -> Iterator["str | Skipped"]:
    """Yield the image files behind files, folders, globs and - (a list on stdin).

    A folder gives the images that a data set would find in it, and the files that look like images but are not read,
    with the reason. Raises InputError for an argument that matches nothing.
    """
    from effnet.data.folder import list_images

    for word in words:
        if word == "-":
            yield from (line for line in (line.rstrip("\r\n") for line in sys.stdin) if line)
            continue
        # A file's name may contain brackets, so it is looked up before it is used as a pattern.
        if os.path.isfile(word):
            yield word
        elif os.path.isdir(word):
            listed = list_images(word)
            for note in listed.notes:
                fail(f"{word}: {note}")
            if not listed.paths and not listed.skipped:
                raise InputError(f"there must be images in {word}; none were found")
            every: list[str | Skipped] = [*listed.paths, *listed.skipped]
            yield from sorted(every, key=lambda f: f if isinstance(f, str) else f.path)
        else:
            found = sorted(p for p in glob.glob(word, recursive=True) if os.path.isfile(p))
            if not found:
                raise InputError(f"there is no file, folder or match for {word}")
            yield from found


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
        data = [
            {
                "path": path,
                "known": found.known,
                "predictions": [
                    {"label": label, "probability": round(p, 6)}
                    for label, p in zip(found.labels, found.probabilities, strict=True)
                ],
            }
            for path, found in results
        ]
        print_json(data)
    else:
        rows = [(printable(path), _in_words(found)) for path, found in results]
        if rows:
            print_table(("image", "classes"), rows, left=("image", "classes"))


def _in_words(found: Any) -> str:
    """Return the classes of an image on one line."""
    from effnet.runtimes.predictor import UNKNOWN

    guesses = [
        f"{printable(label)} {percent(p, 1)}" for label, p in zip(found.labels, found.probabilities, strict=True)
    ]
    return ", ".join(guesses) if found.known else f"{UNKNOWN} (best guess: {guesses[0]})"


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
    for line in _score_lines(found):
        print_text(line)
    shown = [c for c in found.per_class if c.support]
    print_table(
        ("class", "precision", "recall", "f1", "images"),
        [(c.name, percent(c.precision, 1), percent(c.recall, 1), f"{c.f1:.3f}", c.support) for c in shown],
        left=("class",),
    )
    if len(shown) < len(found.per_class):
        print_text(f"{len(found.per_class) - len(shown)} more classes have no image here.")


def balanced_lines(test: "Score") -> Iterator[str]:
    """Yield lines of a score: balanced accuracy if it differs from accuracy, and the lowest recall."""
    if percent(test.balanced_accuracy) != percent(test.accuracy):
        low, high = map(percent, test.balanced_bootstrap)
        yield (
            f"balanced accuracy {percent(test.balanced_accuracy)} (bootstrap {low} to {high}): the mean recall of "
            "the classes"
        )
    if lowest := test.lowest:
        name, recall = printable(lowest.name), percent(lowest.recall)
        yield f"lowest recall: {recall} of the {lowest.support} images of {name}"


def _score_lines(found: Any) -> Iterator[str]:
    """Yield the lines of a score other than its table of classes."""
    from effnet.measurement.evaluate import warnings_of

    accuracy, low, high = percent(found.accuracy), *map(percent, found.confidence)
    least, most = map(percent, found.bootstrap)
    yield (
        f"accuracy {accuracy} on {found.images} images (95 % confidence {low} to {high}; bootstrap {least} to {most})"
    )
    yield from balanced_lines(found)
    for warning in warnings_of(found):
        yield f"WARNING: {warning}"
    if not found.chance:  # its warning says so as well
        yield f"always answering {found.most_frequent.name!r} would reach {percent(found.most_frequent.share)}"
    if found.top5 is not None:
        yield f"top-5 accuracy {percent(found.top5)}"
    sure, raw = found.sureness, found.uncalibrated
    yield (
        f"calibration error (ECE) {sure.ece:.2%}, negative log-likelihood {sure.nll:.3f}; "
        f"without the temperature {raw.ece:.2%} and {raw.nll:.3f}"
    )
    if found.answered is not None:
        error = "" if found.answered.error is None else f", {found.answered.error:.2%} of them wrong"
        yield f"threshold {found.answered.threshold:.4g}: {percent(found.answered.coverage)} are answered{error}"
    if found.unknown is not None:
        unknown = found.unknown
        rejected = "" if unknown.rejected is None else f"{percent(unknown.rejected)} rejected, "
        unreadable = f" ({unknown.unreadable} more could not be read)" if unknown.unreadable else ""
        yield f"unknown images: {rejected}AUROC {unknown.auroc:.3f} on {unknown.images}{unreadable}"
