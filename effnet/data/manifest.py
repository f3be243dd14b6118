"""List a CSV, TSV or JSONL manifest: path, labels and optionally split and group, one image per row."""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from effnet.data.groups import grouped
from effnet.data.hierarchy import check_hierarchy
from effnet.data.labels import CLASSES, class_name
from effnet.data.manifest_columns import (
    RESERVED,
    Column,
    choose_columns,
    is_unknown,
    read_cell,
    title_of,
    with_kind,
)
from effnet.data.manifest_paths import ImageFinder, delimiter_of
from effnet.data.output_values import label_text, names_from
from effnet.data.outputs import SEVERAL
from effnet.data.sources import SPLIT_NAMES, Listing, Skipped, make_part
from effnet.errors import DataError, nearest
from effnet.system.files import open_regular, parse_json
from effnet.system.text import brief, printable, reason_of, shortened

MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})

# No real path or label comes near these limits; a file without line ends must not fill the memory.
_LONGEST_LINE, _LONGEST_LABEL, _MOST_COLUMNS = 1_000_000, 1000, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One line of a manifest: the path as written and the file that it means, its split, group and cells of labels."""

    line: int
    relative: str
    full: str
    split: str
    group: str
    cells: tuple[Any, ...]


def read_manifest(path: str, *, outputs: Sequence[str] = (), of_model: bool = False) -> Listing:
    """List the images of a manifest; paths in it are relative to its folder, missing files are skipped.

    `outputs` choose the columns of labels, see `choose_columns`; a single one of classes is classification. Images of
    which no output is known are left out.

    Raises:
        DataError: a column is missing, or a line is invalid; the message has the line number.
    """
    titles = _titles(path)
    columns = choose_columns(titles, outputs, place=_place(path, 1), of_model=of_model)
    rows = list(_rows(path, columns))
    inferred, columns = (
        columns,
        [
            with_kind(column, ((_place(path, row.line), row.cells[i]) for row in rows))
            for i, column in enumerate(columns)
        ],
    )
    several = len(columns) > 1 or columns[0].kind != "one"
    seen: dict[str, tuple[_Row, str]] = {}
    num_repeated = 0
    for row in rows:
        values = _values(row, columns, inferred, path)
        label = label_text(values) if several and values else next(iter(values.values()), "")
        if row.full in seen:
            _check_same(path, row, label, *seen[row.full], tags=any(column.kind == "many" for column in columns))
            num_repeated += 1
        seen[row.full] = row, label
    found = _Found(pairs={}, skipped=[], unknown=Counter())
    for row, label in seen.values():
        found.add_(row, label)
    _check_found(path, num_rows=len(seen), found=found)
    group_of = {row.full: row.group for row, label in seen.values() if label}
    parts = {split: make_part(pairs) for split, pairs in found.pairs.items()}
    keys = [column.key for column in columns]
    if several and of_model:  # whose outputs need not all be known here
        known = {key for part in parts.values() for text in part.labels for key in json.loads(text)}
        keys = [key for key in keys if key in known]
    return Listing(
        name=os.path.splitext(os.path.basename(path))[0],
        parts=parts,
        skipped=tuple(found.skipped),
        notes=(*_repeated_note(num_repeated), *found.notes()),
        root=os.path.dirname(path),
        groups=tuple(grouped((group_of[full], full) for pairs in found.pairs.values() for full, _ in pairs)),
        class_names=names_from((text for part in parts.values() for text in part.labels), keys) if several else (),
        label_kind=SEVERAL if several else CLASSES,
        outputs=() if columns[0].is_plain and not several else tuple(column.word for column in columns),
    )


def _titles(path: str) -> list[str]:
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


def _rows(path: str, columns: Sequence[Column]) -> Iterator[_Row]:
    finder, folder = ImageFinder(os.path.dirname(path)), os.path.dirname(path)
    titles = [column.title for column in columns]
    for line, row in (_csv_rows if _is_table(path) else _jsonl_rows)(path):
        row = {title_of(text): cell for text, cell in row.items()}
        relative, split = _check_row(row, path, line)
        yield _Row(
            line=line,
            relative=relative,
            full=finder.find(relative) or os.path.join(folder, relative),
            split=split,
            group=str(row.get("group") or "").strip(),
            cells=tuple(None if title is None else row.get(title) for title in titles),
        )


def _values(row: _Row, columns: Sequence[Column], inferred: Sequence[Column], path: str) -> dict[str, Any]:
    """Return the known values of a row by key; an empty cell of plain classification is an error."""
    plain = len(columns) == 1 and columns[0].is_plain
    values: dict[str, Any] = {}
    for column, before, cell in zip(columns, inferred, row.cells, strict=True):
        try:
            if plain:
                values[column.key] = _class_of(cell)
            elif not is_unknown(cell):
                values[column.key] = read_cell(column, cell, inferred=before.kind is None)
        except DataError as error:
            raise DataError(f"{_place(path, row.line)}: {error}") from error
    return values


def _class_of(cell: Any) -> str:
    if isinstance(cell, bool | float | dict | list) or cell is None or not str(cell).strip():
        raise DataError(f"label must be text, received {brief(cell)}")
    if len(str(cell)) > _LONGEST_LABEL:
        raise DataError(
            f"label must have at most {_LONGEST_LABEL:,} characters, received {len(str(cell)):,}: {brief(str(cell))}"
        )
    return check_hierarchy(class_name(str(cell)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The (file, label) pairs of each split, the files that do not exist, and the rows without a known label."""

    pairs: dict[str, list[tuple[str, str]]]
    skipped: list[Skipped]
    unknown: Counter[str]

    def add_(self, row: _Row, label: str) -> None:
        """Add the row of an image."""
        if not os.path.isfile(row.full):
            self.skipped.append(Skipped(path=row.full, reason="no such file"))
        elif label:
            self.pairs.setdefault(row.split, []).append((row.full, label))
        else:
            self.unknown[row.split] += 1

    def notes(self) -> list[str]:
        """Return sentences on the images that were left out because nothing is known of them."""
        said = []
        for split, count in sorted(self.unknown.items()):
            if split and split not in self.pairs:
                said.append(f"The labels of the {count:,} {split} images are all empty, so that split is not used.")
            else:
                where = f" of {split}" if split else ""
                said.append(f"{count:,} images{where} were left out because all their cells of labels are empty.")
        return said


