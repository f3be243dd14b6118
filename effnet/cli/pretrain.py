"""pretrain: self-supervised training on images without labels."""

from typing import Annotated, Any

import typer

from effnet.cli.configs import takes_options
from effnet.cli.console import TerminalListener, print_text
from effnet.cli.launched import is_first
from effnet.jobs.pretrain.config import PretrainConfig

Images = Annotated[str, typer.Argument(metavar="DIR", help="Images without labels, in any subfolder.")]


@takes_options(PretrainConfig, data=Images)
def pretrain(values: dict[str, Any]) -> None:
    """Train a backbone on images without labels, for `fit --weights`; worthwhile far from photographs.

    With --probe it keeps the weights as they were unless a linear probe on labelled images is better.
    """
    from effnet import pretrain as pretrain_on

    with TerminalListener() as listener:
        result = pretrain_on(**values, listener=listener)
    if is_first():
        print_text(f"Bundle: {result.folder}")
