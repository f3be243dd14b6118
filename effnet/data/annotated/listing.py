"""List the images of a folder or table that is annotated with objects or masks, whatever the format."""

import os
from collections.abc import Sequence
from itertools import islice

from effnet.data.annotated.holds import PEEK_BYTES, Holds, has_boxes, look_into
from effnet.data.annotated.index import IMAGE_FOLDERS, MASK_FOLDERS, FileIndex, list_files, stem_of, suffix_of
from effnet.data.annotated.masks.codes import MaskCode, discover_code
from effnet.data.annotated.masks.folder import read_class_table, read_mask_set
from effnet.data.annotated.masks.labels import listing_of_drawn, listing_of_masks
from effnet.data.annotated.objects import listing_of
from effnet.data.annotated.read import read_annotated
from effnet.data.annotated.record import AnnotatedSet
from effnet.data.manifests.manifest import MANIFEST_SUFFIXES
from effnet.data.sources.layout import is_ignored_folder
from effnet.data.sources.source import Listing
from effnet.errors import DataError
from effnet.system.files import open_regular
from effnet.system.text import printable

DETECTION, SEGMENTATION = "detection", "segmentation"
"""The tasks of annotated data."""

# Folders, and the entries of each, that are looked at for a sign of annotations.
_FOLDERS, _ENTRIES = 500, 300
_SIGNS = frozenset((".xml", ".json", ".txt", ".yaml", ".yml", *MANIFEST_SUFFIXES))
# Masks that must have a code before a folder counts as one of masks: a class of photographs may be called "mask".
_TRIED = 8


def list_annotated(path: str, task: str, *, class_names: Sequence[str] = ()) -> Listing | None:
    """Return the listing of annotated data for `task`, or for that of its annotations if it is "auto".

    None if there are no annotations, or those of a task that is not requested. `class_names` are those of a model.
    Raises DataError if annotations cannot be read, or if DETECTION or SEGMENTATION is requested and there are none.
    """
    if task not in ("auto", DETECTION, SEGMENTATION):
        return None
    if os.path.isdir(path):
        if task == "auto" and not _has_sign(path):
            return None
        holds = look_into(list_files(path))
        others = ("", "classes", "masks") if task == DETECTION else ("", "classes")
        kinds = [kind for kind in (holds.kind, *holds.also) if kind not in others]
        masks = "masks" in kinds and (task == SEGMENTATION or (kinds == ["masks"] and _are_masks(path, holds)))
    else:
        kinds, masks = (["table"] if _is_annotated_file(path) else []), False
    if not kinds and task != "auto":
        what = "images with masks, or with the outlines of objects" if task == SEGMENTATION else "boxes of objects"
        raise DataError(f"the task {task} needs {what}; {printable(path)} has none: the page on annotations shows them")
    if task == "auto" and kinds == ["masks"] and not masks:
        _refuse_pairs(path, holds)
        return None
    if not kinds:
        return None
    root = path if os.path.isdir(path) else os.path.dirname(path)
    if masks:
        code = _code_beside(list_files(path))
        names = () if code else class_names
        return listing_of_masks(read_mask_set(path, code=code, class_names=names), name=path, root=root)
    found = read_annotated(path, class_names=_of_objects(class_names) if task == SEGMENTATION else class_names)
    if task == SEGMENTATION:
        _refuse_sizes(found)
        if not any(shape is not None for image in found.images for shape in image.shapes):
            bad = next((each for each in found.findings if each.kind == "mask"), None)
            why = f" {bad.sentence} The first: {printable(bad.examples[0])}." if bad else ""
            raise DataError(
                f"the task {task} needs masks, or the outlines of objects; the objects of {printable(path)} have boxes "
                f"alone: `effnet fit --task detect` finds them.{why}"
            )
        return listing_of_drawn(found, name=path, root=root)
    return listing_of(found, name=path, root=root)


def _refuse_sizes(found: AnnotatedSet) -> None:
    """Raise DataError if masks of objects have another size than their image: they are those of other images."""
    for each in found.findings:
        if each.kind == "mask size":
            raise DataError(
                f"masks of objects must have the size of their image; {each.count:,} {_has(each.count)} another. The "
                f"first: {printable(each.examples[0])}. Take the images that were annotated, or annotations of these"
            )


def _has(count: int) -> str:
    return "has" if count == 1 else "have"


def _code_beside(index: FileIndex) -> MaskCode | None:
    """Return the code of masks in a table at the top of the folder, such as classes.csv; None if there is none.

    Or that of the classes.json that `effnet predict` wrote there or into the folder of masks.
    """
    for name in sorted(index.files, key=lambda name: name.count("/")):
        folder, _, file = name.rpartition("/")
        written = file == "classes.json" and (not folder or folder.rpartition("/")[2].lower() in MASK_FOLDERS)
        if written or (not folder and suffix_of(file) in MANIFEST_SUFFIXES):
            try:
                return read_class_table(index.absolute(name))
            except DataError:
                continue
    return None


def _of_objects(class_names: Sequence[str]) -> Sequence[str]:
    """Return the classes without that of the background, which no object has."""
    return class_names[1:]


def _has_sign(path: str) -> bool:
    """Return whether a folder may be annotated, from a part of its entries: a large one of classes is not listed."""
    stack, seen = [path], 0
    while stack and seen < _FOLDERS:
        folder = stack.pop(0)
        seen += 1
        try:
            with os.scandir(folder) as entries:
                for entry in islice(entries, _ENTRIES):
                    name = entry.name
                    if name.startswith("."):
                        continue
                    if entry.is_dir():
                        if name.lower() in MASK_FOLDERS:
                            return True
                        if not is_ignored_folder(name):
                            stack.append(entry.path)
                    elif suffix_of(name) in _SIGNS or stem_of(name).lower().endswith(("mask", "_seg", "_gt", "_label")):
                        return True
        except OSError:
            continue
    return False


def _are_masks(path: str, holds: Holds) -> bool:
    """Return whether the files that are named like masks are some."""
    try:
        _first_code(path, holds)
    except DataError:
        return False
    return True


def _refuse_pairs(path: str, holds: Holds) -> None:
    """Raise DataError if images/1.png has a masks/1.png that is no mask: the two folders are no classes."""
    if any(folder.lower() in IMAGE_FOLDERS for image in holds.masks for folder in image.split("/")[:-1]):
        try:
            _first_code(path, holds)
        except DataError as error:
            raise DataError(f"{error}. If {printable(path)} holds folders of classes, say --task classify") from error


def _first_code(path: str, holds: Holds) -> MaskCode:
    """Return the code of the first masks; raise DataError if they are none."""
    index = list_files(path)
    return discover_code([index.absolute(mask) for mask in islice(holds.masks.values(), _TRIED)])


def _is_annotated_file(path: str) -> bool:
    suffix = suffix_of(path)
    if suffix in (".json", ".yaml", ".yml"):
        return True
    if suffix not in MANIFEST_SUFFIXES:
        return False
    try:
        with open_regular(path) as file:
            return has_boxes(path, file.read(PEEK_BYTES))
    except OSError:
        return False
