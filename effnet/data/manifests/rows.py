"""Read the rows of a CSV, TSV or JSONL file: a mapping from titles to cells for each, with the number of its line."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from effnet.data.manifests.columns import RESERVED, title_of
from effnet.data.manifests.paths import delimiter_of
from effnet.errors import DataError, nearest
from effnet.system.files import open_regular, parse_json
from effnet.system.text import printable, reason_of, shortened

# No real line comes near this limit; a file without line ends must not fill the memory.
_LONGEST_LINE, _MOST_COLUMNS = 1_000_000, 1000


def read_titles(path: str) -> list[str]:
    """Return the titles of all columns, in order; raise DataError if path is not among them."""
    if _is_table(path):
        titles = [title_of(text) for text in _header(path)]
        _check_columns(titles, path, 1)
        return titles
    found: dict[str, None] = {}
    for line, row in _jsonl_rows(path):
        _check_columns([title_of(text) for text in row], path, line)
        found.update(dict.fromkeys(map(title_of, row)))
    return list(found)


def _is_table(path: str) -> bool:
    return path.lower().endswith((".csv", ".tsv"))


def read_rows(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the number of a line and its cells by title; raise DataError for a line that cannot be read."""
    for line, row in (_csv_rows if _is_table(path) else _jsonl_rows)(path):
        yield line, {title_of(text): cell for text, cell in row.items()}


def place_of(path: str, line: int) -> str:
    """Return the place of a line as the beginning of a message."""
    return f"{printable(path)}, line {line}"


def _lines(path: str) -> Iterator[str]:
    """Yield the lines of a text file, with their ends; raise DataError for one that is too long or not text."""
    # Invalid UTF-8 becomes lone surrogates, which valid UTF-8 never has: so the line that holds it is known.
    with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        number = 1
        while text := file.readline(_LONGEST_LINE + 1):
            reason = _no_text(text)
            if reason:
                raise DataError(f"{place_of(path, number)}: {reason}")
            yield text
            number += 1


def _no_text(line: str) -> str:
    """Return the reason why a line cannot be read, or an empty string."""
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return "a manifest must be UTF-8 text; save it as UTF-8"
    if "\0" in line:
        return "a manifest must be UTF-8 text, and this line holds a NUL character; save it as UTF-8"
    if len(line) > _LONGEST_LINE:
        return f"a line must have at most {_LONGEST_LINE:,} characters; this one has more"
    return ""


def _header(path: str) -> list[str]:
    """Return the cells of a table's header."""
    lines = _lines(path)
    first = next(lines, "")
    reader = csv.reader(chain((first,), lines), skipinitialspace=True, strict=True, delimiter=delimiter_of(first))
    try:
        return next(reader, [])
    except csv.Error as error:
        raise DataError(f"{place_of(path, 1)}: not valid CSV ({error})") from error


def _csv_rows(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # Strict, because otherwise an unclosed quote turns the rest of the file into one cell.
    lines = _lines(path)
    header = next(lines, "")
    reader = csv.DictReader(chain((header,), lines), skipinitialspace=True, strict=True, delimiter=delimiter_of(header))
    begun = 1
    try:
        columns = list(reader.fieldnames or ())
        begun = reader.line_num + 1
        for row in reader:
            if None in row:
                raise DataError(
                    f"{place_of(path, reader.line_num)}: a row must have one cell per column, {len(columns)}; "
                    f"this one has {len(columns) + len(row[None])}: put quotes around a cell that holds a comma"
                )
            yield reader.line_num, row
            begun = reader.line_num + 1
    except csv.Error as error:
        end = reader.reader.line_num
        last = f" to {end}" if end > begun else ""
        hint = "; is there a quote that is not closed?" if last else ""
        raise DataError(f"{place_of(path, begun)}{last}: not valid CSV ({error}){hint}") from error


def _jsonl_rows(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in enumerate(_lines(path), start=1):
        if not text.strip():
            continue
        try:
            row = parse_json(text)
        except ValueError as error:
            raise DataError(f"{place_of(path, line)}: not valid JSON ({reason_of(error)})") from error
        if not isinstance(row, dict):
            raise DataError(f'{place_of(path, line)}: must be an object such as {{"path": "1.jpg", "label": "cat"}}')
        yield line, row


def _check_columns(titles: Sequence[str], path: str, line: int) -> None:
    if len(titles) > _MOST_COLUMNS:
        raise DataError(
            f"{place_of(path, line)}: a manifest must have at most {_MOST_COLUMNS} columns, received {len(titles):,}"
        )
    for name in RESERVED:
        if (count := titles.count(name)) > 1:
            place = place_of(path, line)
            raise DataError(f"{place}: each column must be named once, but {name} is named {count} times")
    if "path" not in titles:
        shown = shortened(", ".join(map(printable, titles)) or "none")
        raise DataError(
            f"{place_of(path, line)}: the columns path and label are needed; path is missing, received {shown}"
            f"{nearest('path', titles)}"
        )