def _repeated_note(count: int) -> list[str]:
    return [f"{count} rows repeat an earlier row and were ignored."] if count else []


def _check_found(path: str, *, num_rows: int, found: _Found) -> None:
    if not found.pairs:
        first = found.skipped[0].path if found.skipped else ""
        looked = f"none of its {num_rows} files exists; the first is {printable(first)}"
        if found.unknown:
            looked = f"the cells of labels are empty in all rows of the {found.unknown.total()} files that exist"
        what = looked if num_rows else "it has no rows"
        raise DataError(f"{printable(path)} must list images, but {what}; paths are relative to the manifest's folder")
    if "" in found.pairs and len(found.pairs) > 1:
        raise DataError(
            f"{printable(path)} must give a split in every row or in none, "
            f"but {len(found.pairs[''])} rows have none; fill them in"
        )


def _check_same(path: str, row: _Row, label: str, earlier: _Row, its_label: str, *, tags: bool) -> None:
    if (label, row.split) != (its_label, earlier.split):
        raise DataError(
            f"{_place(path, row.line)}: {printable(row.relative)} must have one label and one split, but "
            f"line {earlier.line} says {brief((its_label, earlier.split))} and this line {brief((label, row.split))}; "
            f"keep one of the two{', with all tags of the image in its cell: a|b' if tags else ''}"
        )


def _check_row(row: Mapping[str, Any], path: str, line: int) -> tuple[str, str]:
    """Return the path and the split of a row; raise DataError if they are not text."""
    value = row.get("path")
    if isinstance(value, bool | float | dict | list) or value is None or not str(value).strip():
        raise DataError(f"{_place(path, line)}: path must be text, received {brief(value)}")
    split = str(row.get("split") or "").strip().lower()
    if split and split not in SPLIT_NAMES:
        raise DataError(
            f"{_place(path, line)}: split must be one of {', '.join(SPLIT_NAMES)}, "
            f"received {brief(split)}{nearest(split, SPLIT_NAMES)}"
        )
    return str(value), SPLIT_NAMES.get(split, "")


def _place(path: str, line: int) -> str:
    return f"{printable(path)}, line {line}"


def _lines(path: str) -> Iterator[str]:
    """Yield the lines of a text file, with their ends; raise DataError for one that is too long or not text."""
    # Invalid UTF-8 becomes lone surrogates, which valid UTF-8 never has: so the line that holds it is known.
    with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        number = 1
        while text := file.readline(_LONGEST_LINE + 1):
            reason = _no_text(text)
            if reason:
                raise DataError(f"{_place(path, number)}: {reason}")
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
        raise DataError(f"{_place(path, 1)}: not valid CSV ({error})") from error


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
                    f"{_place(path, reader.line_num)}: a row must have one cell per column, {len(columns)}; "
                    f"this one has {len(columns) + len(row[None])}: put quotes around a cell that holds a comma"
                )
            yield reader.line_num, row
            begun = reader.line_num + 1
    except csv.Error as error:
        end = reader.reader.line_num
        last = f" to {end}" if end > begun else ""
        hint = "; is there a quote that is not closed?" if last else ""
        raise DataError(f"{_place(path, begun)}{last}: not valid CSV ({error}){hint}") from error


def _jsonl_rows(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in enumerate(_lines(path), start=1):
        if not text.strip():
            continue
        try:
            row = parse_json(text)
        except ValueError as error:
            raise DataError(f"{_place(path, line)}: not valid JSON ({reason_of(error)})") from error
        if not isinstance(row, dict):
            raise DataError(f'{_place(path, line)}: must be an object such as {{"path": "1.jpg", "label": "cat"}}')
        yield line, row


def _check_columns(titles: Sequence[str], path: str, line: int) -> None:
    if len(titles) > _MOST_COLUMNS:
        raise DataError(
            f"{_place(path, line)}: a manifest must have at most {_MOST_COLUMNS} columns, received {len(titles):,}"
        )
    for name in RESERVED:
        if titles.count(name) > 1:
            raise DataError(
                f"{_place(path, line)}: each column must be named once, but {name} is named {titles.count(name)} times"
            )
    if "path" not in titles:
        shown = shortened(", ".join(map(printable, titles)) or "none")
        raise DataError(
            f"{_place(path, line)}: the columns path and label are needed; path is missing, received {shown}"
            f"{nearest('path', titles)}"
        )
