"""Determine what a folder holds: annotated boxes of some format, masks, class folders, or nothing of these."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from effnet.data.annotated.formats.table import box_columns
from effnet.data.annotated.formats.yolo import CLASS_FILES, label_paths
from effnet.data.annotated.index import MASK_FOLDERS, FileIndex, split_in, stem_of, suffix_of
from effnet.data.images.decode import IMAGE_SUFFIXES
from effnet.data.manifests.manifest import MANIFEST_SUFFIXES
from effnet.data.manifests.paths import delimiter_of
from effnet.data.sources.layout import split_of
from effnet.system.files import open_regular

Kind = Literal["voc", "coco", "yolo", "table", "masks", "classes", ""]

ANNOTATIONS: tuple[Kind, ...] = ("voc", "coco", "yolo", "table", "masks")
"""The kinds of annotations, in the order in which they count."""

PEEK_BYTES = 65_536
"""The bytes of a file that are looked at, from its beginning."""

_PEEKS = 20
_MASK_SUFFIX = re.compile(r"(.+?)[-_. ](?:mask|masks|label|labels|seg|gt|segmentation|labelids|l)$", re.IGNORECASE)
_COCO = re.compile(rb'"(?:images|annotations|categories)"\s*:\s*\[')
_YOLO_LINE = re.compile(rb"\s*[0-9]+(?:\.0*)?(?:[ \t]+-?[0-9.eE+-]+){4,}\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """What a folder holds, in words (`why`), and the files by split ("train", "val", "test"; "" if there are none).

    `parts` are relative paths: the annotation files of "voc", "coco" and "table", the images of "yolo", "masks" and
    "classes"; `masks` gives the mask of each image, `names_file` the file with YOLO's class names. `also` are kinds
    that the folder seems to hold besides.
    """

    kind: Kind
    why: str
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    masks: Mapping[str, str] = field(default_factory=dict)
    names_file: str = ""
    also: tuple[Kind, ...] = ()


def what_it_holds(files: Sequence[str], peek: Callable[[str], bytes], *, kinds: Sequence[Kind] = ANNOTATIONS) -> Holds:
    """Return what a folder holds, from the relative paths of its files, sorted, and the first bytes of some of them.

    Annotations count before masks, and masks before class folders: a set of boxes may have masks besides. Only `kinds`
    are looked for; class folders if nothing else is found.
    """
    images = [path for path in files if suffix_of(path) in IMAGE_SUFFIXES]
    ways = {"voc": _voc, "coco": _coco, "yolo": _yolo, "table": _table, "masks": _masks}
    found = [way(files, images, peek) for kind, way in ways.items() if kind in kinds]
    held = [each for each in found if each is not None] or [each for each in (_classes(images),) if each is not None]
    if not held:
        return Holds(kind="", why="images without annotations" if images else "no images")
    first = held[0]
    return Holds(
        kind=first.kind,
        why=first.why,
        parts=first.parts,
        masks=first.masks,
        names_file=first.names_file,
        also=tuple(each.kind for each in held[1:]),
    )


def look_into(index: FileIndex, *, kinds: Sequence[Kind] = ANNOTATIONS) -> Holds:
    """Return what the folder of an index holds, as `what_it_holds` does."""

    def peek(path: str) -> bytes:
        try:
            with open_regular(index.absolute(path)) as file:
                return file.read(PEEK_BYTES)
        except OSError:
            return b""

    return what_it_holds(index.files, peek, kinds=kinds)


def _by_split(paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return paths by the split that they name; all under "" if no or only some of them name one."""
    named: dict[str, list[str]] = {}
    for path in paths:
        named.setdefault(split_in(path), []).append(path)
    if "" in named or len(named) < 2:
        return {"": tuple(paths)}
    return {split: tuple(named[split]) for split in ("train", "val", "test") if split in named}


