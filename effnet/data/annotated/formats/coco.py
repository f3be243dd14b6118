"""Read COCO's JSON annotations of objects, one at a time: a file of gigabytes is never a tree of Python objects.

Source: cocodataset.org, "Data format".
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from effnet.data.annotated.formats.text import read_text
from effnet.data.annotated.index import FileIndex
from effnet.data.annotated.masks.shapes import Shape, shape_from_coco
from effnet.data.annotated.record import AnnotatedSet, Findings
from effnet.data.annotated.settle import RawImage, RawObject, settle
from effnet.errors import DataError
from effnet.system.text import brief, printable

# The largest public file, of Open Images, has 5 GB.
_MOST_BYTES = 8 * 2**30
_BLANK = re.compile(r"[ \t\n\r]*")
_LARGEST_SIDE = 2**20

CocoNumber = int | str
"""What identifies an image or a category: some tools write text."""


def read_coco(index: FileIndex, parts: Mapping[str, Sequence[str]], *, class_names: Sequence[str] = ()) -> AnnotatedSet:
    """Return the images of COCO annotations; `parts` are the relative paths of their JSON files by split.

    Classes are in the order of their numbers. Annotations of images that are not listed, of unknown categories, and
    images that do not exist are reported.

    Raises:
        DataError: a file is not such JSON, has no categories, or two files have different ones; the message has the
            file and the line.
    """
    found = Findings()
    names = tuple(class_names)
    first = ""
    seen: set[str] = set()
    raw: dict[str, list[RawImage]] = {}
    for split, paths in parts.items():
        for path in paths:
            contents = _read(index.absolute(path), found)
            own = contents.class_names()
            if first and not class_names and own != names:
                raise DataError(
                    f"{printable(index.absolute(path))}: all files must have the same categories; "
                    f"got {brief(own)}, and {printable(first)} has {brief(names)}"
                )
            names, first = names or own, first or index.absolute(path)
            for image in _images(contents, index, path, found):
                if image.path in seen:
                    found.add_("annotated twice", f"{index.absolute(path)}: {image.path}")
                    continue
                seen.add(image.path)
                raw.setdefault(split, []).append(image)
    return settle(raw, kind="coco", class_names=names, findings=found)


def read_numbers(path: str) -> tuple[dict[str, CocoNumber], dict[str, CocoNumber]]:
    """Return the numbers of the images of COCO annotations by their file names, and those of the categories by name.

    Raises DataError as `read_coco` does, and if two images have the same file name.
    """
    contents = _read(path, Findings())
    images: dict[str, CocoNumber] = {}
    for number, image in contents.images.items():
        name = image.name.replace("\\", "/").removeprefix("./")
        if name in images:
            raise DataError(
                f"{printable(image.place)}: images must have different file names; {brief(name)} is used twice"
            )
        images[name] = number
    return images, {name: number for number, name in contents.categories.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Object:
    """An annotation, before its category is known."""

    category: Any
    place: str
    box: tuple[float, float, float, float] | None
    shape: Shape | None
    area: float | None
    crowd: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """An image as listed."""

    name: str
    width: int | None
    height: int | None
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """One file: its categories and images by number, and its annotations by the number of their image."""

    categories: dict[CocoNumber, str] = field(default_factory=dict)
    images: dict[CocoNumber, _Image] = field(default_factory=dict)
    objects: dict[CocoNumber, list[_Object]] = field(default_factory=dict)

    def class_names(self) -> tuple[str, ...]:
        """Return the classes in the order of their numbers, text after numbers."""
        return tuple(
            self.categories[key] for key in sorted(self.categories, key=lambda key: (isinstance(key, str), key))
        )


def _images(contents: _Contents, index: FileIndex, path: str, found: Findings) -> Iterator[RawImage]:
    for number in contents.objects.keys() - contents.images.keys():
        for thing in contents.objects[number]:
            found.add_("missing image", f"{thing.place}: no image has the id {brief(number)}")
    for number, image in contents.images.items():
        file = index.find_image(image.name, near=path)
        if file is None:
            found.add_("missing image", f"{image.place}: {image.name}")
            continue
        objects = [
            RawObject(
                place=thing.place,
                name=contents.categories.get(thing.category, f"category {brief(thing.category)}"),
                box=thing.box,
                shape=thing.shape,
                area=thing.area,
                crowd=thing.crowd,
            )
            for thing in contents.objects.get(number, ())
        ]
        yield RawImage(path=index.absolute(file), objects=objects, width=image.width, height=image.height)


def _read(path: str, found: Findings) -> _Contents:
    text = read_text(path, limit_bytes=_MOST_BYTES)
    place = _places(path, text)
    contents = _Contents()
    take = {"categories": _take_category, "images": _take_image, "annotations": _take_object}
    try:
        for key, offset, value in _members(text, frozenset(take)):
            if not isinstance(value, dict):
                raise _Invalid(offset, f'each of "{key}" must be an object; got {brief(value)}')
            take[key](contents, value, offset, place, found)
    except _Invalid as error:
        raise DataError(f"{printable(place(error.offset))}: {error}") from error
    if not contents.categories:
        raise DataError(
            f'{printable(path)}: "categories" must have at least one, such as {{"id": 1, "name": "cat"}}; it has none'
        )
    names = contents.class_names()
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{printable(path)}: categories must have different names; {brief(twice)} is used twice")
    return contents


class _Invalid(Exception):
    """A part of a file at an offset that cannot be used."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(why)
        self.offset = offset


