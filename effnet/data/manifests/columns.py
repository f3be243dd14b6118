"""Choose the columns of a manifest that hold the labels, and read their cells."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from effnet.data.hierarchy import check_hierarchy
from effnet.data.labels import class_name
from effnet.data.several.values import (
    KIND_MARKS,
    KIND_WORDS,
    TAG_SEPARATOR,
    Kind,
    check_class,
    check_number,
    check_tags,
    output_name,
)
from effnet.errors import DataError, InputError, nearest
from effnet.system.text import brief, printable, shortened

LABEL = "label"
_NO_LABELS = ("path", "split", "group")
RESERVED = (*_NO_LABELS, LABEL)
"""The columns with a meaning of their own, which may be written in any case."""

_KINDS: dict[str, Kind] = {word: kind for kind, word in KIND_WORDS.items()}
_FEW_CLASSES = 20
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of labels: its `title` in the manifest, None if it is absent, and the output that it teaches.

    The kind is None as long as it must be found in the cells; `stated` says that it need not be.
    """

    title: str | None
    name: str
    kind: Kind | None
    stated: bool = True

    @property
    def key(self) -> str:
        """The key of the output in the labels of images."""
        assert self.kind is not None
        return self.name + KIND_MARKS[self.kind]

    @property
    def word(self) -> str:
        """The word of `--outputs` that chooses it, with its kind."""
        assert self.kind is not None
        return f"{KIND_WORDS[self.kind]}:{self.name}"

    @property
    def is_plain(self) -> bool:
        """Whether it is the column `label` of plain classification."""
        return self.title == LABEL


def read_words(outputs: str | Sequence[str]) -> tuple[str, ...]:
    """Return the words of `--outputs`, separated by commas in a text; raise InputError for an empty or repeated one."""
    given = outputs.split(",") if isinstance(outputs, str) else outputs
    if not isinstance(given, list | tuple) or not all(isinstance(word, str) for word in given):
        raise InputError(f"outputs must be the names of columns; got {brief(outputs)}")
    words = tuple(word.strip() for word in given) if outputs else ()
    if not all(words) or len(set(words)) < len(words):
        raise InputError(f"outputs must be the names of columns, each once, as in gender,year; got {brief(outputs)}")
    return words


@lru_cache(maxsize=4096)  # each row of a table has the same titles
def title_of(text: str) -> str:
    """Return the title of a column without differences of spelling: reserved names and kinds are in lower case."""
    title = class_name(text)
    if title.lower() in RESERVED:
        return title.lower()
    word, colon, name = title.partition(":")
    return f"{word.strip().lower()}:{name.strip()}" if colon and word.strip().lower() in _KINDS else title


def choose_columns(titles: Sequence[str], words: Sequence[str], *, place: str, of_model: bool = False) -> list[Column]:
    """Return the columns that hold the labels: those named by `words`, else all of a stated kind and `label`.

    `place` begins each message. With `of_model`, the words are the outputs of a model, with their kinds: those that the
    manifest lacks are unknown.

    Raises:
        DataError: there is no such column, or two are one output.
    """
    if of_model and words:
        return _of_model(words, titles, place)
    typed = [found for title in dict.fromkeys(titles) if (found := _typed(title, place)) is not None]
    if words:
        return _distinct([_named(word, titles, typed, place) for word in words], titles, place)
    plain = [Column(title=LABEL, name=LABEL, kind="one")] if LABEL in titles else []
    if not typed and not plain:
        others = [title for title in titles if title not in RESERVED and title]
        remedy = "" if not others else f". Choose others by name: --outputs {printable(shortened(others[0], most=40))}"
        raise DataError(
            f"{place}: the columns path and label are needed; label is missing, received {_shown(titles)}"
            f"{nearest(LABEL, titles)}{'' if of_model else remedy}"
        )
    return _distinct([*plain, *typed], titles, place)


def _typed(title: str, place: str) -> Column | None:
    word, colon, name = title.partition(":")
    if not colon or word not in _KINDS:
        return None
    try:
        return Column(title=title, name=output_name(name), kind=_KINDS[word])
    except DataError as error:
        raise DataError(f"{place}: the column {printable(shortened(title))}: {error}") from error


def _of_model(words: Sequence[str], titles: Sequence[str], place: str) -> list[Column]:
    """Return the columns of a model's outputs; the column `label` may hold the classes of a single one."""
    columns = []
    for word in words:
        kind, _, name = word.partition(":")
        if kind not in _KINDS:  # from a split.json that something else wrote
            raise DataError(f"the outputs of a model must begin with {', '.join(_KINDS)} and :; got {brief(word)}")
        title = next((title for title in (word, name) if title in titles), None)
        columns.append(Column(title=title, name=name, kind=_KINDS[kind]))
    if any(column.title is not None for column in columns):
        return _distinct(columns, titles, place)
    if LABEL in titles and len(columns) == 1 and columns[0].kind == "one":
        return [replace(columns[0], title=LABEL)]
    raise DataError(
        f"{place}: there must be a column for at least one output of the model, {', '.join(words)}; got "
        f"{_shown(titles)}"
    )


