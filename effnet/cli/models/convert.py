"""models convert: weights under the names of another project."""

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.console import print_text


def convert(
    weights: Annotated[str, typer.Argument(metavar="ID|FILE|BUNDLE", help="As for `effnet fit --weights`.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="SCHEME",
            help="timm, torchvision, lukemelas, keras, tensorflow, effdet, smp, smp_timm, smp_tu or effnet.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    model: Annotated[str, typer.Option(help="Architecture of FILE, if it cannot be inferred.")] = "",
) -> None:
    """Write weights under the names and in the layout of another project."""
    from effnet.weights.convert import convert as convert_weights

    count = convert_weights(weights, to=to, out=out, model=model or None)
    print_text(f"wrote {count} arrays under the names of {to} to {out}")
