"""Lists a folder of pictures: one subfolder a class, with or without train, val and test above them."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from effnet.data.decode import IMAGE_SUFFIXES
from effnet.data.listing import SPLIT_NAMES, Listing, Part, Skipped, class_name, make_part
from effnet.errors import DataError
from effnet.system.text import printable

LAYOUT = (
    "expected one subfolder a class (DATA/cat/1.jpg, DATA/dog/2.jpg), "
    "or train, val and test folders that hold such subfolders"
)

_IGNORED_FOLDERS = frozenset({"__macosx", "@eadir"})
_IGNORED_FILES = frozenset({"thumbs.db", "desktop.ini"})
_FOREIGN_PICTURES = frozenset(
    {".heic", ".heif", ".jxl", ".svg", ".psd", ".eps", ".pdf", ".tga", ".dng", ".cr2", ".nef", ".arw"}
)
_FOREIGN_REASON = "effnet does not read this format; convert it to JPEG or PNG"

Folder = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Log:
    """What the walk met besides pictures; filled on the way."""

    skipped: list[Skipped]
    ignored: Counter[str]
    empty_classes: list[str]


def list_folder(root: str) -> Listing:
    """Lists the pictures below a folder without opening any file.

    Raises:
        DataError: there are no class folders, or two folders mean the same split.
    """
    log = _Log(skipped=[], ignored=Counter(), empty_classes=[])
    notes: list[str] = []
    children = _subfolders(root)
    splits = _split_folders(root, children)
    parts: dict[str, Part] = {}
    if splits is None:
        parts[""] = _list_classes(root, children, above=[root], log=log)
    for split, path in (splits or {}).items():
        classes = _subfolders(path)
        if classes:
            parts[split] = _list_classes(path, classes, above=[root, path], log=log)
        else:
            notes.append(f"The folder {printable(path)} has no class folders, so it is not used.")
    if not any(part.sources for part in parts.values()):
        raise DataError(_nothing_found(root, children, log))
    name = os.path.basename(os.path.abspath(root)) or "data"
    return Listing(name=name, parts=parts, skipped=tuple(log.skipped), notes=(*notes, *_log_notes(log)))


def _log_notes(log: _Log) -> list[str]:
    notes = []
    if log.empty_classes:
        shown = ", ".join(printable(path) for path in log.empty_classes[:10])
        notes.append(f"{len(log.empty_classes)} class folders hold no usable picture: {shown}.")
    if log.ignored:
        kinds = ", ".join(f"{count} {printable(kind)}" for kind, count in log.ignored.most_common(5))
        notes.append(f"{log.ignored.total()} files were ignored: {kinds}.")
    return notes


def _nothing_found(root: str, children: list[os.DirEntry[str]], log: _Log) -> str:
    place = printable(root)
    if log.skipped:
        first = f"{printable(log.skipped[0].path)}: {log.skipped[0].reason}"
        return f"{place} has no usable picture; {len(log.skipped)} were skipped, the first is {first}"
    loose = _num_loose_pictures(root)
    if loose:
        return (
            f"{place} holds {loose} pictures but no class folders with pictures; {LAYOUT}. "
            "Or list the pictures in a CSV file with the columns path,label"
        )
    if children:
        return f"the {len(children)} folders in {place} hold no pictures; {LAYOUT}"
    return f"{place} is empty; {LAYOUT}"


def _num_loose_pictures(path: str) -> int:
    with os.scandir(path) as entries:
        return sum(_suffix(entry.name) in IMAGE_SUFFIXES for entry in entries)


def _subfolders(path: str) -> list[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        found = [entry for entry in entries if not _is_ignored_folder(entry.name) and _is_folder(entry)]
    return sorted(found, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link that leads to itself
        return False


def _is_ignored_folder(name: str) -> bool:
    return name.startswith(".") or name.lower() in _IGNORED_FOLDERS


def _split_folders(root: str, children: list[os.DirEntry[str]]) -> dict[str, str] | None:
    """Returns the path of each given split, or None where the folders in root are classes."""
    if not all(child.name.lower() in SPLIT_NAMES for child in children):
        return None
    splits: dict[str, str] = {}
    for child in children:
        split = SPLIT_NAMES[child.name.lower()]
        if split in splits:
            raise DataError(
                f"{printable(root)} must have one folder a split, but {os.path.basename(splits[split])} "
                f"and {child.name} both mean {split}; merge or rename one"
            )
        splits[split] = child.path
    return splits if "train" in splits and _subfolders(splits["train"]) else None


def _list_classes(root: str, classes: list[os.DirEntry[str]], *, above: list[str], log: _Log) -> Part:
    # A link from inside a class to a folder above it would otherwise list the other classes under its label.
    visited_above = {_identity(path) for path in above}
    pairs: list[tuple[str, str]] = []
    for folder in classes:
        label, before = class_name(folder.name), len(pairs)
        pairs.extend((path, label) for path in _walk(folder.path, set(visited_above), log))
        if len(pairs) == before:
            log.empty_classes.append(folder.path)
    loose = _num_loose_pictures(root)
    if loose:
        log.ignored["pictures outside of a class folder"] += loose
    return make_part(pairs)


def _walk(path: str, visited: set[Folder], log: _Log) -> Iterator[str]:
    """Yields the pictures below a class folder; an explicit stack, as folders can be nested deeply."""
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
            log.skipped.append(Skipped(path=folder, reason="this symbolic link leads to a folder that is listed"))
            continue
        visited.add(identity)
        below = []
        with entries:
            for entry in entries:
                kind = _kind(entry, log)
                if kind == "folder":
                    below.append(entry.path)
                elif kind == "picture":
                    yield entry.path
        # Sorted, as the first of two links to one folder is the one that is listed.
        stack.extend(sorted(below, reverse=True))


def _kind(entry: os.DirEntry[str], log: _Log) -> str:
    # is_dir and is_file answer from the folder's own record; only symbolic links are followed with a stat.
    try:
        if entry.is_dir():
            return "" if _is_ignored_folder(entry.name) else "folder"
        if entry.name.startswith(".") or entry.name.lower() in _IGNORED_FILES:
            return ""
        suffix = _suffix(entry.name)
        if suffix in _FOREIGN_PICTURES:
            log.skipped.append(Skipped(path=entry.path, reason=_FOREIGN_REASON))
        elif suffix not in IMAGE_SUFFIXES:
            log.ignored[suffix or "without a suffix"] += 1
        elif entry.is_file():
            return "picture"
        elif entry.is_symlink():
            log.skipped.append(Skipped(path=entry.path, reason="this symbolic link leads nowhere"))
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
