"""align: learn to find images by words."""

from typing import Annotated, Any

import typer

from effnet.cli.configs import takes_options
from effnet.cli.console import TerminalListener, print_text
from effnet.cli.launched import is_first
from effnet.jobs.align.config import AlignConfig

Captions = Annotated[
    str, typer.Argument(metavar="DATA.csv", help="A CSV or JSONL manifest: path, and a column of captions.")
]


@takes_options(AlignConfig, data=Captions)
def align(values: dict[str, Any]) -> None:
    """Align a network with words: map its features to the vectors of captions, for `find` and `zeroshot`.

    It needs thousands of captioned images of one domain.
    """
    from effnet import align as align_data

    with TerminalListener() as listener:
        result = align_data(**values, listener=listener)
    if is_first():
        for warning in result.warnings:
            print_text(f"WARNING: {warning}")
        print_text(f"Bundle: {result.folder}")
