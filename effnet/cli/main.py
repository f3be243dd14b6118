"""The command `effnet`.

Exit codes: 0 done; 1 a failure of effnet itself; 2 input that cannot be used (the message says why);
3 a budget that cannot be met or was missed; 130 interrupted.
"""

import errno
import sys
import time
import warnings
from typing import Any

import typer
import typer.core

from effnet.cli import (
    benches,
    data,
    exports,
    models,
    networks,
    profiling,
    prune,
    quantize,
    recipes,
    runs,
    training,
    weights,
)
from effnet.cli.console import fail
from effnet.cli.launched import is_first, says
from effnet.errors import EffnetError, missing_extra

_AFTER_ANOTHER_SECONDS = 1.0


class _Interrupted(Exception):
    """Somebody pressed Ctrl-C; the argument is what to say."""


class _Verbs(typer.core.TyperGroup):
    """The verbs; typer on its own ends at Ctrl-C without a word, and some of its versions with exit code 1."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the verbs in the order of registration; typer would put those with verbs of their own first."""
        return sorted(super().list_commands(ctx), key=lambda n: isinstance(self.commands[n], typer.core.TyperGroup))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            resumable = ctx.invoked_subcommand in ("fit", "train", "profile", "prune")
            hint = "; it goes on with the same command and --resume" if resumable else ""
            raise _Interrupted(f"interrupted{hint}") from error


app = typer.Typer(
    name="effnet",
    cls=_Verbs,
    help="From a folder of labelled images and a device budget to the most accurate EfficientNet that fits.",
    epilog="Exit codes: 0 done, 1 failure, 2 unusable input, 3 budget missed, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help and plain tracebacks: rich takes a tenth of a second to load.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for verb in (
    training.fit,
    training.train,
    runs.runs,
    runs.compare,
    models.predict,
    models.evaluate,
    exports.export,
    benches.bench,
    profiling.profile,
    prune.prune,
    quantize.quantize,
    data.inspect,
    data.shard,
    networks.models,
    networks.show,
    networks.cost,
    networks.scale,
    recipes.recipes,
    weights.pull,
):
    app.command()(verb)
app.add_typer(weights.app, name="weights")


def _print_version(wanted: bool) -> None:
    if wanted:
        from effnet import __version__

        print(f"effnet {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """From a folder of labelled images and a device budget to the most accurate EfficientNet that fits."""


def main() -> None:
    """Runs the command line and exits with its code."""
    # A file's name need not be valid text, and must not end the list that it is printed in.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    # Pillow remarks on damaged metadata and on sizes, two lines each; what it cannot read is an error of effnet's own.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        app(prog_name="effnet")
    except EffnetError as error:
        if says(error):
            fail(str(error))
        else:  # launchers end all processes as soon as one has ended: the one that speaks shall be the first
            time.sleep(_AFTER_ANOTHER_SECONDS)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        fail(str(missing))
        sys.exit(missing.exit_code)
    except (_Interrupted, KeyboardInterrupt) as error:
        if is_first():
            fail(str(error) or "interrupted")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone; there is nobody left to tell.
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            where = f" at {error.filename}" if error.filename else ""
            fail(
                f"the disk is full{where}: free some room, then give the command again, with --resume where it has that"
            )
            sys.exit(1)
        # A path that cannot be read or written; without a path it is the machine that fails.
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        sys.exit(2 if error.filename else 1)


if __name__ == "__main__":
    main()
