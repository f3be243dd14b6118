"""What a folder or a manifest lists, before it is split: paths and labels, nothing opened."""

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from effnet.data.stored import Source
from effnet.errors import DataError
from effnet.system.text import printable

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""The names of splits that folders and manifests may use, in lower case, and the split that each means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file that is not used, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The images of one given split, or all of them: `sources[i]` shows a `labels[i]`; files are sorted by path."""

    sources: tuple[Source, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Two or more images, by path or name, that must not be on two sides of a split, and why.

    `kind` is "group" for those that the user says belong together (one patient, one video), "identical" for equal
    files, and "similar" for the same photograph in another size or encoding.
    """

    kind: Literal["group", "identical", "similar"]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Images by given split ("train", "val", "test"), or under "" where the source has no splits.

    Where the blocks that the images lie in cannot all be at hand, `mixed` says how many can, otherwise it is 0.
    `root` is the folder that paths are told relative to, `channels` what the source says of them; `groups` are those of
    a manifest's column and, once they are looked for, of `group_by` and of equal files.
    """

    name: str
    parts: dict[str, Part]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    mirror_safe: bool = True
    mixed: int = 0
    root: str = ""
    channels: int | None = None
    groups: tuple[Group, ...] = ()
    group_by: str = ""

    def relative(self, name: str) -> str:
        """Return a path as it is below the folder of the data, with slashes; other names as they are."""
        prefix = os.path.join(self.root, "") if self.root else ""
        return name.removeprefix(prefix).replace(os.sep, "/")

    def absolute(self, path: str) -> str:
        """Return the path or name that `relative` gives this text for."""
        return os.path.join(self.root, *path.split("/")) if self.root and not path.startswith("/") else path


def class_name(text: str) -> str:
    """Return the label that a folder or manifest names: NFC, as macOS and Linux store "é" differently.

    Bytes that are no UTF-8, as old archives have them, become escapes: a label must fit into JSON and ONNX.
    """
    valid = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return unicodedata.normalize("NFC", valid).strip()


def make_part(pairs: Iterable[tuple[str, str]]) -> Part:
    """Return the (path, label) pairs as a Part, in an order that no file system changes."""
    ordered = sorted(pairs)
    return Part(sources=tuple(p for p, _ in ordered), labels=tuple(label for _, label in ordered))


def refuse_if_strict(skipped: Iterable[Skipped], *, strict: bool) -> None:
    """Raise DataError that names the first skipped files, if strict."""
    found = list(skipped)
    if strict and found:
        lines = "".join(f"\n  {printable(s.path)}: {s.reason}" for s in found[:5])
        more = f"\n  and {len(found) - 5} more" if len(found) > 5 else ""
        raise DataError(
            f"strict needs every file to be usable, {len(found)} cannot be used; "
            f"repair or remove them, or do without strict:{lines}{more}"
        )
