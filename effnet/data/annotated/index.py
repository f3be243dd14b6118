"""The files below a folder, listed once, and the image that an annotation's path means."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from effnet.data.images.decode import IMAGE_SUFFIXES
from effnet.data.sources.layout import is_ignored_folder, split_of
from effnet.errors import DataError
from effnet.system.text import printable

# Far more than any set of images with annotations has; a link to the root of a disk must not be followed for hours.
_MOST_FILES = 20_000_000

MASK_FOLDERS = frozenset(
    ("mask", "masks", "segmentationclass", "segmentation", "gt", "groundtruth", "annotations", "labels", "annots")
)
"""The names, in lower case, of folders that hold masks and not images."""

IMAGE_FOLDERS = frozenset(("images", "imgs", "jpegimages", "obj_train_data"))
"""The names, in lower case, of folders that hold the images beside annotations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileIndex:
    """The files below `root`, as paths relative to it with slashes, sorted."""

    root: str
    files: tuple[str, ...]
    _by_name: dict[str, list[str]] = field(default_factory=dict, repr=False, compare=False)
    _by_stem: dict[str, list[str]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for path in self.images:
            name = path.rpartition("/")[2].lower()
            self._by_name.setdefault(name, []).append(path)
            self._by_stem.setdefault(stem_of(name), []).append(path)

    @property
    def images(self) -> Iterator[str]:
        """The relative paths of the images."""
        return (path for path in self.files if suffix_of(path) in IMAGE_SUFFIXES)

    def absolute(self, path: str) -> str:
        """Return the path of a file of the index."""
        return os.path.join(self.root, *path.split("/"))

    def find_image(self, name: str, *, near: str) -> str | None:
        """Return the relative path of the image that an annotation in the file `near` calls `name`, None if unclear.

        Upper and lower case, and folders that do not exist here, do not matter: of the images of that file name, the
        one that shares most folders with the written path is meant, then the one nearest to the annotation. One of
        another split is never meant, and nothing outside the index is found.
        """
        parts = [part for part in name.strip().replace("\\", "/").lower().split("/") if part not in ("", ".")]
        return _nearest(self._by_name.get(parts[-1], []), parts[:-1], near) if parts else None

    def find_stem(self, stem: str, *, near: str) -> str | None:
        """Return the relative path of the image of this name without suffix, nearest to `near`; None if unclear."""
        return _nearest(self._by_stem.get(stem.lower(), []), [], near)


def list_files(root: str) -> FileIndex:
    """List the files below a folder, also through links, without hidden ones; raise DataError if it is no folder."""
    found: list[str] = []
    visited: set[tuple[int, int]] = set()
    stack = [("", root)]
    while stack:
        prefix, folder = stack.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:  # circular links
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if not entry.is_dir():
                        found.append(prefix + entry.name)
                    elif not is_ignored_folder(entry.name):
                        stack.append((f"{prefix}{entry.name}/", entry.path))
        except OSError as error:
            if not prefix:
                raise DataError(f"{printable(root)} must be a folder that can be read: {error.strerror}") from error
        if len(found) > _MOST_FILES:
            raise DataError(f"{printable(root)} must hold at most {_MOST_FILES:,} files; it holds more")
    return FileIndex(root=root, files=tuple(sorted(found)))


def split_in(path: str) -> str:
    """Return the split that a relative path names: in its innermost folder that names one, else in its file name."""
    *folders, name = path.split("/")
    for folder in reversed(folders):
        if split := split_of(folder):
            return split
    return split_of(re.sub(r"\d+", " ", stem_of(name))) if suffix_of(name) not in IMAGE_SUFFIXES else ""


def suffix_of(path: str) -> str:
    """Return the suffix of a path in lower case, with its point."""
    return os.path.splitext(path)[1].lower()


def stem_of(path: str) -> str:
    """Return the file name of a path without its suffix."""
    return os.path.splitext(path.rpartition("/")[2])[0]


def _nearest(candidates: list[str], folders: list[str], near: str) -> str | None:
    split = split_in("/".join((*folders, "1.jpg"))) or split_in(near)
    candidates = [path for path in candidates if not split or split_in(path) in ("", split)]
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    place = near.lower().split("/")[:-1]

    def closeness(path: str) -> tuple[int, ...]:
        own = path.lower().split("/")[:-1]
        named = any(folder.endswith("images") for folder in own) - any(folder in MASK_FOLDERS for folder in own)
        same_split = bool(split) and split_in(path) == split
        near_by = _common(own, place), len({*own} & {*place}), own == place
        return _common(reversed(own), reversed(folders)), same_split, named, *near_by

    ranked = sorted(candidates, key=closeness)
    return ranked[-1] if closeness(ranked[-1]) > closeness(ranked[-2]) else None


def _common(first: Iterable[str], second: Iterable[str]) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
