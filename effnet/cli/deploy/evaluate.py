"""evaluate: score a bundle on labelled images."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from effnet.cli.console import counter, fail, print_json, print_table, print_text
from effnet.cli.options import Bundle, Format, GroupBy, Output, Threads, Use


class Part(StrEnum):
    """Part of a data set."""

    train = "train"
    val = "val"
    test = "test"
    all = "all"


_Data = Annotated[
    str, typer.Argument(metavar="DATA", help="A folder, a manifest, shards, hf:NAME, or digits, as for fit.")
]
_Split = Annotated[
    Part | None,
    typer.Option(help="Part to score; default: test for the data that the bundle was trained on, else all."),
]
_Seed = Annotated[int | None, typer.Option(min=0, help="Split DATA as a fit with this seed does.")]
_UnknownFrom = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Images of none of the classes, to measure how many are rejected.")
]
_Corruptions = Annotated[
    bool, typer.Option("--corruptions", help="Score ten camera corruptions, in fp32 and int8 if the bundle has both.")
]
_Severity = Annotated[
    list[int] | None,
    typer.Option(min=1, max=5, help="Severity of the corruptions, repeatable; default: 1, 3 and 5."),
]
_Adversarial = Annotated[
    int | None,
    typer.Option(
        metavar="EPS", min=1, max=64, help="Attack by FGSM and PGD, up to EPS levels of 255 a pixel; needs torch."
    ),
]
_Page = Annotated[
    Path | None,
    typer.Option(metavar="PAGE.html", help="Page of charts to write, of --corruptions or --adversarial."),
]


def evaluate(
    bundle: Bundle,
    data: _Data,
    split: _Split = None,
    seed: _Seed = None,
    group_by: GroupBy = "",
    unknown_from: _UnknownFrom = None,
    corruptions: _Corruptions = False,
    severity: _Severity = None,
    adversarial: _Adversarial = None,
    out: _Page = None,
    use: Use = None,
    threads: Threads = 1,
    output: Format = Output.table,
) -> None:
    """Measure the accuracy of one of a bundle's exports on labelled images, in its runtime."""
    from effnet.jobs.robustness.evaluate import check_options
    from effnet.jobs.robustness.evaluate import evaluate as evaluate_split
    from effnet.weights.labels import choose_images

    special: dict[str, Any] = {"corruptions": corruptions, "severity": severity, "adversarial": adversarial}
    check_options(**special, unknown_from=unknown_from is not None)
    whole = corruptions or adversarial is not None
    if out is not None:
        _check_out(out, special=whole)
    model = _loaded(bundle, threads=threads, use=use, unknown_from=unknown_from, classifies=whole)
    part = None if split is None else split.value
    images = choose_images(data, folder=bundle, config=model.config, part=part, seed=seed, group_by=group_by)
    with counter("scoring") as progress:
        found = evaluate_split(
            model, images.split, unknown_from=unknown_from, leaked=images.leaked, progress=progress, **special
        )
    if out is not None:
        _write_page(found, out, model=bundle.resolve().name)
    if output is Output.json:
        print_json(found.to_dict())
        return
    print_text(images.sentence)
    if whole:
        _print_special(found)
    else:
        _print_scores(model, found)


def _loaded(bundle: Path, *, threads: int, use: str | None, unknown_from: Path | None, classifies: bool) -> Any:
    """Return the model, with the problems of `unknown_from` and of its task reported before anything is scored."""
    from effnet.measurement.classification.unknown import unknown_images
    from effnet.measurement.robustness.formats import check_classifier
    from effnet.runtimes.predictor import load

    model = load(bundle, threads=threads, format=use)
    model.say = fail
    if classifies:
        check_classifier(model)
    if unknown_from is not None:
        unknown_images(unknown_from)
    return model


def _print_scores(model: Any, found: Any) -> None:
    from effnet.measurement.evaluate import scoring_of

    scoring = scoring_of(model.config.task_record)
    for line in scoring.lines(found):
        print_text(line)
    _print_table(scoring.table(found))


def _check_out(out: Path, *, special: bool) -> None:
    """Raise InputError if there will be no page, or it cannot be written."""
    from effnet.errors import InputError
    from effnet.report.pages.frame import check_place
    from effnet.report.plots.figure import style

    if not special:
        raise InputError("--out is the page of --corruptions or --adversarial: give one of them, or leave it out")
    check_place(out)
    with style():  # fails without matplotlib
        pass


def _write_page(found: Any, out: Path, *, model: str) -> None:
    from effnet.measurement.robustness.record import AttackScore
    from effnet.report.pages.robustness import write_attacks, write_corruptions

    write = write_attacks if isinstance(found, AttackScore) else write_corruptions
    write(found, out, model=model)


def _print_special(found: Any) -> None:
    """Print the scores on corrupted or attacked images."""
    from effnet.measurement.robustness import text
    from effnet.measurement.robustness.record import AttackScore

    attacked = isinstance(found, AttackScore)
    for line in text.attack_lines(found) if attacked else text.corruption_lines(found):
        print_text(line)
    _print_table(text.attack_table(found) if attacked else text.corruption_table(found))


def _print_table(table: Any) -> None:
    print_table(table.columns, table.rows, left=table.left)
    if table.note:
        print_text(table.note)
