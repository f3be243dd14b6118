"""Read a manifest of images and their captions: path, the column of the captions, and optionally split and group."""

import os
import unicodedata
from collections.abc import Mapping
from typing import Any

from effnet.data.captions import CAPTIONS
from effnet.data.datasets import Dataset, check_options, split_listing
from effnet.data.groups import with_groups
from effnet.data.manifests.manifest import MANIFEST_SUFFIXES
from effnet.data.manifests.paths import ImageFinder
from effnet.data.manifests.rows import place_of, read_rows, read_titles
from effnet.data.sources.source import SPLIT_NAMES, Group, Listing, Skipped, make_part
from effnet.errors import DataError, nearest
from effnet.system.text import brief, printable, reason_of, shortened

LONGEST_CAPTION = 10_000
"""The most characters of a caption."""

_SUFFIXES = ", ".join(sorted(MANIFEST_SUFFIXES))


def read_captions(source: str | os.PathLike[str], *, text: str, seed: int = 0, group_by: str = "") -> Dataset:
    """Return the images of the manifest `source` with the captions of its column `text`, split like classes.

    The labels of a split are its captions, an object array [images]. Rows without a caption are left out and counted in
    the notes. An image may have several rows with different captions: each is a pair of its own, and all of them are in
    one split. Raises DataError for a manifest that cannot be read, has no such column, or has no captions.
    """
    check_options(seed=seed, channels=None)
    path = os.fspath(source)
    if not os.path.isfile(path) or os.path.splitext(path)[1].lower() not in MANIFEST_SUFFIXES:
        raise DataError(
            f"DATA must be a manifest, a file that ends in {_SUFFIXES}, with the columns path and COLUMN; got "
            f"{printable(path)}"
        )
    try:
        listing = _list(path, text)
    except OSError as error:
        raise DataError(f"DATA must be readable, but {printable(path)} is not: {reason_of(error)}") from error
    return split_listing(with_groups(listing, group_by=group_by), seed=seed)


def _column(path: str, text: str) -> str:
    """Return the title of the column of captions, which may be named in another case."""
    if text.strip().lower() in ("path", "split", "group", ""):
        raise DataError(f"--text must name the column of the captions; got {brief(text)}")
    titles = read_titles(path)
    found = next((title for title in titles if title.strip().lower() == text.strip().lower()), None)
    if found is None:
        raise DataError(
            f"{place_of(path, 1)}: the columns path and {printable(text)} are needed; {printable(text)} is missing, "
            f"received {shortened(', '.join(map(printable, titles)))}{nearest(text, titles)}"
        )
    return found


def _list(path: str, text: str) -> Listing:
    column = _column(path, text)
    folder, finder = os.path.dirname(path), ImageFinder(os.path.dirname(path))
    pairs: dict[str, dict[tuple[str, str], None]] = {}
    skipped: dict[str, Skipped] = {}
    given: dict[str, tuple[int, str]] = {}
    groups: dict[str, list[str]] = {}
    rows = empty = 0
    for line, row in read_rows(path):
        rows += 1
        where = f"{printable(path)}, line {line}"
        relative, caption, split = _read(row, column, where)
        full = finder.find(relative) or os.path.join(folder, relative)
        if given.setdefault(full, (line, split))[1] != split:
            first, other = given[full]
            raise DataError(f"{where}: {printable(relative)} must be in one split; line {first} says {brief(other)}")
        if not caption:
            empty += 1
        elif not os.path.isfile(full):
            skipped[full] = Skipped(path=full, reason="no such file")
        else:
            pairs.setdefault(split, {})[full, caption] = None
            if group := str(row.get("group") or "").strip():
                groups.setdefault(group, []).append(full)
    _check(path, column, rows=rows, empty=empty, skipped=skipped, pairs=pairs)
    notes = (f"{empty:,} of {rows:,} rows have no caption in {printable(column)} and were left out.",) if empty else ()
    return Listing(
        name=os.path.splitext(os.path.basename(path))[0],
        parts={split: make_part(found) for split, found in pairs.items()},
        skipped=tuple(skipped.values()),
        notes=notes,
        root=folder,
        groups=tuple(Group(kind="group", names=tuple(names)) for names in groups.values() if len(names) > 1),
        label_kind=CAPTIONS,
    )


def _read(row: Mapping[str, Any], column: str, where: str) -> tuple[str, str, str]:
    """Return the path, the caption and the split of a row."""
    relative, caption = row.get("path"), row.get(column)
    if not isinstance(relative, str) or not relative.strip():
        raise DataError(f"{where}: path must be text, received {brief(relative)}")
    if not isinstance(caption, str | None):
        raise DataError(f"{where}: {printable(column)} must be text, received {brief(caption)}")
    caption = unicodedata.normalize("NFC", caption or "").strip()
    if len(caption) > LONGEST_CAPTION:
        raise DataError(
            f"{where}: a caption must have at most {LONGEST_CAPTION:,} characters, received {len(caption):,}"
        )
    split = str(row.get("split") or "").strip().lower()
    if split and split not in SPLIT_NAMES:
        names = ", ".join(SPLIT_NAMES)
        raise DataError(f"{where}: split must be one of {names}, received {brief(split)}{nearest(split, SPLIT_NAMES)}")
    return relative, caption, SPLIT_NAMES.get(split, "")


def _check(
    path: str, column: str, *, rows: int, empty: int, skipped: Mapping[str, Skipped], pairs: Mapping[str, object]
) -> None:
    if not pairs:
        if skipped:
            why = f"none of its files exists; the first is {printable(next(iter(skipped)))}"
        else:
            why = f"the column {printable(column)} is empty in all of its {rows:,} rows" if empty else "it has no rows"
        raise DataError(f"{printable(path)} must list images with captions, but {why}")
    if "" in pairs and len(pairs) > 1:
        raise DataError(f"{printable(path)} must give a split in every row or in none; fill them in")
