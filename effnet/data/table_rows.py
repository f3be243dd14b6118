"""Read the rows of CSV, TSV and JSONL files, each with its line; any other text is an error that names the line."""

import csv
import io
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from effnet.data.manifest_paths import delimiter_of
from effnet.errors import DataError
from effnet.system.files import open_regular, parse_json
from effnet.system.text import printable, reason_of

# No real path or label comes near this limit; a file without line ends must not fill the memory.
_LONGEST_LINE = 1_000_000


def is_table(path: str) -> bool:
    """Return whether a manifest is CSV or TSV, by its name."""
    return path.lower().endswith((".csv", ".tsv"))


def place_of(path: str, line: int) -> str:
    """Return the file and the line as errors name them."""
    return f"{printable(path)}, line {line}"


def header_of(path: str) -> list[str]:
    """Return the cells of a table's header."""
    lines = _lines(path)
    first = next(lines, "")
    reader = csv.reader(chain((first,), lines), skipinitialspace=True, strict=True, delimiter=delimiter_of(first))
    try:
        return next(reader, [])
    except csv.Error as error:
        raise DataError(f"{place_of(path, 1)}: not valid CSV ({error})") from error


def rows_of(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the line and the cells of each row by title; raise DataError for a line that is not valid."""
    return (_csv_rows if is_table(path) else _jsonl_rows)(path)


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
