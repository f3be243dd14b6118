"""monitor: whether new images differ from those that a bundle was tested on."""

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.console import counter, fail, print_json, print_table, print_text
from effnet.cli.options import Bundle, Format, Output, Threads, Use

_DRIFTED = 3
_SHOWN = 12


def monitor(
    bundle: Bundle,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New images without labels, in any subfolder.")],
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="DATA|FILE.npz",
            help="Images to compare with, such as the data of the fit, or a file of --save; default: reference.npz of "
            "the bundle, or its report.json.",
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Write the answers to --reference, to monitor without its images; in the bundle as reference.npz.",
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only files changed since: 7d, 12h, or a date.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="PAGE.html", help="Page of the result, to write.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with code 3 if there is drift.")] = False,
    use: Use = None,
    threads: Threads = 1,
    output: Format = Output.table,
) -> None:
    """Compare new images, and the answers to them, with those that a bundle was tested on.

    Tests every class score, and brightness, contrast, sharpness and size of the images.
    """
    from effnet.jobs.robustness.monitor import monitor as monitor_images
    from effnet.measurement.drift.compare import drift_lines
    from effnet.report.pages.drift import SHIFT_COLUMNS, shift_rows, write_drift
    from effnet.report.pages.frame import check_place
    from effnet.runtimes.predictor import load

    if out is not None:
        check_place(out)
    model = load(bundle, threads=threads, format=use)
    model.say = fail
    with counter("comparing") as progress:
        found = monitor_images(model, folder, reference=reference, save=save, since=since, progress=progress)
    if out is not None:
        write_drift(found, out, model=bundle.resolve().name, folder=folder.resolve().name)
    if output is Output.json:
        print_json(found.to_dict())
    else:
        for line in drift_lines(found):
            print_text(line)
        if found.shifts:
            print_table(SHIFT_COLUMNS, shift_rows(found.shifts)[:_SHOWN], left=("quantity", "verdict"))
        if len(found.shifts) > _SHOWN:
            print_text(f"{len(found.shifts) - _SHOWN} more tests are in --format json and --out")
    if check and found.drifted:
        raise typer.Exit(_DRIFTED)
