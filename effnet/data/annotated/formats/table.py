"""Read boxes from a CSV, TSV or JSONL file: a box per row, or all boxes of an image in one row of JSON."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from effnet.data.annotated.record import AnnotatedSet, Findings
from effnet.data.annotated.settle import RawImage, RawObject, settle
from effnet.data.manifests.paths import ImageFinder
from effnet.data.manifests.rows import place_of, read_rows
from effnet.data.sources.source import SPLIT_NAMES
from effnet.errors import DataError, nearest
from effnet.system.text import brief, printable

COLUMNS = {
    "path": ("path", "image", "filename", "file_name", "image_path", "image_id", "file"),
    "xmin": ("xmin", "x0", "x1", "x_min", "left"),
    "ymin": ("ymin", "y0", "y1", "y_min", "top"),
    "xmax": ("xmax", "x1", "x2", "x_max", "right"),
    "ymax": ("ymax", "y1", "y2", "y_max", "bottom"),
    "label": ("label", "class", "name", "class_name", "category"),
}
"""The titles that each column may have; x1 and y1 are the second corner beside x0 and y0, else the first."""

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_BOXES = ("boxes", "labels")


@dataclass(slots=True)
class _Image:
    """The rows of one image so far."""

    objects: list[RawObject] = field(default_factory=list)
    width: int | None = None
    height: int | None = None
    split: str = ""
    place: str = ""


def read_table(path: str, *, class_names: Sequence[str] = ()) -> AnnotatedSet:
    """Return the images of a table of boxes; paths in it are relative to its folder.

    Each row has a path and a box: xmin, ymin, xmax, ymax and label, or an image without objects if these cells are
    empty. A row of JSON may have all boxes of an image: "boxes", a list of [xmin, ymin, xmax, ymax], and "labels".
    The columns split, width, height, difficult and crowd are optional.

    Raises:
        DataError: a column is missing or a line is not valid; the message has the file and the line.
    """
    finder, folder, found = ImageFinder(os.path.dirname(path)), os.path.dirname(path), Findings()
    images: dict[str, _Image] = {}
    columns: dict[tuple[str, ...], dict[str, str]] = {}
    for line, row in read_rows(path):
        row = {title.strip().lower(): cell for title, cell in row.items()}
        if tuple(row) not in columns:
            columns[tuple(row)] = _columns(list(row), path, line)
        titles = columns[tuple(row)]
        place, name = place_of(path, line), row.get(titles["path"])
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{place}: the path of an image must be text; got {brief(name)}")
        full = finder.find(name)
        if full is None:
            found.add_("missing image", f"{place}: {os.path.join(folder, name)}")
            continue
        image = images.setdefault(os.path.normpath(full), _Image())
        _add_(image, row, place)
        image.objects += _objects(row, titles, place, found)
    parts: dict[str, list[RawImage]] = {}
    for full, image in images.items():
        raw = RawImage(path=full, objects=image.objects, width=image.width, height=image.height)
        parts.setdefault(image.split, []).append(raw)
    if "" in parts and len(parts) > 1:
        raise DataError(f"{printable(path)}: every image must have a split, or none; {len(parts['']):,} have none")
    return settle(parts, kind="table", class_names=class_names, findings=found)


def box_columns(titles: Sequence[str]) -> dict[str, str] | None:
    """Return the title of each column of boxes, or None if titles, in lower case, are not those of such a table."""
    found = {key: title for key in ("path", "label") if (title := _first(COLUMNS[key], titles))}
    if "path" in found and set(_BOXES) <= set(titles):
        return {"path": found["path"]}
    for first, second in (("0", "1"), ("1", "2")):
        if {f"x{first}", f"y{first}", f"x{second}", f"y{second}"} <= set(titles):
            corners = dict(zip(_SIDES, (f"x{first}", f"y{first}", f"x{second}", f"y{second}"), strict=True))
            break
    else:
        corners = {side: title for side in _SIDES if (title := _first(COLUMNS[side], titles))}
    found |= corners
    return found if len(found) == 6 and len(set(found.values())) == 6 else None


def _first(names: Sequence[str], titles: Sequence[str]) -> str | None:
    return next((name for name in names if name in titles), None)


def _columns(titles: Sequence[str], path: str, line: int) -> dict[str, str]:
    columns = box_columns(titles)
    if columns is None:
        raise DataError(
            f"{place_of(path, line)}: the columns path, xmin, ymin, xmax, ymax and label are needed, or path, boxes "
            f"and labels; got {brief(', '.join(titles))}{nearest('xmin', titles)}"
        )
    return columns


def _add_(image: _Image, row: Mapping[str, Any], place: str) -> None:
    """Take the split and the size of the image of a row; raise DataError if another row differs."""
    split = str(row.get("split") or "").strip().lower()
    if split and split not in SPLIT_NAMES:
        raise DataError(f"{place}: split must be one of {', '.join(SPLIT_NAMES)}; got {brief(split)}")
    split = SPLIT_NAMES.get(split, "")
    if image.place and image.split != split:
        raise DataError(
            f"{place}: all rows of an image must have one split; got {brief(split)}, and {printable(image.place)} "
            f"has {brief(image.split)}"
        )
    image.split, image.place = split, image.place or place
    sides = [_whole(row.get(side)) for side in ("width", "height")]
    image.width, image.height = image.width or sides[0], image.height or sides[1]


def _whole(value: Any) -> int | None:
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 8 else None


def _objects(row: Mapping[str, Any], titles: Mapping[str, str], place: str, found: Findings) -> list[RawObject]:
    if "xmin" not in titles:
        return _many(row, place, found)
    cells = [row.get(titles[side]) for side in _SIDES]
    label = row.get(titles["label"])
    if all(cell is None or str(cell).strip() == "" for cell in cells):
        return []
    thing = _object(cells, label, place, found, difficult=_is_set(row, "difficult"), crowd=_is_set(row, "crowd"))
    return [] if thing is None else [thing]


def _many(row: Mapping[str, Any], place: str, found: Findings) -> list[RawObject]:
    boxes, labels = row.get("boxes") or [], row.get("labels") or []
    if not isinstance(boxes, list) or not isinstance(labels, list) or len(boxes) != len(labels):
        raise DataError(
            f"{place}: boxes and labels must be lists of one length; got {brief(boxes)} and {brief(labels)}"
        )
    things = [_object(box, label, place, found) for box, label in zip(boxes, labels, strict=True)]
    return [thing for thing in things if thing is not None]


def _object(
    cells: Any, label: Any, place: str, found: Findings, *, difficult: bool = False, crowd: bool = False
) -> RawObject | None:
    try:
        if not isinstance(cells, list) or len(cells) != 4 or any(isinstance(cell, bool) for cell in cells):
            raise ValueError
        left, top, right, bottom = map(float, cells)
    except (TypeError, ValueError, OverflowError):
        found.add_("invalid", f"{place}: a box must be 4 numbers; got {brief(cells)}")
        return None
    if isinstance(label, bool | float | list | dict) or label is None or not str(label).strip():
        raise DataError(f"{place}: the label of a box must be text; got {brief(label)}")
    return RawObject(
        place=place, name=str(label).strip(), box=(left, top, right, bottom), difficult=difficult, crowd=crowd
    )


def _is_set(row: Mapping[str, Any], title: str) -> bool:
    return str(row.get(title) or "").strip().lower() in ("1", "true", "yes")
