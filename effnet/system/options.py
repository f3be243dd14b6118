"""Options as the fields of a frozen dataclass: a field's metadata is all that command line, resume and docs need."""

import dataclasses
import functools
import inspect
import os
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from effnet.errors import InputError, nearest
from effnet.system.text import brief

P = ParamSpec("P")
C = TypeVar("C")
R = TypeVar("R")

_KEY = "option"
_TRUE, _FALSE = "true", "false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a job: a field of its config.

    A `main` option is a flag of the command line, any other is given with `--set PREFIX.NAME=VALUE`; `repeat` says that
    a resumed job must repeat it, `command` that it belongs to the command that runs the job again. `read` parses its
    text, `write` is the opposite. One of `many` is a tuple of texts: its flag is given once for each.
    """

    name: str
    prefix: str
    kind: type
    default: Any
    help: str
    metavar: str
    main: bool
    repeat: bool
    command: bool
    read: Callable[[str], Any] | None
    write: Callable[[Any], str] | None
    many: bool = False

    @property
    def flag(self) -> str:
        """The option as the user writes it, without its value."""
        return f"--{self.name.replace('_', '-')}" if self.main else f"--set {self.prefix}.{self.name}"

    @property
    def switches(self) -> str:
        """The words of a main option that is true or false: `flag`, and if it is on by default the one against it."""
        return f"{self.flag}/--no-{self.flag[2:]}" if self.default is True else self.flag

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is dataclasses.MISSING

    @property
    def values(self) -> str:
        """The values that it takes, in a word."""
        return self.metavar or {bool: f"{_TRUE}|{_FALSE}", int: "INT", float: "FLOAT"}.get(self.kind, "TEXT")

    def parse(self, text: str) -> Any:
        """Return the value that a text stands for; raise InputError if it stands for none."""
        if self.read is not None:
            return self.read(text)
        try:
            if self.kind is bool:
                return {_TRUE: True, _FALSE: False}[text.lower()]
            return self.kind(text)
        except (ValueError, KeyError) as error:
            what = {bool: f"{_TRUE} or {_FALSE}", int: "a whole number", float: "a number"}[self.kind]
            raise InputError(f"{self.flag} must be {what}; got {brief(text)}") from error

    def text(self, value: Any) -> str:
        """Return a value as text that `parse` reads back."""
        if self.write is not None:
            return self.write(value)
        if self.many:
            return "; ".join(value)
        if isinstance(value, bool):
            return _TRUE if value else _FALSE
        return exact(value) if isinstance(value, int | float) else os.fspath(value)

    def words(self, value: Any) -> list[str]:
        """Return the words of the command line that give it this value."""
        if self.many:
            return [word for text in value for word in (self.flag, text)]
        if not self.main:
            return ["--set", f"{self.prefix}.{self.name}={self.text(value)}"]
        if self.kind is bool:
            return [self.flag if value else f"--no-{self.flag[2:]}"]
        return [self.flag, self.text(value)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An option as a job had it, for people: `value` and `usual`, the default, are texts, empty for none.

    `changed` says that the value is not the default, `about` what the option does.
    """

    option: str
    value: str
    usual: str
    changed: bool
    about: str


def option(
    about: str,
    *,
    default: Any = None,
    main: bool = False,
    metavar: str = "",
    repeat: bool = True,
    command: bool = True,
    read: Callable[[str], Any] | None = None,
    write: Callable[[Any], str] | None = None,
    many: bool = False,
) -> Any:
    """Return a dataclass field that is an option, see `Option`; a `main` bool that is True has --no-NAME too.

    Only a main option may be of `many`.
    """
    facts = {"help": about, "main": main, "metavar": metavar, "repeat": repeat, "command": command, "many": many}
    return dataclasses.field(default=default, metadata={_KEY: facts | {"read": read, "write": write}})


def options_of(config: Any) -> dict[str, Option]:
    """Return the options of a config by their names; those of the class itself precede those of its bases.

    A config may name in `FLAGS` those that are main, in their order.
    """
    found, flags = {}, getattr(config, "FLAGS", None)
    for field in _own_first(config):
        if _KEY in field.metadata:
            facts = dict(field.metadata[_KEY])
            kind, known = _kind(field.type)
            facts["metavar"] = facts["metavar"] or known
            if flags is not None:
                facts["main"] = field.name in flags
            found[field.name] = Option(
                name=field.name, prefix=config.PREFIX, kind=kind, default=field.default, **facts
            )  # fmt: skip
    if flags is None:
        return found
    return {name: found[name] for name in dict.fromkeys([*(name for name in flags if name in found), *found])}


