"""Determine what the folders below a data folder are: classes, splits that hold classes, or neither."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from effnet.data.clips.record import VIDEO_SUFFIXES
from effnet.data.images.decode import IMAGE_SUFFIXES
from effnet.data.images.dicom import may_be_dicom
from effnet.data.sources.source import SPLIT_NAMES
from effnet.errors import DataError
from effnet.system.text import printable

EXPECTED = (
    "expected one subfolder per class (DATA/cat/1.jpg, DATA/dog/2.jpg), "
    "or train, val and test folders that hold such subfolders"
)

_IGNORED_FOLDERS = frozenset({"__macosx", "@eadir", "__pycache__"})
# Files that every effnet bundle has, and no class folder.
_BUNDLE = ("config.json", "model.safetensors")
# More folders than this with the same subfolders are classes with the same variants (male, female).
_MOST_SPLITS = 10
_MOST_WRAPPERS = 3
_MOST_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The folders of class folders: by split ("train", "val", "test"), or under "" if the data are not split.

    Each value is a folder whose subfolders are classes. `notes` name folders that were descended into or left out.
    """

    parts: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Child:
    """A folder of the top level, with the folder below it that holds its class folders, and their names."""

    name: str
    path: str
    inner: str
    classes: frozenset[str]
    loose: bool
    has_images: bool
    split: str

    @property
    def exact(self) -> bool:
        """Whether the name is exactly that of a split."""
        return self.name.lower() in SPLIT_NAMES


def find_layout(root: str) -> Layout:
    """Return the layout of a data folder, determined from its contents and not from names alone.

    Raises:
        DataError: the folders can be read both as splits and as classes, or two folders mean the same split.
    """
    notes: list[str] = []
    inner = look_through(root)
    if inner != root:
        notes.append(
            f"{printable(root)} holds only the folder {printable(os.path.relpath(inner, root))}, which is used."
        )
    children = [_look_at(entry) for entry in subfolders(inner)]
    full = [child for child in children if child.has_images]
    splits = _splits(root, full)
    if splits is None:
        _refuse_shared(root, full)
        return Layout(parts={"": inner}, notes=tuple(notes))
    parts = {split: child.inner for split, child in splits.items() if child.classes}
    for split, child in splits.items():
        if not child.classes:
            notes.append(f"The folder {printable(child.path)} has no class folders, so it is not used as {split}.")
    others = [child.name for child in children if child not in splits.values()]
    if others:
        notes.append(
            f"Besides the splits {_shown(c.name for c in splits.values())}, these are not used: {_shown(others)}."
        )
    return Layout(parts=parts, notes=tuple(notes))


def subfolders(path: str) -> list[os.DirEntry[str]]:
    """Return the subfolders sorted by name, without hidden ones, those of other programs, and effnet bundles."""
    with os.scandir(path) as entries:
        found = [entry for entry in entries if not is_ignored_folder(entry.name) and _is_folder(entry)]
    return sorted((entry for entry in found if not _is_bundle(entry.path)), key=lambda entry: entry.name)


def is_ignored_folder(name: str) -> bool:
    """Return whether a folder of this name is hidden or belongs to a program, such as __MACOSX."""
    return name.startswith(".") or name.lower() in _IGNORED_FOLDERS


def look_through(path: str) -> str:
    """Return the folder with the actual contents of `path`: descend while a folder holds one folder and no image."""
    for _ in range(_MOST_WRAPPERS):
        if _has_loose_images(path):
            break
        full = [entry.path for entry in subfolders(path) if _has_images(entry.path)]
        if len(full) != 1 or _has_loose_images(full[0]):
            break
        path = full[0]
    return path


def has_image(entry: os.DirEntry[str]) -> bool:
    """Return whether a file has the suffix of an image or a video or, often without a suffix, is DICOM."""
    if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        return True
    try:
        return entry.is_file() and may_be_dicom(entry.path)
    except OSError:
        return False


