"""explain: where a network looked."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from effnet.cli.answer.images import chunks, end_with, expand
from effnet.cli.console import fail, print_json, print_table
from effnet.cli.options import Bundle, Format, Output, Threads, Use
from effnet.system.text import printable


def explain(
    bundle: Bundle,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="Files, folders, globs; - reads a list of paths.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="PAGE.html", help="Page of the images under their maps, to write.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The only one of several outputs to explain; of a classifier or a detector, a class."
        ),
    ] = None,
    nearest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Show the most similar images of a file of `effnet embed`; by default nearest.npz of the bundle.",
        ),
    ] = None,
    format_: Format = Output.table,
    use: Use = None,
    threads: Threads = 1,
) -> None:
    """Show where a network looked for its answers.

    A classifier needs `effnet export BUNDLE --maps` first. Of a detector the most certain box of each image is
    explained: what its score loses as parts of the image are covered. Prints the place of each map's largest value.
    Exit code 2 if any image could not be read.
    """
    from effnet.jobs.explain.api import Explainer, to_dict
    from effnet.report.explanation.page import page_of
    from effnet.report.pages.frame import check_place

    if out is not None:
        check_place(out)
    explainer = Explainer(bundle, output=output, index=nearest, format=use, threads=threads)
    explainer.predictor.say = fail
    bad: list[str] = []
    found: list[Any] = []
    name = bundle.resolve().name
    wanted = (
        nullcontext() if out is None else page_of(out, model=name, places=explainer.places, boxes=explainer.detects)
    )
    with wanted as page:
        for names, pixels in chunks(expand(images), explainer.prepare, bad=bad):
            for path, one in zip(names, explainer.explain(pixels), strict=True):
                found.append(to_dict(path, one) if format_ is Output.json else _rows(path, one))
                if page is not None:
                    page.add(path, one)
    if format_ is Output.json:
        print_json(found)
    elif found:
        print_table(
            ("image", "map of", "value", "strongest", "half of it in"),
            [row for rows in found for row in rows],
            left=("image", "map of", "value", "strongest"),
        )
    end_with(bad)


def _rows(name: str, found: Any) -> list[tuple[str, ...]]:
    """Return a row for each map of an image: its largest value's place, and the share of places with half of it."""
    from effnet.report.explanation.overlay import half_share, place_in_words
    from effnet.system.text import percent

    if not found.shown:
        return [(printable(name), "no objects", "-", "-", "-")]
    return [
        (
            printable(name),
            printable(f"{shown.output}: {shown.title}" if shown.output else shown.title),
            shown.value,
            place_in_words(shown.map),
            percent(half_share(shown.map), 0),
        )
        for shown in found.shown
    ]