def _own_first(config: type) -> list[dataclasses.Field]:
    fields = {field.name: field for field in dataclasses.fields(config)}
    names = [name for base in config.__mro__ for name in inspect.get_annotations(base) if name in fields]
    return [fields[name] for name in dict.fromkeys([*names, *fields])]


def _kind(annotation: Any) -> tuple[type, str]:
    """Return the type that texts are parsed as, and the known values, if the annotation lists them."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    for part in parts:
        if get_origin(part) is Literal:
            return str, "|".join(get_args(part))
    return next((kind for kind in (bool, int, float) if kind in parts), str), ""


def repeated(config: Any) -> dict[str, Any]:
    """Return the values of a config that a resumed job must repeat."""
    return {name: getattr(config, name) for name, found in options_of(type(config)).items() if found.repeat}


def command_words(config: Any) -> list[str]:
    """Return the words of the command line that give a config's options, but for defaults; main ones come first."""
    words = []
    for found in sorted(options_of(type(config)).values(), key=lambda found: not found.main):
        value = getattr(config, found.name)
        if found.command and value != found.default:
            words += found.words(value)
    return words


def given(config: Any) -> tuple[Given, ...]:
    """Return the options of a config, but for those that a repeated job does not need; changed ones come first."""
    rows = []
    for found in options_of(type(config)).values():
        value = getattr(config, found.name)
        if found.command:
            text = "" if value in (None, "", ()) else found.text(value)
            changed = value != found.default
            rows.append(Given(option=found.flag, value=text, usual=_usual(found), changed=changed, about=found.help))
    return tuple(sorted(rows, key=lambda row: not row.changed))


def _usual(found: Option) -> str:
    return "" if found.required or found.default in (None, "", False, ()) else found.text(found.default)


def table(config: type) -> list[tuple[str, str, str, str]]:
    """Return a row for each option, main ones first: as the user writes it, its values, its default and its help."""
    found = sorted(options_of(config).values(), key=lambda option: not option.main)
    return [
        (
            option.switches if option.main and option.kind is bool else option.flag,
            option.values,
            _usual(option),
            option.help,
        )
        for option in found
    ]


def markdown(config: type) -> str:
    """Return the table of a config's options for a page of the documentation."""
    lines = ["| option | default | what it does |", "|---|---|---|"]
    for flag, values, usual, text in table(config):
        option = f"{flag}={values}" if flag.startswith("--set") else f"{flag} {values}"
        cells = (f"`{option}`", usual and f"`{usual}`", text)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def read_set(config: Any, words: Sequence[str]) -> dict[str, Any]:
    """Return the values of `--set PREFIX.NAME=VALUE` words; raise InputError for an unknown name or a wrong value."""
    known, values = options_of(config), {}
    for word in words:
        dotted, _, text = word.partition("=")
        name = dotted.removeprefix(f"{config.PREFIX}.")
        found = known.get(name)
        if found is None or "=" not in word:
            others = [f"{config.PREFIX}.{other}" for other, option in known.items() if not option.main]
            raise InputError(
                f"--set must be one of {', '.join(others)}, then = and its value; got {brief(word)}"
                f"{nearest(dotted, others)}"
            )
        if found.main:
            raise InputError(f"{name} has an option of its own, {found.flag}; got --set {brief(word)}")
        values[name] = found.parse(text)
    return values


def takes(config: Callable[P, C]) -> Callable[[Callable[[C], R]], Callable[P, R]]:
    """Return a decorator: a function of a config takes the config's fields as its arguments instead."""

    def wrap(function: Callable[[C], R]) -> Callable[P, R]:
        result = inspect.signature(function).return_annotation
        signature = inspect.signature(config).replace(return_annotation=result)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__name__}(): {error}") from None
            return function(config(*args, **kwargs))

        del call.__wrapped__  # its signature is the config's
        call.__signature__ = signature  # type: ignore[attr-defined]
        return call

    return wrap


def exact(value: float) -> str:
    """Return a number as text that reads back to it, whole numbers without a point."""
    return str(int(value)) if float(value).is_integer() else repr(value)
