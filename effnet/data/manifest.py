"""List a CSV, TSV or JSONL manifest: path, label and optionally split and group, one image per row."""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from effnet.data.groups import grouped
from effnet.data.labels import class_name
from effnet.data.manifest_paths import ImageFinder, delimiter_of
from effnet.data.sources import SPLIT_NAMES, Listing, Skipped, make_part
from effnet.errors import DataError, nearest
from effnet.system.files import open_regular, parse_json
from effnet.system.text import brief, printable, reason_of, shortened

MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})

_COLUMNS = ("path", "label", "split")
_NEEDED = ("path", "label")
# No real path or label comes near these limits; a file without line ends must not fill the memory.
_LONGEST_LINE, _LONGEST_LABEL, _MOST_COLUMNS = 1_000_000, 1000, 1000

Row = tuple[str, str, str]


def read_manifest(path: str) -> Listing:
    """List the images of a manifest; paths in it are relative to its folder, missing files are skipped.

    Raises:
        DataError: a column is missing, or a line is invalid; the message has the line number.
    """
    folder = os.path.dirname(path)
    finder = ImageFinder(folder)
    seen: dict[str, tuple[int, str, str]] = {}
    group_of: dict[str, str] = {}
    skipped: list[Skipped] = []
    num_repeated = 0
    for line, row in manifest_rows(path):
        relative, label, split = _check_row(row, path, line)
        full = finder.find(relative) or os.path.join(folder, relative)
        group_of[full] = str(row.get("group") or "").strip()
        if full in seen:
            _check_same(path, line, relative, (label, split), seen[full])
            num_repeated += 1
        seen[full] = (line, label, split)
    pairs: dict[str, list[tuple[str, str]]] = {}
    for full, (_, label, split) in seen.items():
        if os.path.isfile(full):
            pairs.setdefault(split, []).append((full, label))
        else:
            skipped.append(Skipped(path=full, reason="no such file"))
    _check_found(path, num_rows=len(seen), pairs=pairs, first=skipped[0].path if skipped else "")
    notes = (f"{num_repeated} rows repeat an earlier row and were ignored.",) if num_repeated else ()
    return Listing(
        name=os.path.splitext(os.path.basename(path))[0],
        parts={split: make_part(found) for split, found in pairs.items()},
        skipped=tuple(skipped),
        notes=notes,
        root=folder,
        groups=tuple(grouped((group_of[full], full) for part in pairs.values() for full, _ in part)),
    )


def manifest_rows(path: str, *, needed: tuple[str, ...] = _NEEDED) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the rows of a manifest, with their lines; raise DataError if it is invalid, or lacks a column of `needed`.

    The names of the columns of a CSV file are in lower case.
    """
    return (_csv_rows if path.lower().endswith((".csv", ".tsv")) else _jsonl_rows)(path, needed)


def _check_found(path: str, *, num_rows: int, pairs: Mapping[str, list[tuple[str, str]]], first: str) -> None:
    if not pairs:
        looked = f"none of its {num_rows} files exists; the first is {printable(first)}"
        what = looked if num_rows else "it has no rows"
        raise DataError(f"{printable(path)} must list images, but {what}; paths are relative to the manifest's folder")
    if "" in pairs and len(pairs) > 1:
        raise DataError(
            f"{printable(path)} must give a split in every row or in none, "
            f"but {len(pairs[''])} rows have none; fill them in"
        )


def _check_same(path: str, line: int, relative: str, now: tuple[str, str], earlier: tuple[int, str, str]) -> None:
    if now != earlier[1:]:
        raise DataError(
            f"{printable(path)}, line {line}: {printable(relative)} must have one label and one split, but "
            f"line {earlier[0]} says {brief(earlier[1:])} and this line {brief(now)}; keep one of the two"
        )


def _check_row(row: Mapping[str, Any], path: str, line: int) -> Row:
    texts = {}
    for column in ("path", "label"):
        value = row.get(column)
        if isinstance(value, bool | float | dict | list) or value is None or not str(value).strip():
            raise DataError(f"{printable(path)}, line {line}: {column} must be text, received {brief(value)}")
        texts[column] = str(value)
    if len(texts["label"]) > _LONGEST_LABEL:
        raise DataError(
            f"{printable(path)}, line {line}: label must have at most {_LONGEST_LABEL:,} characters, received "
            f"{len(texts['label']):,}: {brief(texts['label'])}"
        )
    split = str(row.get("split") or "").strip().lower()
    if split and split not in SPLIT_NAMES:
        raise DataError(
            f"{printable(path)}, line {line}: split must be one of {', '.join(SPLIT_NAMES)}, "
            f"received {brief(split)}{nearest(split, SPLIT_NAMES)}"
        )
    return texts["path"], class_name(texts["label"]), SPLIT_NAMES.get(split, "")


def _lines(path: str) -> Iterator[str]:
    """Yield the lines of a text file, with their ends; raise DataError for one that is too long or not text."""
    # Invalid UTF-8 becomes lone surrogates, which valid UTF-8 never has: so the line that holds it is known.
    with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        number = 1
        while text := file.readline(_LONGEST_LINE + 1):
            reason = _no_text(text)
            if reason:
                raise DataError(f"{printable(path)}, line {number}: {reason}")
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


def _csv_rows(path: str, needed: tuple[str, ...]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # Strict, because otherwise an unclosed quote turns the rest of the file into one cell.
    lines = _lines(path)
    header = next(lines, "")
    reader = csv.DictReader(chain((header,), lines), skipinitialspace=True, strict=True, delimiter=delimiter_of(header))
    begun = 1
    try:
        columns = [(name or "").strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        _check_columns(columns, path, 1, needed)
        begun = reader.line_num + 1
        for row in reader:
            if None in row:
                raise DataError(
                    f"{printable(path)}, line {reader.line_num}: a row must have one cell per column, {len(columns)}; "
                    f"this one has {len(columns) + len(row[None])}: put quotes around a cell that holds a comma"
                )
            yield reader.line_num, row
            begun = reader.line_num + 1
    except csv.Error as error:
        end = reader.reader.line_num
        last = f" to {end}" if end > begun else ""
        hint = "; is there a quote that is not closed?" if last else ""
        raise DataError(f"{printable(path)}, line {begun}{last}: not valid CSV ({error}){hint}") from error


def _jsonl_rows(path: str, needed: tuple[str, ...]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in enumerate(_lines(path), start=1):
        if not text.strip():
            continue
        try:
            row = parse_json(text)
        except ValueError as error:
            raise DataError(f"{printable(path)}, line {line}: not valid JSON ({reason_of(error)})") from error
        if not isinstance(row, dict):
            raise DataError(
                f'{printable(path)}, line {line}: must be an object such as {{"path": "1.jpg", "label": "cat"}}'
            )
        _check_columns(list(row), path, line, needed)
        yield line, row


def _check_columns(columns: list[str], path: str, line: int, needed: tuple[str, ...]) -> None:
    place = f"{printable(path)}, line {line}"
    if len(columns) > _MOST_COLUMNS:
        raise DataError(f"{place}: a manifest must have at most {_MOST_COLUMNS} columns, received {len(columns):,}")
    for name in dict.fromkeys((*needed, *_COLUMNS)):
        if columns.count(name) > 1:
            raise DataError(f"{place}: each column must be named once, but {name} is named {columns.count(name)} times")
    for name in needed:
        if name not in columns:
            shown = ", ".join(printable(c) for c in columns) or "none"
            shown = shortened(shown)
            raise DataError(
                f"{place}: the columns {' and '.join(needed)} are needed; {name} is missing, received {shown}"
                f"{nearest(name, columns)}"
            )
