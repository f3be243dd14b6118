"""List a CSV, TSV or JSONL manifest: path, labels and optionally split and group, one image per row."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effnet.data.groups import grouped
from effnet.data.hierarchy import check_hierarchy
from effnet.data.labels import CLASSES, class_name
from effnet.data.manifests.columns import Column, choose_columns, is_unknown, read_cell, with_kind
from effnet.data.manifests.paths import ImageFinder
from effnet.data.manifests.rows import place_of, read_rows, read_titles
from effnet.data.several.outputs import SEVERAL
from effnet.data.several.values import label_text, names_from
from effnet.data.sources.source import SPLIT_NAMES, Listing, Skipped, make_part
from effnet.errors import DataError, nearest
from effnet.system.text import brief, printable

MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})

# No real label comes near this limit.
_LONGEST_LABEL = 1000


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
    columns = choose_columns(read_titles(path), outputs, place=place_of(path, 1), of_model=of_model)
    rows = list(_rows(path, columns))
    columns = [
        with_kind(column, ((place_of(path, row.line), row.cells[i]) for row in rows))
        for i, column in enumerate(columns)
    ]
    several = len(columns) > 1 or columns[0].kind != "one"
    found = _found(path, rows, columns, several=several)
    parts = {split: make_part(pairs) for split, pairs in found.pairs.items()}
    keys = [column.key for column in columns]
    if several and of_model:  # whose outputs need not all be known here
        known = {key for part in parts.values() for text in part.labels for key in json.loads(text)}
        keys = [key for key in keys if key in known]
    return Listing(
        name=os.path.splitext(os.path.basename(path))[0],
        parts=parts,
        skipped=tuple(found.skipped),
        notes=tuple(found.notes()),
        root=os.path.dirname(path),
        groups=tuple(grouped(found.groups)),
        class_names=names_from((text for part in parts.values() for text in part.labels), keys) if several else (),
        label_kind=SEVERAL if several else CLASSES,
        outputs=() if columns[0].is_plain and not several else tuple(column.word for column in columns),
    )


def _rows(path: str, columns: Sequence[Column]) -> Iterator[_Row]:
    finder, folder = ImageFinder(os.path.dirname(path)), os.path.dirname(path)
    titles = [column.title for column in columns]
    for line, row in read_rows(path):
        relative, split = _check_row(row, path, line)
        yield _Row(
            line=line,
            relative=relative,
            full=finder.find(relative) or os.path.join(folder, relative),
            split=split,
            group=str(row.get("group") or "").strip(),
            cells=tuple(None if title is None else row.get(title) for title in titles),
        )


def _values(row: _Row, columns: Sequence[Column], path: str) -> dict[str, Any]:
    """Return the known values of a row by key; an empty cell of plain classification is an error."""
    plain = len(columns) == 1 and columns[0].is_plain
    values: dict[str, Any] = {}
    for column, cell in zip(columns, row.cells, strict=True):
        try:
            if plain:
                values[column.key] = _class_of(cell)
            elif not is_unknown(cell):
                values[column.key] = read_cell(column, cell)
        except DataError as error:
            raise DataError(f"{place_of(path, row.line)}: {error}") from error
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
    """The (file, label) pairs of each split and the (group, file) pairs, the files that do not exist, rows left out."""

    pairs: dict[str, list[tuple[str, str]]]
    groups: list[tuple[str, str]]
    skipped: list[Skipped]
    unknown: Counter[str]
    num_repeated: int

    def notes(self) -> Iterator[str]:
        """Yield sentences on the rows that were left out."""
        if self.num_repeated:
            yield f"{self.num_repeated} rows repeat an earlier row and were ignored."
        for split, count in sorted(self.unknown.items()):
            if split and split not in self.pairs:
                yield f"The labels of the {count:,} {split} images are all empty, so that split is not used."
            else:
                where = f" of {split}" if split else ""
                yield f"{count:,} images{where} were left out because all their cells of labels are empty."


def _found(path: str, rows: Sequence[_Row], columns: Sequence[Column], *, several: bool) -> _Found:
    """Return what the rows list; raise DataError if they contradict each other or list nothing."""
    seen: dict[str, tuple[_Row, str]] = {}
    for row in rows:
        values = _values(row, columns, path)
        label = label_text(values) if several and values else next(iter(values.values()), "")
        if row.full in seen:
            _check_same(path, row, label, *seen[row.full], tags=any(column.kind == "many" for column in columns))
        seen[row.full] = row, label
    found = _Found(pairs={}, groups=[], skipped=[], unknown=Counter(), num_repeated=len(rows) - len(seen))
    for row, label in seen.values():
        if not os.path.isfile(row.full):
            found.skipped.append(Skipped(path=row.full, reason="no such file"))
        elif label:
            found.pairs.setdefault(row.split, []).append((row.full, label))
            found.groups.append((row.group, row.full))
        else:
            found.unknown[row.split] += 1
    _check_found(path, num_rows=len(seen), found=found)
    return found


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
            f"{place_of(path, row.line)}: {printable(row.relative)} must have one label and one split, but "
            f"line {earlier.line} says {brief((its_label, earlier.split))} and this line {brief((label, row.split))}; "
            f"keep one of the two{', with all tags of the image in its cell: a|b' if tags else ''}"
        )


def _check_row(row: Mapping[str, Any], path: str, line: int) -> tuple[str, str]:
    """Return the path and the split of a row; raise DataError if they are not text."""
    value = row.get("path")
    if isinstance(value, bool | float | dict | list) or value is None or not str(value).strip():
        raise DataError(f"{place_of(path, line)}: path must be text, received {brief(value)}")
    split = str(row.get("split") or "").strip().lower()
    if split and split not in SPLIT_NAMES:
        raise DataError(
            f"{place_of(path, line)}: split must be one of {', '.join(SPLIT_NAMES)}, "
            f"received {brief(split)}{nearest(split, SPLIT_NAMES)}"
        )
    return str(value), SPLIT_NAMES.get(split, "")
