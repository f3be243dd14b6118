"""data shard: write a data set as shards."""

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.console import counter, print_text
from effnet.cli.options import Data, GroupBy, Outputs


def shard(
    data: Data,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.")],
    shard_mb: Annotated[float | None, typer.Option(help="Largest shard, in 10^6 bytes; 100 by default.")] = None,
    per_shard: Annotated[int | None, typer.Option(help="Images per shard, instead of --shard-mb.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split and of the order.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if a file cannot be used.")] = False,
    outputs: Outputs = "",
    group_by: GroupBy = "",
) -> None:
    """Write a data set as WebDataset shards, split as fit would split it."""
    from effnet.data.datasets import read_dataset
    from effnet.data.shards.write import write_shards
    from effnet.data.sources.names import refuse_inside
    from effnet.system.text import printable

    refuse_inside(out, data, option="OUT")
    with counter("listing shards") as progress:
        dataset = read_dataset(data, seed=seed, strict=strict, group_by=group_by, outputs=outputs, progress=progress)
    with counter("writing") as progress:
        written = write_shards(
            dataset, out, shard_mb=shard_mb, per_shard=per_shard, seed=seed, strict=strict, progress=progress
        )
    for line in dataset.notes:
        print_text(line)
    skipped = (*dataset.skipped, *written.skipped)
    for item in skipped:
        print_text(f"skipped: {printable(item.path)}: {item.reason}")
    for split in ("train", "val", "test"):
        shards = [found for found in written.shards if found.split == split]
        images, size_mb = sum(s.count for s in shards), sum(s.size_bytes for s in shards) / 1e6
        print_text(f"{split}: {images:,} images in {len(shards):,} shards, {size_mb:,.1f} MB")
    print_text(f"Shards: {out}")
