"""evaluate: score a bundle on labelled images."""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.console import counter, fail, print_json, print_table, print_text
from effnet.cli.options import Bundle, Format, GroupBy, Output, Threads, Use
from effnet.system.text import percent, printable

if TYPE_CHECKING:
    from effnet.measurement.classification import ClassificationScore


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


def balanced_lines(test: "ClassificationScore") -> Iterator[str]:
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
    from effnet.measurement.classification import warnings_of

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
