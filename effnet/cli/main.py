"""The command `effnet`.

Exit codes: 0 done; 1 a failure of effnet itself; 2 input that cannot be used (the message says why);
3 a budget that cannot be met or was missed; 4 a machine too busy to judge a budget; 130 interrupted (Ctrl-C),
143 terminated (SIGTERM), 129 hung up (SIGHUP).
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import typer
import typer.core

from effnet.cli import align, monitor, pretrain, recipes, serve, suggest, training, watch, zeroshot
from effnet.cli.answer import embed, explain, find, predict
from effnet.cli.console import fail, print_text
from effnet.cli.data import inspect, shard
from effnet.cli.deploy import bench, evaluate, export, profile, prune, quantize
from effnet.cli.ending import Interrupted, run_to_end
from effnet.cli.models import convert, cost, import_checkpoint, pull, scale, show
from effnet.cli.models.list import list_models
from effnet.cli.runs.compare import compare
from effnet.cli.runs.list import list_runs
from effnet.system.home import give_home
from effnet.system.signals import obeyed_signals
from effnet.system.streams import open_streams
from effnet.system.text import harmless

if TYPE_CHECKING:
    from effnet.jobs.procedure import Procedure


@contextmanager
def _harmless_usage() -> Iterator[None]:
    """Escape control characters in typer's usage errors, which quote the command line as it was given."""
    try:
        yield
    except Exception as error:
        if isinstance(getattr(error, "message", None), str):
            error.message = harmless(error.message)  # type: ignore[attr-defined]
        raise


class _Verbs(typer.core.TyperGroup):
    """The verbs; typer alone ends silently at Ctrl-C, and some of its versions with exit code 1."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs in the order of registration; typer would list groups of verbs first."""
        return sorted(super().list_commands(ctx), key=lambda n: isinstance(self.commands[n], typer.core.TyperGroup))

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Parse the command line."""
        try:
            with _harmless_usage():
                return super().make_context(*args, **options)
        except KeyboardInterrupt as error:
            raise Interrupted(error) from error

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            with _harmless_usage():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            resumable = ctx.invoked_subcommand in ("fit", "train", "search", "profile", "prune")
            raise Interrupted(error, resumable=resumable) from error


app = typer.Typer(
    name="effnet",
    cls=_Verbs,
    help="From a folder of labelled images and a device budget to the most accurate EfficientNet that fits.",
    epilog=(
        "Exit codes: 0 done, 1 failure, 2 unusable input, 3 budget missed, 4 machine too busy to judge a budget, "
        "130 interrupted, 143 terminated.\n\n"
        "Environment: EFFNET_MAX_PIXELS, the largest image that is read, 100000000 (pixels) by default; EFFNET_CACHE, "
        "the folder for downloads and features; EFFNET_SHARD_CACHE_GB, the limit of downloaded shards, 50 by default."
    ),
    no_args_is_help=True,
    add_completion=False,
    # Plain help and plain tracebacks: rich takes a tenth of a second to load.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_VERBS = (
    training.fit,
    training.train,
    training.search,
    predict.predict,
    embed.embed,
    align.align,
    zeroshot.zeroshot,
    find.find,
    suggest.suggest,
    pretrain.pretrain,
    explain.explain,
    serve.serve,
    watch.watch,
    evaluate.evaluate,
    monitor.monitor,
    export.export,
    bench.bench,
    quantize.quantize,
    prune.prune,
    profile.profile,
    recipes.recipes,
)
_GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "models": (
        "Networks and their published weights.",
        {
            "list": list_models,
            "show": show.show,
            "cost": cost.cost,
            "scale": scale.scale,
            "pull": pull.pull,
            "convert": convert.convert,
            "import": import_checkpoint.import_,
        },
    ),
    "data": ("Check a data set, or write it as shards.", {"inspect": inspect.inspect, "shard": shard.shard}),
    "runs": ("List and compare runs of fit and train.", {"list": list_runs, "compare": compare}),
}
for _verb in _VERBS:
    app.command()(_verb)
for _name, (_help, _members) in _GROUPS.items():
    _group = typer.Typer(help=_help, cls=_Verbs, no_args_is_help=True, rich_markup_mode=None)
    for _member, _verb in _members.items():
        _group.command(_member)(_verb)
    app.add_typer(_group, name=_name)


def _print_version(wanted: bool) -> None:
    if wanted:
        from effnet import __version__

        print_text(f"effnet {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """From a folder of labelled images and a device budget to the most accurate EfficientNet that fits."""


@cache
def _command() -> Any:
    """Return the command; typer would derive all options of all verbs again at each call."""
    return typer.main.get_command(app)


def main(procedure: "Procedure | None" = None) -> None:
    """Run the command line and exit with its code; `procedure` replaces how jobs measure, plan and save."""
    open_streams()
    # Pillow warns of damaged metadata and of sizes in two lines each; effnet itself reports unreadable images.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with obeyed_signals():
        if note := give_home():
            fail(note)
        code = run_to_end(lambda: _command()(prog_name="effnet", obj=procedure))
    sys.exit(code)


if __name__ == "__main__":
    main()
