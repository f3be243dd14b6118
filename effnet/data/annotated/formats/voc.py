"""Read Pascal VOC annotations: one XML file per image.

Source: Everingham et al., "The PASCAL VOC Challenge Development Kit", 2012, section 5.
"""

import re
from collections.abc import Mapping, Sequence

from effnet.data.annotated.formats.text import read_text
from effnet.data.annotated.formats.xml import Element, read_xml
from effnet.data.annotated.index import FileIndex, stem_of
from effnet.data.annotated.record import AnnotatedSet, Findings
from effnet.data.annotated.settle import RawImage, RawObject, settle
from effnet.errors import DataError
from effnet.system.text import brief, printable

_SIDES = ("xmin", "ymin", "xmax", "ymax")
# The pixels of the original data are counted from 1, and the last one belongs to the box; other tools count from 0.
_MOST_BYTES = 64 * 10**6
_ORIGINAL = re.compile(r"\bVOC ?20\d\d\b")


def read_voc(index: FileIndex, parts: Mapping[str, Sequence[str]], *, class_names: Sequence[str] = ()) -> AnnotatedSet:
    """Return the images of VOC annotations; `parts` are the relative paths of their XML files by split.

    The image of an annotation is the one of the same file name, else the one that its `filename` names. A file that
    cannot be read is reported as "unreadable". The lists in ImageSets/Main, if there are any, give the splits. Raises
    DataError if no file can be read.
    """
    found = Findings()
    seen: set[str] = set()
    raw: dict[str, list[RawImage]] = {}
    for split, paths in (_listed(index, found) or parts).items():
        images = raw.setdefault(split, [])
        for path in paths:
            try:
                image = _read(index, path, found)
            except DataError as error:
                found.add_("unreadable", str(error))
                continue
            if image is None:
                continue
            if image.path in seen:
                found.add_("annotated twice", index.absolute(path))
                continue
            seen.add(image.path)
            images.append(image)
    _report_unused(index, seen, found)
    return settle(raw, kind="voc", class_names=class_names, findings=found)


def _listed(index: FileIndex, found: Findings) -> dict[str, list[str]]:
    """Return the XML files of each split by the lists in ImageSets/Main; train has the rest of trainval, too."""
    files = frozenset(index.files)
    parts: dict[str, list[str]] = {}
    used: set[str] = set()
    for name, split in (("train", "train"), ("val", "val"), ("test", "test"), ("trainval", "train")):
        for path in index.files:
            folder, _, file = path.rpartition("ImageSets/Main/")
            listed = _names_in(index.absolute(path)) if file == f"{name}.txt" else []
            for xml in (f"{folder}Annotations/{stem}.xml" for stem in listed):
                if xml not in files:
                    found.add_("missing image", f"{index.absolute(path)}: {xml}")
                elif xml not in used:
                    used.add(xml)
                    parts.setdefault(split, []).append(xml)
    for path in index.files if parts else ():
        if path.endswith(".xml") and path not in used:
            found.add_("not listed", index.absolute(path))
    return parts


def _names_in(path: str) -> list[str]:
    """Return the first word of each line of a list."""
    return [line.split()[0] for line in read_text(path, limit_bytes=_MOST_BYTES).split("\n") if line.strip()]


def _report_unused(index: FileIndex, used: set[str], found: Findings) -> None:
    folders = {path.rpartition("/")[0] for path in index.images if index.absolute(path) in used}
    for path in index.images:
        if path.rpartition("/")[0] in folders and index.absolute(path) not in used:
            found.add_("not annotated", index.absolute(path))


def _read(index: FileIndex, path: str, found: Findings) -> RawImage | None:
    full = index.absolute(path)
    root = read_xml(full)
    if root.tag != "annotation":
        raise DataError(f"{printable(full)}, line {root.line}: the root must be <annotation>; got <{brief(root.tag)}>")
    named = index.find_image(root.text_of("filename"), near=path)
    image = index.find_stem(stem_of(path), near=path) or named
    if image is None:
        found.add_("missing image", f"{full}: {root.text_of('filename') or stem_of(path)}")
        return None
    if named is not None and named != image:
        found.add_("other name", f"{full}: {root.text_of('filename')}")
    source, size = root.find("source"), root.find("size")
    original = source is not None and bool(_ORIGINAL.search(source.text_of("database")))
    objects = [_object(one, full, original, found) for one in root.all("object")]
    return RawImage(
        path=index.absolute(image),
        objects=[one for one in objects if one is not None],
        width=_side(size, "width"),
        height=_side(size, "height"),
    )


def _object(element: Element, path: str, original: bool, found: Findings) -> RawObject | None:
    place = f"{path}, line {element.line}"
    name, box = element.text_of("name"), element.find("bndbox")
    try:
        if not name:
            raise ValueError("it has no name")
        if box is None:
            raise ValueError("it has no bndbox")
        left, top, right, bottom = (_number(box.text_of(side), side) for side in _SIDES)
    except ValueError as error:
        found.add_("invalid", f"{place}: {error}")
        return None
    return RawObject(
        place=place,
        name=name,
        box=(left - original, top - original, right, bottom),
        difficult=_is_set(element.text_of("difficult")),
    )


def _number(text: str, side: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{side} must be a number; got {brief(text)}") from None


def _is_set(text: str) -> bool:
    return text.strip().lower() in ("1", "true", "yes")


def _side(size: Element | None, name: str) -> int | None:
    """Return a side of the image, None if it is absent or no size, such as the 0 that some tools write."""
    text = "" if size is None else size.text_of(name)
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) and int(text) else None
