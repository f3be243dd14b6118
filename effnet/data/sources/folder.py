"""List the images below folders: one subfolder per class, with or without train, val and test above them."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from effnet.data.clips.frames import with_clips
from effnet.data.clips.record import is_video
from effnet.data.images.decode import IMAGE_SUFFIXES
from effnet.data.labels import class_name
from effnet.data.sources.layout import EXPECTED, find_layout, has_image, is_ignored_folder, subfolders
from effnet.data.sources.source import Listing, Part, Skipped, make_part
from effnet.errors import DataError
from effnet.system.text import printable

_IGNORED_FILES = frozenset({"thumbs.db", "desktop.ini"})
_FOREIGN_IMAGES = frozenset({".jxl", ".svg", ".psd", ".eps", ".pdf", ".tga", ".dng", ".cr2", ".nef", ".arw"})
_FOREIGN_REASON = "effnet does not read this format; convert it to JPEG or PNG"

Folder = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Log:
    """Files and folders other than images, collected during the walk."""

    skipped: list[Skipped]
    ignored: Counter[str]
    empty_classes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImages:
    """The images below a folder, sorted; image files in unsupported formats; notes on other files."""

    paths: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


def list_images(root: str, *, videos: bool = False) -> FoundImages:
    """List the images, and with `videos` these too, anywhere below a folder, as for a data set; open no file."""
    log = _Log(skipped=[], ignored=Counter(), empty_classes=[])
    paths = tuple(sorted(str(Path(path)) for path in _walk(root, set(), log)))  # without a leading ./
    if not videos:
        log.ignored.update(_suffix(path) for path in paths if is_video(path))
        paths = tuple(path for path in paths if not is_video(path))
    return FoundImages(paths=paths, skipped=tuple(log.skipped), notes=tuple(_log_notes(log)))


def list_folder(root: str) -> Listing:
    """List the labelled images below a folder without opening any file; `find_layout` determines the layout.

    Raises:
        DataError: there are no class folders, two folders mean the same split, or the layout can be read in two ways.
    """
    log = _Log(skipped=[], ignored=Counter(), empty_classes=[])
    layout = find_layout(root)
    parts: dict[str, Part] = {}
    for split, path in layout.parts.items():
        above = [root, path] if path != root else [root]
        parts[split] = _list_classes(path, subfolders(path), above=above, log=log)
    if not any(part.sources for part in parts.values()):
        raise DataError(_nothing_found(root, subfolders(root), log))
    name = os.path.basename(os.path.abspath(root)) or "data"
    notes = (*layout.notes, *_log_notes(log))
    listing = Listing(name=name, parts=parts, skipped=tuple(log.skipped), notes=notes, root=root)
    return with_clips(listing)


def _log_notes(log: _Log) -> list[str]:
    notes = []
    if log.empty_classes:
        shown = ", ".join(printable(path) for path in log.empty_classes[:10])
        notes.append(f"{len(log.empty_classes)} class folders hold no usable image: {shown}.")
    if log.ignored:
        kinds = ", ".join(f"{count} {printable(kind)}" for kind, count in log.ignored.most_common(5))
        notes.append(f"{log.ignored.total()} files were ignored: {kinds}.")
    return notes


def _nothing_found(root: str, children: list[os.DirEntry[str]], log: _Log) -> str:
    place = printable(root)
    if log.skipped:
        first = f"{printable(log.skipped[0].path)}: {log.skipped[0].reason}"
        return f"{place} has no usable image; {len(log.skipped)} were skipped, the first is {first}"
    loose = _num_loose_images(root)
    if loose:
        return (
            f"{place} holds {loose} images but no class folders with images; {EXPECTED}. "
            "Or list the images in a CSV file with the columns path,label"
        )
    if children:
        return f"the {len(children)} folders in {place} hold no images; {EXPECTED}"
    return f"{place} is empty; {EXPECTED}"


def _num_loose_images(path: str) -> int:
    with os.scandir(path) as entries:
        return sum(has_image(entry) for entry in entries)


def _list_classes(root: str, classes: list[os.DirEntry[str]], *, above: list[str], log: _Log) -> Part:
    # Otherwise a link from inside a class to a folder above it would list the other classes under its label.
    visited_above = {_identity(path) for path in above}
    pairs: list[tuple[str, str]] = []
    for folder in classes:
        label, before = class_name(folder.name), len(pairs)
        pairs.extend((path, label) for path in _walk(folder.path, set(visited_above), log))
        if len(pairs) == before:
            log.empty_classes.append(folder.path)
    loose = _num_loose_images(root)
    if loose:
        log.ignored["images outside of a class folder"] += loose
    return make_part(pairs)


def _walk(path: str, visited: set[Folder], log: _Log) -> Iterator[str]:
    """Yield the images below a class folder; with an explicit stack, as folders can be nested deeply."""
    stack = [path]
    while stack:
        folder = stack.pop()
        try:
            identity = _identity(folder)
            entries = os.scandir(folder)
        except OSError as error:
            log.skipped.append(Skipped(path=folder, reason=_os_reason(error)))
            continue
        if identity in visited:
            entries.close()
            log.skipped.append(
                Skipped(path=folder, reason="this symbolic link leads to a folder that is already listed")
            )
            continue
        visited.add(identity)
        below = []
        with entries:
            for entry in entries:
                kind = _kind(entry, log)
                if kind == "folder":
                    below.append(entry.path)
                elif kind == "image":
                    yield entry.path
        # Sorted, so that of two links to one folder always the same is listed.
        stack.extend(sorted(below, reverse=True))


def _kind(entry: os.DirEntry[str], log: _Log) -> str:
    # is_dir and is_file use the folder's own record; only symbolic links need a stat.
    try:
        if entry.is_dir():
            return "" if is_ignored_folder(entry.name) else "folder"
        if entry.name.startswith(".") or entry.name.lower() in _IGNORED_FILES:
            return ""
        suffix = _suffix(entry.name)
        if suffix in _FOREIGN_IMAGES:
            log.skipped.append(Skipped(path=entry.path, reason=_FOREIGN_REASON))
        elif suffix not in IMAGE_SUFFIXES and not has_image(entry):
            log.ignored[suffix or "without a suffix"] += 1
        elif entry.is_file():
            return "image"
        elif entry.is_symlink():
            log.skipped.append(Skipped(path=entry.path, reason="this symbolic link is broken"))
        else:
            log.skipped.append(Skipped(path=entry.path, reason="it is not a regular file"))
    except OSError as error:
        log.skipped.append(Skipped(path=entry.path, reason=_os_reason(error)))
    return ""


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _os_reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _identity(path: str) -> Folder:
    status = os.stat(path)
    return status.st_dev, status.st_ino
