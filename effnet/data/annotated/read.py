"""Read images with annotated boxes, whatever the format of the annotations."""

import os
from collections.abc import Mapping, Sequence

from effnet.data.annotated.formats.coco import read_coco
from effnet.data.annotated.formats.table import read_table
from effnet.data.annotated.formats.voc import read_voc
from effnet.data.annotated.formats.yaml import read_flat_yaml
from effnet.data.annotated.formats.yolo import lines_of, read_yolo
from effnet.data.annotated.holds import Holds, look_into
from effnet.data.annotated.index import FileIndex, list_files, suffix_of
from effnet.data.annotated.record import AnnotatedSet
from effnet.data.manifests.manifest import MANIFEST_SUFFIXES
from effnet.errors import DataError
from effnet.system.text import printable

_EXPECTED = (
    "expected Pascal VOC XML files, a COCO JSON file, YOLO text files, or a CSV or JSONL table with the columns path, "
    "xmin, ymin, xmax, ymax and label"
)


def read_annotated(path: str, *, class_names: Sequence[str] = ()) -> AnnotatedSet:
    """Return the annotated images of a folder, a COCO JSON file, a YOLO data.yaml, or a table of boxes.

    `class_names` are the classes and their order, if they are known, as those of a model are; objects of others are
    reported and not used.

    Raises:
        DataError: there are no such annotations, or none of them can be used.
    """
    if os.path.isfile(path):
        suffix = suffix_of(path)
        if suffix in MANIFEST_SUFFIXES:
            return read_table(path, class_names=class_names)
        index, name = _index_around(path)
        if suffix == ".json":
            return read_coco(index, {"": (name,)}, class_names=class_names)
        if suffix in (".yaml", ".yml"):
            return _read_yolo(index, look_into(index), name, class_names)
        raise DataError(f"{printable(path)} must be annotations of boxes; {_EXPECTED}")
    index = list_files(path)
    holds = look_into(index)
    if holds.kind == "voc":
        return read_voc(index, holds.parts, class_names=class_names)
    if holds.kind == "coco":
        return read_coco(index, holds.parts, class_names=class_names)
    if holds.kind == "yolo":
        return _read_yolo(index, holds, holds.names_file, class_names)
    tables = [table for part in holds.parts.values() for table in part] if holds.kind == "table" else []
    if len(tables) == 1:
        return read_table(index.absolute(tables[0]), class_names=class_names)
    if tables:
        raise DataError(
            f"{printable(path)} must hold one table of boxes; it holds {len(tables)}: merge them, with a column split"
        )
    raise DataError(f"{printable(path)} must hold annotations of boxes, but it holds {holds.why}; {_EXPECTED}")


def _index_around(path: str) -> tuple[FileIndex, str]:
    """Return the files around an annotation file, and its relative path: of its folder, or the one above if needed."""
    folder = os.path.dirname(path) or os.curdir
    index = list_files(folder)
    if any(True for _ in index.images):
        return index, os.path.basename(path)
    folder, name = os.path.split(os.path.abspath(folder))
    return list_files(folder), f"{name}/{os.path.basename(path)}"


def _read_yolo(index: FileIndex, holds: Holds, names_file: str, class_names: Sequence[str]) -> AnnotatedSet:
    if holds.kind != "yolo":
        raise DataError(f"{printable(index.root)} must hold YOLO text files, but it holds {holds.why}")
    parts: Mapping[str, Sequence[str]] = holds.parts
    if suffix_of(names_file) in (".yaml", ".yml"):
        parts = _parts_of_yaml(index, names_file) or parts
    return read_yolo(index, parts, names_file=names_file, class_names=class_names)


def _parts_of_yaml(index: FileIndex, names_file: str) -> dict[str, list[str]]:
    """Return the images of the splits that a data.yaml gives, as far as they are below the root."""
    values = read_flat_yaml(index.absolute(names_file))
    base, home = names_file.rpartition("/")[0], values.get("path", "")
    parts: dict[str, list[str]] = {}
    taken: set[str] = set()
    for split in ("train", "val", "test"):
        entries = values.get(split) or (values.get("valid") if split == "val" else None) or []
        for entry in [entries] if isinstance(entries, str) else list(entries):
            images = _images_of(index, entry, [base, f"{base}/{home}" if isinstance(home, str) else base])
            fresh = [image for image in images if image not in taken]
            taken.update(fresh)
            if fresh:
                parts.setdefault(split, []).extend(fresh)
    return parts


def _images_of(index: FileIndex, entry: str, bases: Sequence[str]) -> list[str]:
    """Return the images in a folder, or in a text file of paths, that a data.yaml names, relative to one of `bases`."""
    for base in bases:
        # Several tools write paths that leave the folder, "../train/images", for what is in it.
        names = [part for part in f"{base}/{entry}".replace("\\", "/").split("/") if part not in ("", ".", "..")]
        path = "/".join(names)
        if path in index.files and path.endswith(".txt"):
            found = [index.find_image(line, near=path) for line in lines_of(index.absolute(path)) if line.strip()]
            return [image for image in found if image is not None]
        images = [image for image in index.images if image.startswith(f"{path}/" if path else "")]
        if images:
            return images
    return []