def _named(word: str, titles: Sequence[str], typed: Sequence[Column], place: str) -> Column:
    """Return the column that a word of `--outputs` names: NAME, or KIND:NAME, which also states the kind."""
    stated, colon, name = title_of(word).partition(":")
    if not colon or stated not in _KINDS:
        stated, name = "", title_of(word)
    for column in typed:
        if column.name == name and stated in ("", KIND_WORDS[column.kind or "one"]):
            return column
    if name in titles and name not in _NO_LABELS:
        kind = _KINDS.get(stated, "one" if name == LABEL else None)
        try:
            return Column(title=name, name=output_name(name), kind=kind, stated=kind is not None)
        except DataError as error:
            raise DataError(f"{place}: the column {printable(shortened(name))}: {error}") from error
    known = [*(column.name for column in typed), *(title for title in titles if title not in _NO_LABELS)]
    raise DataError(
        f"{place}: outputs must be columns of the manifest; got {brief(word)}, its columns are {_shown(titles)}"
        f"{nearest(name, known)}"
    )


def _distinct(columns: list[Column], titles: Sequence[str], place: str) -> list[Column]:
    names = [column.name for column in columns]
    for column in columns:
        if column.title is not None and titles.count(column.title) > 1:
            number = titles.count(column.title)
            title = printable(shortened(column.title))
            raise DataError(f"{place}: each column must be named once, but {title} is named {number} times")
        if names.count(column.name) > 1:
            same = ", ".join(str(other.title) for other in columns if other.name == column.name)
            raise DataError(f"{place}: each output must be one column; {printable(same)} are one output: rename one")
    return columns


def _shown(titles: Iterable[str]) -> str:
    return shortened(", ".join(printable(title) for title in titles) or "none")


def with_kind(column: Column, cells: Iterable[tuple[str, Any]]) -> Column:
    """Return a column with its kind: the stated one, or a number if all known cells are numbers, else a class.

    Each cell comes with its place in the manifest. Raises DataError if most cells are numbers, but not all, and if
    nearly each image has a text of its own: nobody said that these are classes.
    """
    if column.kind is not None:
        return column
    known = [(place, cell) for place, cell in cells if not is_unknown(cell)]
    others = [(place, cell) for place, cell in known if not _is_number(cell)]
    name = printable(column.name)
    if known and not others:
        return replace(column, kind="number")
    if len(others) < len(known) / 2:
        place, cell = others[0]
        raise DataError(
            f"{place}: {name} must be a number in all rows or in none; got {brief(cell)}: empty the cell if it is "
            f"unknown, or write label:{name} for classes"
        )
    count = len({cell for _, cell in others if isinstance(cell, str)})
    if count > max(_FEW_CLASSES, len(known) / 2):
        raise DataError(
            f"{known[0][0]}: {name} must have classes that images share; {count:,} texts in {len(known):,} rows are "
            f"different: leave it out, or write label:{name}"
        )
    return replace(column, kind="one")


def is_unknown(cell: Any) -> bool:
    """Return whether a cell says nothing about its output."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _is_number(cell: Any) -> bool:
    if isinstance(cell, str):
        return _NUMBER.fullmatch(cell.strip()) is not None
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def read_cell(column: Column, cell: Any) -> str | list[str] | float:
    """Return the value of a known cell: a class, tags, or a number; raise DataError if it is not of that kind."""
    name = column.name
    if column.kind == "number":
        if not _is_number(cell):
            raise DataError(f"{printable(name)} must be a number such as 3.5; got {brief(cell)}")
        return check_number(name, float(cell))
    if column.kind == "many":
        return [check_hierarchy(tag) for tag in check_tags(name, _tags(name, cell) if isinstance(cell, str) else cell)]
    if not column.stated and (isinstance(cell, list) or (isinstance(cell, str) and TAG_SEPARATOR in cell)):
        raise DataError(
            f"{printable(name)} must be one class an image; got {brief(cell)}: write tags:{printable(name)} for several"
        )
    return check_hierarchy(check_class(name, cell))


def _tags(name: str, cell: str) -> list[str]:
    if cell.strip() == TAG_SEPARATOR:
        return []
    tags = cell.split(TAG_SEPARATOR)
    if not all(tag.strip() for tag in tags):
        raise DataError(
            f"{printable(name)} must be tags with {TAG_SEPARATOR} between them, or {TAG_SEPARATOR} alone for an image "
            f"without any; got {brief(cell)}"
        )
    return tags