def _voc(files: Sequence[str], images: Sequence[str], peek: Callable[[str], bytes]) -> Holds | None:
    xml = [path for path in files if suffix_of(path) == ".xml"]
    looked = xml[:: max(1, len(xml) // _PEEKS)]
    if not images or not any(b"annotation" in peek(path).replace(b"\0", b"") for path in looked):
        return None
    return Holds(
        kind="voc", why=f"{len(xml):,} Pascal VOC files (*.xml) beside {len(images):,} images", parts=_by_split(xml)
    )


def _coco(files: Sequence[str], images: Sequence[str], peek: Callable[[str], bytes]) -> Holds | None:
    found = [path for path in files if suffix_of(path) == ".json" and _COCO.search(peek(path))]
    if not images or not found:
        return None
    # COCO itself comes with files of key points and captions for the same images.
    wanted = [path for path in found if stem_of(path).lower().startswith("instances")] or found
    return Holds(kind="coco", why=f"{len(wanted):,} COCO files (*.json)", parts=_by_split(wanted))


def _yolo(files: Sequence[str], images: Sequence[str], peek: Callable[[str], bytes]) -> Holds | None:
    listed = frozenset(files)
    labelled = [
        (image, path) for image in images if (path := next((p for p in label_paths(image) if p in listed), None))
    ]
    looked = labelled[:: max(1, len(labelled) // _PEEKS)]
    texts = [peek(path).strip() for _, path in looked]
    if not any(texts) or not all(_YOLO_LINE.match(text.split(b"\n")[0]) for text in texts if text):
        return None
    # Images without a file count as without objects, but only beside those that have one.
    folders = {image.rpartition("/")[0] for image, _ in labelled}
    used = [image for image in images if image.rpartition("/")[0] in folders]
    return Holds(
        kind="yolo",
        why=f"{len(labelled):,} YOLO files (*.txt) of {len(used):,} images",
        parts=_by_split(used),
        names_file=_names_file(files, peek),
    )


def _names_file(files: Sequence[str], peek: Callable[[str], bytes]) -> str:
    yaml = [
        path for path in files if suffix_of(path) in (".yaml", ".yml") and re.search(rb"^names\s*:", peek(path), re.M)
    ]
    text = [path for path in files if path.rpartition("/")[2].lower() in CLASS_FILES]
    return min(yaml or text or [""], key=lambda path: (path.count("/"), path))


def _table(files: Sequence[str], images: Sequence[str], peek: Callable[[str], bytes]) -> Holds | None:
    found = [path for path in files if suffix_of(path) in MANIFEST_SUFFIXES and has_boxes(path, peek(path))]
    if not images or not found:
        return None
    return Holds(kind="table", why=f"{len(found):,} tables of boxes", parts=_by_split(found))


def has_boxes(path: str, start: bytes) -> bool:
    """Return whether a table, by its first bytes, has the columns of boxes."""
    line = start.decode("utf-8-sig", "replace").split("\n", 1)[0]
    try:
        if suffix_of(path) in (".csv", ".tsv"):
            titles = next(csv.reader([line], delimiter=delimiter_of(line)), [])
        else:
            titles = list(json.loads(line))
    except (ValueError, TypeError, RecursionError, csv.Error):
        return False
    return box_columns([str(title).strip().lower() for title in titles]) is not None


def _masks(_files: Sequence[str], images: Sequence[str], _peek: Callable[[str], bytes]) -> Holds | None:
    beside = _beside(images)
    pairs = beside if beside else _apart(images)
    if not pairs:
        return None
    return Holds(kind="masks", why=f"{len(pairs):,} images with masks", parts=_by_split(sorted(pairs)), masks=pairs)


def _beside(images: Sequence[str]) -> dict[str, str]:
    """Return the mask of each image in the same folder: 1_mask.png of 1.jpg."""
    by_stem = {path.rsplit(".", 1)[0].lower(): path for path in images if not _MASK_SUFFIX.match(stem_of(path))}
    pairs = {}
    for path in images:
        folder, _, _ = path.rpartition("/")
        match = _MASK_SUFFIX.match(stem_of(path))
        image = match and by_stem.get(f"{folder}/{match[1]}".lstrip("/").lower())
        if image:
            pairs[image] = path
    return pairs if 2 * len(pairs) >= len(images) - len(pairs) else {}


def _apart(images: Sequence[str]) -> dict[str, str]:
    """Return the mask of each image of the same file name in another folder, such as masks/1.png of images/1.jpg."""
    masks: dict[str, list[str]] = {}
    plain: list[str] = []
    for path in images:
        folders = [f for f in path.lower().split("/")[:-1] if f in MASK_FOLDERS]
        if folders:
            masks.setdefault(_mask_stem(path), []).append(path)
        else:
            plain.append(path)
    pairs = {}
    for path in plain:
        # Masks of images that differ in suffix alone may keep it: 1.jpg.png.
        ways = [masks.get(name.lower(), []) for name in (path.rpartition("/")[2], stem_of(path))]
        same = [[mask for mask in way if _without_kind(mask) == _without_kind(path)] for way in ways]
        near = next((way for way in (*same, *ways) if way), [])
        if len(near) == 1:
            pairs[path] = near[0]
    used = Counter(pairs.values())
    pairs = {image: mask for image, mask in pairs.items() if used[mask] == 1}
    return pairs if pairs and 2 * len(pairs) >= sum(map(len, masks.values())) else {}


def _mask_stem(path: str) -> str:
    stem = stem_of(path)
    match = _MASK_SUFFIX.match(stem)
    return (match[1] if match else stem).lower()


def _without_kind(path: str) -> tuple[str, ...]:
    """Return the folders of a path but those that say what is in them: images, masks."""
    return tuple(
        folder
        for folder in path.lower().split("/")[:-1]
        if folder not in MASK_FOLDERS and not folder.endswith("images")
    )


def _classes(images: Sequence[str]) -> Holds | None:
    folders = Counter(os.path.dirname(path) for path in images)
    classes = {folder.rpartition("/")[2] for folder in folders if folder and not split_of(folder.rpartition("/")[2])}
    if len(classes) < 2:
        return None
    return Holds(kind="classes", why=f"{len(classes):,} folders of images", parts=_by_split(images))
