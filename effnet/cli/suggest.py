"""suggest: which images of a folder to label next."""

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.console import counters, print_json, print_table, print_text
from effnet.cli.options import Format, Output
from effnet.system.text import printable

_BY = {
    "centres": "typical of the folder, those of the largest groups first",
    "margin": "those that a classifier of the labelled images is least sure of",
}


def suggest(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Images without labels, in any subfolder.")],
    weights: Annotated[str, typer.Option(help="Pretrained weights, whose features tell images apart.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Number of images to suggest.")] = 100,
    labelled: Annotated[
        str | None, typer.Option(metavar="DATA", help="Labelled images; without them, typical ones are suggested.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The network, if the weights do not say it.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the clusters.")] = 0,
    output: Format = Output.table,
) -> None:
    """Suggest which images to label next: typical ones first, then those a classifier is unsure of."""
    from effnet.jobs.audit.suggest import suggest as suggest_images

    with counters() as progress:
        found = suggest_images(
            folder, weights=weights, number=n, labelled=labelled, model=model, seed=seed, progress=progress
        )
    if output is Output.json:
        margins = found.margins or (None,) * len(found.paths)
        rows = [{"path": path, "margin": margin} for path, margin in zip(found.paths, margins, strict=True)]
        print_json({"by": found.by, "images": rows, "unlabelled": found.images, "copies": found.copies})
        return
    if found.margins:
        rows = [(f"{margin:.3f}", printable(path)) for margin, path in zip(found.margins, found.paths, strict=True)]
        print_table(("margin", "image"), rows, left=("image",))
    else:
        print_text("\n".join(printable(path) for path in found.paths))
    left_out = f"; {found.copies:,} are copies of labelled ones" if found.copies else ""
    left_out += f"; {found.unreadable:,} cannot be read" if found.unreadable else ""
    print_text(f"{len(found.paths):,} of {found.images:,} images, {_BY[found.by]}{left_out}")