def _places(path: str, text: str) -> Callable[[int], str]:
    """Return a function from an offset to the file and line; growing offsets cost one reading of the text."""
    last, line = 0, 1

    def place(offset: int) -> str:
        nonlocal last, line
        last, line = (last, line) if offset >= last else (0, 1)
        line, last = line + text.count("\n", last, offset), offset
        return f"{path}, line {line}"

    return place


def _members(text: str, wanted: frozenset[str]) -> Iterator[tuple[str, int, Any]]:
    """Yield the key, the offset and the value of each element of the wanted lists of a JSON object."""
    decode = json.JSONDecoder(parse_constant=_refuse).raw_decode

    def skip(offset: int) -> int:
        return _BLANK.match(text, offset).end()  # type: ignore[union-attr]

    def value_at(offset: int) -> tuple[Any, int]:
        try:
            value, end = decode(text, offset)
        except json.JSONDecodeError as error:
            raise _Invalid(error.pos, f"not valid JSON ({error.msg})") from error
        except RecursionError:
            raise _Invalid(offset, "not valid JSON (it is nested too deeply)") from None
        except ValueError as error:  # an integer of thousands of digits, NaN
            raise _Invalid(offset, f"not valid JSON ({error})") from error
        return value, skip(end)

    def expect(offset: int, characters: str) -> str:
        found = text[offset : offset + 1]
        if not found or found not in characters:
            raise _Invalid(offset, f"not valid JSON (expected {' or '.join(characters)}, got {brief(found)})")
        return found

    offset = skip(0)
    expect(offset, "{")
    offset = skip(offset + 1)
    more = text[offset : offset + 1] != "}"
    while more:
        expect(offset, '"')
        key, offset = value_at(offset)
        expect(offset, ":")
        offset = skip(offset + 1)
        if key in wanted:
            if text[offset : offset + 1] != "[":
                raise _Invalid(offset, f'"{key}" must be a list')
            offset = skip(offset + 1)
            inside = text[offset : offset + 1] != "]"
            while inside:
                start = offset
                value, offset = value_at(offset)
                yield key, start, value
                inside = expect(offset, ",]") == ","
                offset = skip(offset + 1) if inside else offset
            offset = skip(offset + 1)
        else:
            _, offset = value_at(offset)
        more = expect(offset, ",}") == ","
        offset = skip(offset + 1)


def _refuse(text: str) -> float:
    raise ValueError(f"it must hold finite numbers; got {text}")


def _number_of(value: Mapping[str, Any], name: str, key: str, offset: int) -> CocoNumber:
    number = value.get(name)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not isinstance(number, int | str) or isinstance(number, bool):
        raise _Invalid(offset, f'each of "{key}" must have the number "{name}"; got {brief(number)}')
    return number


def _take_category(contents: _Contents, value: dict[str, Any], offset: int, *_: Any) -> None:
    number, name = _number_of(value, "id", "categories", offset), value.get("name")
    if not isinstance(name, str) or not name.strip():
        raise _Invalid(offset, f'each of "categories" must have a name; got {brief(name)}')
    if number in contents.categories:
        raise _Invalid(offset, f'the numbers of "categories" must differ; got {brief(number)} twice')
    contents.categories[number] = name.strip()


def _take_image(
    contents: _Contents, value: dict[str, Any], offset: int, place: Callable[[int], str], _: Findings
) -> None:
    number, name = _number_of(value, "id", "images", offset), value.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise _Invalid(offset, f'each of "images" must have a file_name; got {brief(name)}')
    if number in contents.images:
        raise _Invalid(offset, f'the numbers of "images" must differ; got {brief(number)} twice')
    sides = [value.get(side) for side in ("width", "height")]
    width, height = (side if type(side) is int and 0 < side < _LARGEST_SIDE else None for side in sides)
    contents.images[number] = _Image(name=name, width=width, height=height, place=place(offset))


def _take_object(
    contents: _Contents, value: dict[str, Any], offset: int, place: Callable[[int], str], found: Findings
) -> None:
    number, own = _number_of(value, "image_id", "annotations", offset), value.get("id")
    # Most such files are one line.
    where = place(offset) + (f", annotation {brief(own)}" if isinstance(own, int | str) else "")
    shape = None
    try:
        shape = shape_from_coco(value.get("segmentation"))
    except DataError as error:
        found.add_("mask", f"{where}: {error}")
    box, category = value.get("bbox"), value.get("category_id")
    if box or shape is None:
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            found.add_("invalid", f"{where}: bbox must be 4 numbers, x, y, width, height; got {brief(box)}")
            return
        left, top, width, height = map(float, box)
        box = (left, top, left + width, top + height)
    thing = _Object(
        category=category if isinstance(category, int | str) else brief(category),
        place=where,
        box=box or None,
        shape=shape,
        area=float(value["area"]) if _is_number(value.get("area")) else None,
        crowd=value.get("iscrowd") in (1, True),
    )
    contents.objects.setdefault(number, []).append(thing)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**31 and math.isfinite(value)
    )
