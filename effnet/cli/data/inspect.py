"""data inspect: check a data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.console import counter, counters, print_json, print_text
from effnet.cli.options import Data, Format, GroupBy, Output, Outputs, ValueRange
from effnet.errors import InputError

if TYPE_CHECKING:
    from effnet.data.datasets import Dataset
    from effnet.jobs.audit.record import Audit


def inspect(
    data: Data,
    outputs: Outputs = "",
    group_by: GroupBy = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 0,
    channels: Annotated[
        int | None, typer.Option(min=1, help="Input channels; by default detected from the data.")
    ] = None,
    value_range: ValueRange = "auto",
    strict: Annotated[bool, typer.Option("--strict", help="Fail if a file cannot be used.")] = False,
    weights: Annotated[
        str, typer.Option(help="Judge labels, near-duplicates and outliers by features of these pretrained weights.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for a table and a page of what is listed (with --weights).")
    ] = None,
    output: Format = Output.table,
) -> None:
    """Report a data set's counts, sizes, damaged files, duplicates and class imbalance; with --weights wrong labels."""
    if not weights and out is not None:
        raise InputError("--out needs --weights: it is the folder of what they find")
    from effnet.data.datasets import read_dataset
    from effnet.data.inspection.inspect import describe, inspect_and_join
    from effnet.data.inspection.unreadable import without_unreadable

    with counter("listing shards") as progress:
        dataset = read_dataset(
            data,
            seed=seed,
            channels=channels,
            strict=strict,
            group_by=group_by,
            outputs=outputs,
            progress=progress,
        )
    with counter("inspecting") as progress:
        dataset, report = inspect_and_join(
            dataset,
            seed=seed,
            value_range=value_range,  # type: ignore[arg-type]
            progress=progress,
        )
    found = _audited(dataset, weights, seed=seed) if weights else None
    if output is Output.json:
        print_json(report.to_dict() | ({"audit": found.to_dict()} if found else {}))
    else:
        print_text("\n".join(describe(report)))
    if found is not None:
        _tell(found, out, as_json=output is Output.json)
    without_unreadable(dataset, report.unreadable, strict=strict)


def _audited(dataset: "Dataset", weights: str, *, seed: int) -> "Audit":
    from effnet.jobs.audit.api import audit_of

    with counters() as progress:
        return audit_of(dataset, weights=weights, seed=seed, progress=progress)


def _tell(found: "Audit", out: Path | None, *, as_json: bool) -> None:
    from effnet.jobs.audit.files import write_audit
    from effnet.jobs.audit.record import describe_audit

    if not as_json:
        print_text("\n".join(describe_audit(found)))
    if out is not None:
        for path in write_audit(found, out):
            if not as_json:
                print_text(f"Wrote {path}")