def split_of(name: str) -> str:
    """Return the split that a folder's name means, such as training_set or seg_train, or an empty string."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    found = {SPLIT_NAMES[word.lower()] for word in words if word.lower() in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link that leads to itself
        return False


def _is_bundle(path: str) -> bool:
    return all(os.path.isfile(os.path.join(path, name)) for name in _BUNDLE)


def _look_at(entry: os.DirEntry[str]) -> _Child:
    inner, split = look_through(entry.path), split_of(entry.name)
    loose = _has_loose_images(inner)
    # Do not scan a class folder here: it may hold a million files, and the listing reads it anyway.
    below = [] if loose and not split else subfolders(inner)
    classes = frozenset(folder.name for folder in below if _has_images(folder.path))
    return _Child(
        name=entry.name,
        path=entry.path,
        inner=inner,
        classes=classes,
        loose=loose,
        has_images=loose or bool(classes),
        split=split,
    )


def _has_loose_images(path: str) -> bool:
    with os.scandir(path) as entries:
        return any(_is_image(entry) for entry in entries)


def _has_images(path: str) -> bool:
    """Return whether there is an image anywhere below a folder; stop at the first."""
    visited, stack = set(), [path]
    while stack:
        folder = stack.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:  # circular links
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_image(entry):
                        return True
                    if not is_ignored_folder(entry.name) and _is_folder(entry):
                        stack.append(entry.path)
        except OSError:  # the listing reports it
            continue
    return False


def _is_image(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and has_image(entry)


def _splits(root: str, full: Sequence[_Child]) -> dict[str, _Child] | None:
    """Return the folder of each split, or None if the folders are classes; `full` are those that hold images."""
    named = _named(root, full)
    with_classes = {split: child for split, child in named.items() if child.classes}
    if not with_classes:
        return None
    others = [child for child in full if child not in named.values()]
    shared = len(with_classes) > 1 and _share(child.classes for child in with_classes.values())
    if shared or (not others and "train" in with_classes):
        return named
    if not others and len(named) > 1:
        return None
    train = with_classes.get("train")
    if train is None or train.loose or len(train.classes) < 2:
        return None
    raise DataError(
        f"{printable(root)} can be read in two ways: {printable(train.name)} is a split with the classes "
        f"{_shown(train.classes)}, or it is a class beside {_shown(child.name for child in others)}. For the first "
        f"give {printable(train.inner)}, or move the other folders away; for the second list the images in a CSV file "
        "with the columns path,label"
    )


def _named(root: str, full: Sequence[_Child]) -> dict[str, _Child]:
    """Return the folders whose names mean a split, an exact name before a loose one."""
    found: dict[str, _Child] = {}
    for child in sorted(full, key=lambda child: not child.exact):
        if not child.split:
            continue
        if (first := found.get(child.split)) is None:
            found[child.split] = child
        elif first.exact == child.exact:
            raise DataError(
                f"{printable(root)} must have one folder per split, but {printable(first.name)} and "
                f"{printable(child.name)} both mean {child.split}; merge or rename one"
            )
    return found


def _share(names: Iterable[frozenset[str]]) -> bool:
    """Return whether folders have mostly the same subfolders."""
    sets = list(names)
    common = frozenset.intersection(*sets)
    return bool(common) and 2 * len(common) >= min(map(len, sets))


def _refuse_shared(root: str, full: Sequence[_Child]) -> None:
    """Raise DataError if the assumed class folders have the same subfolders, as splits with other names do."""
    if not 2 <= len(full) <= _MOST_SPLITS or any(child.loose for child in full):
        return
    common = frozenset.intersection(*(child.classes for child in full))
    if len(common) < 2 or not _share(child.classes for child in full):
        return
    names = _shown(child.name for child in full)
    raise DataError(
        f"{printable(root)} can be read in two ways: its folders {names} are splits, each with the classes "
        f"{_shown(common)}, or they are classes that have the same subfolders. For the first rename them to train, val "
        "and test; for the second list the images in a CSV file with the columns path,label"
    )


def _shown(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _MOST_SHOWN} more" if len(listed) > _MOST_SHOWN else ""
    return ", ".join(printable(name) for name in listed[:_MOST_SHOWN]) + more
