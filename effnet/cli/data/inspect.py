"""data inspect: check a data set."""

from typing import Annotated

import typer

from effnet.cli.console import counter, print_json, print_text
from effnet.cli.options import Data, Format, GroupBy, Output, Outputs, ValueRange


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
    output: Format = Output.table,
) -> None:
    """Report a data set's counts, sizes, damaged files, duplicates and class imbalance."""
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
    if output is Output.json:
        print_json(report.to_dict())
    else:
        print_text("\n".join(describe(report)))
    without_unreadable(dataset, report.unreadable, strict=strict)
