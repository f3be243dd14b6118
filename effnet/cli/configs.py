"""Commands whose options are the fields of a config."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from effnet.system.options import Option, options_of, read_set, table

_SETTINGS = "settings"


def takes_options(config: type, **arguments: Any) -> Callable[[Callable[[dict[str, Any]], None]], Callable[..., None]]:
    """Return a decorator: a function of a config's values becomes the command that reads them.

    `arguments` are the annotations of the positional fields, in order. The command has a flag for each main option;
    `--set` sets the others and, if the config has `settings`, fields of the recipe; `--help-all` lists all of them.
    """

    def wrap(function: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
        parameters = [_parameter("context", typer.Context)]
        parameters += [_parameter(name, annotation) for name, annotation in arguments.items()]
        parameters += [_main(found) for found in options_of(config).values() if found.main]
        parameters += [_parameter("set_", _set(config), None), _parameter("help_all", _help_all(config), False)]

        @functools.wraps(function)
        def command(*, context: typer.Context, set_: Sequence[str] | None, help_all: bool, **given: Any) -> None:
            function(_read(config, given, set_ or []) | {"procedure": context.obj})

        del command.__wrapped__  # its signature is the config's
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return wrap


def _read(config: Any, given: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Return the values of a command line by the names of the fields."""
    known = options_of(config)
    values = {name: _value(known.get(name), value) for name, value in given.items()}
    own = [word for word in words if not _has_settings(config) or word.startswith(f"{config.PREFIX}.")]
    if _has_settings(config):
        from effnet.cli.recipes import read_settings

        values[_SETTINGS] = read_settings([word for word in words if word not in own])
    return values | read_set(config, own)


def _value(found: Option | None, value: Any) -> Any:
    if found is not None and found.many:
        return tuple(value or ())
    return found.parse(value) if found is not None and isinstance(value, str) and found.read else value


def _has_settings(config: type) -> bool:
    return _SETTINGS in inspect.signature(config).parameters


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _main(found: Option) -> inspect.Parameter:
    """Return the parameter of a main option; one with a reader of its own is read as text first."""
    kind = str if found.read else found.kind
    if found.many:
        info = typer.Option(found.flag, metavar=found.metavar or None, help=found.help)
        return _parameter(found.name, Annotated[list[str] | None, info], None)
    annotation = kind if found.default is not None or found.required else kind | None
    words = [found.switches] if kind is bool else []
    info = typer.Option(*words, metavar=found.metavar or None, help=found.help)
    default = inspect.Parameter.empty if found.required else found.default
    return _parameter(found.name, Annotated[annotation, info], default)


def _set(config: type) -> Any:
    example = next(iter(f"{found.prefix}.{name}" for name, found in options_of(config).items() if not found.main), "")
    what = f"Set a further option, such as {example}"
    if _has_settings(config):
        what += ", or a field of the recipe, such as train.lr=0.1"
    help_ = f"{what}; repeatable. --help-all lists them."
    return Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help=help_)]


def _help_all(config: type) -> Any:
    def show(ctx: typer.Context, wanted: bool) -> None:
        if wanted:
            from effnet.cli.console import print_text

            print_text(f"{ctx.get_help()}\n\n{_further(ctx, config)}")
            raise typer.Exit

    info = typer.Option("--help-all", is_eager=True, callback=show, help="Show all options and exit.")
    return Annotated[bool, info]


def _further(ctx: typer.Context, config: type) -> str:
    """Return the options that --set sets, laid out as the help is."""
    rows = [
        (f"{flag.removeprefix('--set ')}={values}", f"{text}  [default: {default}]" if default else text)
        for flag, values, default, text in table(config)
        if flag.startswith("--set ")
    ]
    formatter = ctx.make_formatter()
    with formatter.section("Set with --set FIELD=VALUE"):
        formatter.write_dl(rows)
    if _has_settings(config):
        formatter.write_paragraph()
        formatter.write_text("Fields of the recipe are listed by `effnet recipes NAME`.")
    return formatter.getvalue().rstrip("\n")
