"""Read YOLO annotations: one text file per image, a class number and coordinates between 0 and 1 in each line."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from effnet.data.annotated.formats.text import read_text
from effnet.data.annotated.formats.yaml import read_flat_yaml
from effnet.data.annotated.index import IMAGE_FOLDERS, FileIndex, stem_of
from effnet.data.annotated.masks.shapes import Polygons
from effnet.data.annotated.record import AnnotatedSet, Findings
from effnet.data.annotated.settle import RawImage, RawObject, settle
from effnet.errors import DataError
from effnet.system.text import brief, printable

_MOST_BYTES, _MOST_CLASSES = 64 * 10**6, 100_000
CLASS_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt")
"""Files with a class name per line, as several tools write them beside the annotations."""


def read_yolo(
    index: FileIndex,
    parts: Mapping[str, Sequence[str]],
    *,
    names_file: str = "",
    class_names: Sequence[str] = (),
) -> AnnotatedSet:
    """Return the images of YOLO annotations; `parts` are the relative paths of the images by split.

    The annotation of images/a/1.jpg is labels/a/1.txt or images/a/1.txt (or 1.jpg.txt there); an image without one has
    no objects.
    `names_file` is the relative path of data.yaml or of a file with a class per line; without it, classes are named by
    their numbers. A line of more than 5 numbers is the outline of an object; but a sixth alone is a score, as in
    predictions, and is not used.

    Raises:
        DataError: the names cannot be read, or there is no image; the message has the file and the line.
    """
    found = Findings()
    names = tuple(class_names) or (names_of(index.absolute(names_file)) if names_file else ())
    files = frozenset(index.files)
    raw: dict[str, list[RawImage]] = {}
    used: set[str] = set()
    for split, images in parts.items():
        listed = raw.setdefault(split, [])
        for image in images:
            annotation = next((path for path in label_paths(image) if path in files), None)
            used.add(annotation or "")
            objects = [] if annotation is None else _read(index.absolute(annotation), names, found)
            path = index.absolute(image)
            listed.append(RawImage(path=path, objects=objects, annotated=annotation is not None))
    _report_missing(index, used, found)
    if not names:
        numbers = {int(thing.name) for images in raw.values() for image in images for thing in image.objects}
        names = tuple(str(number) for number in range(max(numbers, default=-1) + 1))
    return settle(raw, kind="yolo", class_names=names, normalised=True, findings=found)


def label_paths(image: str) -> list[str]:
    """Return the relative paths where the annotation of an image may be, the usual one first."""
    folders, _, file = image.rpartition("/")
    parts = folders.split("/") if folders else []
    places = [
        [*parts[:place], "labels", *parts[place + 1 :]]
        for place in reversed(range(len(parts)))
        if parts[place].lower() in IMAGE_FOLDERS
    ]
    # Of images that differ in suffix alone, `output_names` keeps it.
    names = (f"{file}.txt", f"{stem_of(image)}.txt")
    return ["/".join((*place, name)) for name in names for place in (*places, parts)]


def names_of(path: str) -> tuple[str, ...]:
    """Return the class names of a data.yaml (`names`), or of a file with a name per line."""
    if not path.lower().endswith((".yaml", ".yml")):
        return tuple(line.strip() for line in lines_of(path) if line.strip())
    names = read_flat_yaml(path).get("names")
    if isinstance(names, dict):
        try:
            numbered = {int(key): name for key, name in names.items()}
        except ValueError:
            raise DataError(f"{printable(path)}: the keys of names must be numbers; got {brief(list(names))}") from None
        if sorted(numbered) != list(range(len(numbered))):
            raise DataError(f"{printable(path)}: the keys of names must be 0, 1, 2 ...; got {brief(sorted(numbered))}")
        names = [numbered[number] for number in range(len(numbered))]
    if not isinstance(names, list) or not names or not all(names):
        raise DataError(
            f'{printable(path)}: it must have the class names, as in "names: [cat, dog]"; got {brief(names)}'
        )
    if len(set(names)) < len(names):
        raise DataError(f"{printable(path)}: class names must differ; got {brief(names)}")
    return tuple(names)


def _report_missing(index: FileIndex, used: set[str], found: Findings) -> None:
    """Report annotations beside those in use that belong to no image."""
    folders = {path.rpartition("/")[0] for path in used if path}
    for path in index.files:
        folder, _, name = path.rpartition("/")
        if folder in folders and path.endswith(".txt") and path not in used and name.lower() not in CLASS_FILES:
            found.add_("missing image", index.absolute(path))


def lines_of(path: str) -> list[str]:
    """Return the lines of a text file; raise DataError, with the line, if it is not UTF-8 text."""
    return read_text(path, limit_bytes=_MOST_BYTES).splitlines()


def _read(path: str, names: Sequence[str], found: Findings) -> list[RawObject]:
    try:
        lines = lines_of(path)
    except DataError as error:
        found.add_("unreadable", str(error))
        return []
    objects = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            objects.append(_object(line.split(), place, names))
        except ValueError as error:
            found.add_("invalid", f"{place}: {error}")
    return objects


def _object(words: Sequence[str], place: str, names: Sequence[str]) -> RawObject:
    try:
        label, *values = map(float, words)
    except ValueError:
        raise ValueError(f"it must be numbers separated by blanks; got {brief(' '.join(words))}") from None
    if not label.is_integer() or not 0 <= label < _MOST_CLASSES:
        raise ValueError(f"its first number must be that of a class; got {brief(words[0])}")
    if not all(map(math.isfinite, values)):
        raise ValueError(f"its numbers must be finite; got {brief(' '.join(words))}")
    number = int(label)
    name = names[number] if number < len(names) else f"class {number}" if names else str(number)
    if len(values) in (4, 5):
        x, y, width, height = values[:4]
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return RawObject(place=place, name=name, box=box)
    if len(values) < 6 or len(values) % 2:
        raise ValueError(
            f"after the class there must be 4 numbers, or at least 3 points of an outline; got {len(values)} numbers"
        )
    points = np.array(values).reshape(-1, 2)
    low, high = points.min(0), points.max(0)
    return RawObject(place=place, name=name, box=(*low, *high), shape=Polygons(parts=(points,)))
