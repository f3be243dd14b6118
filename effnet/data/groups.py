"""Group images that belong together: by a pattern of their paths, or because their files are identical."""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from effnet.data.images.dicom import DICOM_SUFFIXES, patient_of
from effnet.data.sources.source import Group, Listing, Part, source_name
from effnet.errors import DataError, MissingExtraError
from effnet.system.files import open_regular
from effnet.system.text import printable

MOST_FILES = 200_000
"""With more images than this, identical files are not searched: nearly every file would have to be opened."""

# Of files of equal size only the beginning is read first: in a folder of raw arrays all sizes are equal.
_FIRST_BYTES = 4096
# There is one for each split.
_LEAST_PATIENTS = 3


def with_groups(listing: Listing, *, group_by: str = "", equal: Iterable[Group] | None = None) -> Listing:
    """Return the listing with its groups: those of a manifest's column, of the pattern, and of identical files.

    `group_by` is a regular expression that is searched in each path relative to DATA; the group is the text of its
    first parenthesis, or the whole match. Images without a match belong to no group. Without it, and without groups in
    a manifest, the DICOM files of a patient are a group. If `equal` is given, it is used as the groups of identical
    files, and only DICOM files are opened.

    Raises:
        DataError: the pattern is not valid, or matches no path.
    """
    groups, notes = list(listing.groups), list(listing.notes)
    if group_by:
        matched = _matched(listing, group_by)
        groups += matched
        notes.append(sentence(matched, f"share a match of '{group_by}' in their paths"))
    if listing.groups:
        notes.append(sentence(listing.groups, "share a group in the manifest"))
    if not group_by and not groups:
        groups, said = groups_of_patients(listing)
        notes += said
    if equal is None:
        equal = equal_files(listing.parts.values())
        notes += [sentence(equal, "have files identical to others")] if equal else []
    return replace(listing, groups=(*groups, *equal), group_by=group_by, notes=tuple(notes))


def equal_files(parts: Iterable[Part]) -> list[Group]:
    """Return the images whose files have the same bytes; only files of equal size and beginning are read whole."""
    parts = list(parts)
    if sum(len(part.sources) for part in parts) > MOST_FILES:
        return []
    by_size: dict[int, list[str]] = {}
    for part in parts:
        for source in part.sources:
            if isinstance(source, str) and (size := _size(source)):
                by_size.setdefault(size, []).append(source)
    same: list[list[str]] = []
    for size, paths in by_size.items():
        for alike in _by_content(paths, most=_FIRST_BYTES) if len(paths) > 1 else ():
            same += [alike] if size <= _FIRST_BYTES else _by_content(alike, most=None)
    return [Group(kind="identical", names=tuple(names)) for names in same]


def numbers_within(part: Part, groups: Iterable[Group]) -> dict[int, int]:
    """Return the group number of each image (by index) of a part that shares a group with others in the part."""
    numbers = joined(groups)
    if not numbers:
        return {}
    names = (source_name(source, "") for source in part.sources)
    found = {index: numbers[name] for index, name in enumerate(names) if name in numbers}
    sizes: dict[int, int] = {}
    for number in found.values():
        sizes[number] = sizes.get(number, 0) + 1
    return {index: number for index, number in found.items() if sizes[number] > 1}


def joined(groups: Iterable[Group]) -> dict[str, int]:
    """Return a number for each name: the same number for names that groups connect, directly or through others."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        root = name
        while above[root] != root:
            root = above[root]
        while above[name] != root:  # makes the next search short
            above[name], name = root, above[name]
        return root

    for group in groups:
        for name in group.names:
            above.setdefault(name, name)
            above[top(name)] = top(group.names[0])
    numbers: dict[str, int] = {}
    return {name: numbers.setdefault(top(name), len(numbers)) for name in above}


def grouped(pairs: Iterable[tuple[str, str]]) -> list[Group]:
    """Return the groups of two or more from (key, name) pairs; names without a key belong to none."""
    by_key: dict[str, list[str]] = {}
    for key, name in pairs:
        if key:
            by_key.setdefault(key, []).append(name)
    return [Group(kind="group", names=tuple(names)) for names in by_key.values() if len(names) > 1]


def _matched(listing: Listing, group_by: str) -> list[Group]:
    try:
        pattern = re.compile(group_by)
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(f"group_by must be a regular expression; got {group_by!r}: {error}") from error
    names = [source_name(source, "") for part in listing.parts.values() for source in part.sources]
    found = [pattern.search(listing.relative(name)) for name in names if name]
    if not any(found):
        first = f"; the first path is {printable(listing.relative(names[0]))!r}" if names and names[0] else ""
        raise DataError(f"group_by must match paths of images, but {group_by!r} matches none of {len(names)}{first}")
    keys = ("" if match is None else (match[1] if pattern.groups else match[0]) or "" for match in found)
    return grouped(zip(keys, names, strict=True))


def groups_of_patients(listing: Listing) -> tuple[list[Group], list[str]]:
    """Return the groups of DICOM files with the same PatientID, and notes on them; nothing without DICOM files.

    With fewer patients than splits there are no groups. Raises MissingExtraError without pydicom if all are DICOM.
    """
    paths = [s for part in listing.parts.values() for s in part.sources if isinstance(s, str) and _is_dicom(s)]
    if not paths or len(paths) > MOST_FILES:
        return [], []
    try:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            patients = list(pool.map(patient_of, paths))
    except MissingExtraError:
        if len(paths) == sum(len(part.sources) for part in listing.parts.values()):
            raise
        return [], []  # a few files among images: inspection names them
    named = set(filter(None, patients))
    if len(named) < _LEAST_PATIENTS:
        why = "no PatientID" if not named else f"{len(named)} PatientID" + "s" * (len(named) > 1)
        advice = "give group_by, or a manifest with a column group, if they are of several patients"
        return [], [f"The {len(paths):,} DICOM files have {why}, so a split does not separate patients: {advice}."]
    groups = grouped(zip(patients, paths, strict=True))
    said = f"share a PatientID with others ({len(named):,} patients)"
    return groups, [sentence(groups, said)] if groups else []


def _is_dicom(path: str) -> bool:
    """Return whether a listed file is DICOM by its suffix, or as it was listed without an image's."""
    suffix = os.path.splitext(path)[1].lower()
    return suffix in DICOM_SUFFIXES or not suffix or suffix[1:].isdigit()


def sentence(groups: Iterable[Group], what: str) -> str:
    """Return the number of images in these groups, and what they share, as a sentence."""
    sizes = [len(group.names) for group in groups]
    kept = "1 group" if len(sizes) == 1 else f"{len(sizes):,} groups"
    return f"{sum(sizes):,} images {what}, in {kept}; a generated split keeps each group on one side."


def _size(path: str) -> int:
    try:
        status = os.stat(path)
    except OSError:  # inspection reports it
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _by_content(paths: Iterable[str], *, most: int | None) -> Iterator[list[str]]:
    """Yield the lists of two or more files with the same content, or the same first `most` bytes."""
    found: dict[bytes, list[str]] = {}
    for path in paths:
        try:
            with open_regular(path) as file:
                whole = hashlib.file_digest(file, "sha256") if most is None else hashlib.sha256(file.read(most))  # type: ignore[arg-type]
        except OSError:
            continue
        found.setdefault(whole.digest(), []).append(path)
    yield from (same for same in found.values() if len(same) > 1)
