"""Lists a CSV, TSV or JSONL manifest: path, label and optionally split and group, one picture a row."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from effnet.data.decode import printable
from effnet.data.groups import grouped
from effnet.data.listing import SPLIT_NAMES, Listing, Skipped, class_name, make_part
from effnet.data.manifest_paths import ImageFinder, delimiter_of
from effnet.errors import DataError, nearest

MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})

_LONGEST_HEADER = 100_000
_COLUMNS = ("path", "label", "split")

Row = tuple[str, str, str]


def read_manifest(path: str) -> Listing:
    """Lists the pictures of a manifest; paths in it are relative to its folder, missing files are skipped.

    Raises:
        DataError: a column is missing, or a line is not usable; the message has the line number.
    """
    folder = os.path.dirname(path)
    read_rows = _csv_rows if path.lower().endswith((".csv", ".tsv")) else _jsonl_rows
    finder = ImageFinder(folder)
    seen: dict[str, tuple[int, str, str]] = {}
    group_of: dict[str, str] = {}
    skipped: list[Skipped] = []
    num_repeated = 0
    try:
        for line, row in read_rows(path):
            relative, label, split = _check_row(row, path, line)
            full = finder.find(relative) or os.path.join(folder, relative)
            group_of[full] = str(row.get("group") or "").strip()
            if full in seen:
                _check_same(path, line, relative, (label, split), seen[full])
                num_repeated += 1
            seen[full] = (line, label, split)
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)} must be UTF-8 text ({error.reason}); save it as UTF-8") from error
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


def _check_found(path: str, *, num_rows: int, pairs: Mapping[str, list[tuple[str, str]]], first: str) -> None:
    if not pairs:
        looked = f"none of its {num_rows} files exists; the first that was looked for is {printable(first)}"
        what = looked if num_rows else "it has no rows"
        raise DataError(
            f"{printable(path)} must list pictures, but {what}; paths are relative to the manifest's folder"
        )
    if "" in pairs and len(pairs) > 1:
        raise DataError(
            f"{printable(path)} must give a split in every row or in none, "
            f"but {len(pairs[''])} rows have none; fill them in"
        )


def _check_same(path: str, line: int, relative: str, now: tuple[str, str], earlier: tuple[int, str, str]) -> None:
    if now != earlier[1:]:
        raise DataError(
            f"{printable(path)}, line {line}: {printable(relative)} must have one label and one split, but "
            f"line {earlier[0]} says {earlier[1:]} and this line {now}; keep one of the two"
        )


def _check_row(row: Mapping[str, Any], path: str, line: int) -> Row:
    texts = {}
    for column in ("path", "label"):
        value = row.get(column)
        if isinstance(value, bool | float | dict | list) or value is None or not str(value).strip():
            raise DataError(f"{printable(path)}, line {line}: {column} must be text, received {value!r}")
        texts[column] = str(value)
    split = str(row.get("split") or "").strip().lower()
    if split and split not in SPLIT_NAMES:
        raise DataError(
            f"{printable(path)}, line {line}: split must be one of {', '.join(SPLIT_NAMES)}, "
            f"received {split!r}{nearest(split, SPLIT_NAMES)}"
        )
    return texts["path"], class_name(texts["label"]), SPLIT_NAMES.get(split, "")


def _csv_rows(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        delimiter = delimiter_of(file.readline(_LONGEST_HEADER))
        file.seek(0)
        reader = csv.DictReader(file, skipinitialspace=True, delimiter=delimiter)
        try:
            columns = [(name or "").strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            _check_columns(columns, path, 1)
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{printable(path)}, line {reader.line_num + 1}: not valid CSV ({error})") from error


def _jsonl_rows(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with open(path, encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                raise DataError(f"{printable(path)}, line {line}: not valid JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(
                    f'{printable(path)}, line {line}: must be an object such as {{"path": "1.jpg", "label": "cat"}}'
                )
            _check_columns(list(row), path, line)
            yield line, row


def _check_columns(columns: list[str], path: str, line: int) -> None:
    for needed in _COLUMNS[:2]:
        if needed not in columns:
            shown = ", ".join(printable(c) for c in columns) or "none"
            raise DataError(
                f"{printable(path)}, line {line}: the columns path and label are needed; "
                f"{needed} is missing, received {shown}{nearest(needed, columns)}"
            )
