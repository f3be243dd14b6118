"""Corrections of labels: a file of JSON lines, as the page of `effnet serve` writes it, and their use on a listing.

A line is an object: `path` (below the data folder) or `sha256` names an image, `new` is its right label, or null if it
must be left out; of several lines of one image the last counts, and one with `"undo": true` takes all before it back.
`old`, `who`, `when`, `model` and `version` say where it comes from.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effnet.data.labels import class_name
from effnet.data.sources.source import Listing, Part, Source, encoded, source_name
from effnet.errors import DataError, ImageError, nearest, shown
from effnet.system.files import open_regular, parse_json, read_bytes
from effnet.system.text import printable

Fix = tuple[str, str | None]
"""The path of an image below the data folder, and its right label or, to leave it out, None."""

_MOST_BYTES = 10**9
_KEYS = ("path", "sha256", "old", "new", "undo", "who", "when", "model", "version")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """The last line on an image: its path or SHA-256 or both, empty if not given, and its right label or None.

    `line` counts from 1. An `undo` is no correction: it takes those before it back.
    """

    path: str
    sha256: str
    label: str | None
    line: int
    undo: bool = False


def read_corrections(path: str | Path) -> tuple[Correction, ...]:
    """Return the corrections in a file, the last of each image; raise DataError, with the line, for a bad one."""
    try:
        data = read_bytes(path, limit_bytes=_MOST_BYTES)
    except OSError as error:
        raise DataError(
            f"corrections must be a file that can be read; {printable(path)} is not: {error.strerror}"
        ) from error
    last: dict[str, Correction] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            found = parse_correction(line, number, where=f"{printable(path)}:{number}")
            own = found.path or found.sha256
            # The last line comes last: the line between may name the same image in the other way.
            for key in (found.sha256, found.path) if found.undo else (own,):
                last.pop(key, None)
            if not found.undo:
                last[own] = found
    return tuple(last.values())


def parse_correction(text: bytes, number: int, *, where: str) -> Correction:
    """Return the correction of a line; raise DataError, which begins with `where`, if it is none."""
    try:
        data = parse_json(text)
    except ValueError as error:
        raise DataError(f"{where}: a correction must be a JSON object on one line; {error}") from error
    if not isinstance(data, dict):
        raise DataError(f"{where}: a correction must be a JSON object; got {shown(data)}")
    for key in data:
        if key not in _KEYS:
            raise DataError(f"{where}: the keys of a correction are {', '.join(_KEYS)}; got {shown(key)}{_near(key)}")
    path, digest, undo = data.get("path", ""), data.get("sha256", ""), data.get("undo", False)
    if not isinstance(path, str) or not isinstance(digest, str) or not (path or digest):
        raise DataError(f"{where}: a correction must name its image by path or sha256, both texts; it has neither")
    if digest and not _DIGEST.fullmatch(digest.lower()):
        raise DataError(f"{where}: sha256 must be 64 hexadecimal digits; got {shown(digest)}")
    if type(undo) is not bool or ("new" in data) == undo:
        raise DataError(f'{where}: a correction must have "new", a label or null, or "undo": true, and not both')
    new = data.get("new")
    if new is not None and not (isinstance(new, str) and class_name(new)):
        raise DataError(f"{where}: new must be a label, or null to leave the image out; got {shown(new)}")
    label = None if new is None else class_name(new)
    return Correction(path=path, sha256=digest.lower(), label=label, line=number, undo=undo)


def _near(key: Any) -> str:
    return nearest(str(key), _KEYS)


def corrected(listing: Listing, path: str | Path) -> Listing:
    """Return a listing with the corrections of a file, which its notes count.

    Raises DataError, with file and line, for one whose image, or whose label, the data do not have, and for one whose
    image has changed since.
    """
    if not listing.label_kind.classes:
        raise DataError(
            f"corrections are labels of images; these data have {listing.label_kind.task} labels: correct them in "
            "their own files"
        )
    known = sorted({label for part in listing.parts.values() for label in part.labels})
    images, fixes, file = _Images(listing), dict[str, str | None](), printable(path)
    for found in read_corrections(path):
        where = f"{file}:{found.line}"
        if found.label is not None and found.label not in known:
            raise DataError(
                f"{where}: new must be a label of the data; got {shown(found.label)}{nearest(found.label, known)}: "
                "a class begins with images of its own in DATA"
            )
        for name in images.named(found, where):
            fixes[name] = found.label
    fixed, counts = _fixed(listing, fixes)
    note = (
        f"{sum(counts.values()):,} corrections of {file} were applied: {counts['changed']:,} labels changed, "
        f"{counts['left_out']:,} images left out, {counts['same']:,} labels confirmed."
    )
    return replace(fixed, notes=(*listing.notes, note))


def corrected_again(listing: Listing, fixes: Sequence[Fix]) -> Listing:
    """Return a listing with corrections that an earlier one had; those of images that it lacks are left out."""
    return _fixed(listing, dict(fixes))[0]


def _fixed(listing: Listing, fixes: Mapping[str, str | None]) -> tuple[Listing, dict[str, int]]:
    """Return the corrected listing, and how many corrections changed a label, left an image out, or changed nothing."""
    counts, parts, done = {"changed": 0, "left_out": 0, "same": 0}, dict[str, Part](), list[Fix]()
    for split, part in listing.parts.items():
        sources: list[Source] = []
        labels: list[str] = []
        for source, label in zip(part.sources, part.labels, strict=True):
            name = listing.relative(source_name(source, ""))
            right = fixes.get(name, label) if name else label
            if name in fixes:
                counts["left_out" if right is None else "same" if right == label else "changed"] += 1
                done.append((name, right))
            if right is not None:
                sources.append(source)
                labels.append(right)
        parts[split] = Part(sources=tuple(sources), labels=tuple(labels))
    return replace(listing, parts=parts, corrections=tuple(done)), counts


class _Images:
    """The images of a listing by their paths and, once one is needed, by the SHA-256 of their files."""

    def __init__(self, listing: Listing) -> None:
        self._by_name: dict[str, Source] = {}
        self._by_digest: dict[str, list[str]] | None = None
        for part in listing.parts.values():
            for source in part.sources:
                if name := source_name(source, ""):
                    self._by_name[listing.relative(name)] = source

    def named(self, found: Correction, where: str) -> list[str]:
        """Return the names of the images of a correction; raise DataError if there is none."""
        if found.path in self._by_name:
            if found.sha256 and digest_of(self._by_name[found.path]) != found.sha256:
                raise DataError(
                    f"{where}: {printable(found.path)} must be the image that was corrected; its SHA-256 is another: "
                    "look at it again, and remove this line"
                )
            return [found.path]
        names = self._digests().get(found.sha256, []) if found.sha256 else []
        if not names:
            what = printable(found.path) if found.path else f"SHA-256 {found.sha256[:12]}..."
            hint = nearest(found.path, self._by_name) if found.path else ""
            raise DataError(
                f"{where}: a correction must name an image of the data, by its path below DATA or its SHA-256; there "
                f"is no {what}{hint}: put the image into DATA, or remove this line"
            )
        return names

    def _digests(self) -> dict[str, list[str]]:
        if self._by_digest is None:
            self._by_digest = {}
            for name, source in self._by_name.items():
                if digest := digest_of(source):
                    self._by_digest.setdefault(digest, []).append(name)
        return self._by_digest


def digest_of(source: Source) -> str:
    """Return the SHA-256 of an image's file, empty if it has none or it cannot be read."""
    try:
        if isinstance(source, str):
            with open_regular(source) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        data = encoded(source) if not hasattr(source, "dtype") else b""  # type: ignore[arg-type]
    except (OSError, ImageError):
        return ""
    return hashlib.sha256(data).hexdigest() if data and isinstance(data, bytes) else ""
