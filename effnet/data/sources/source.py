"""The sources of images, and the listing of a folder or a manifest before it is split; no file is opened."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from effnet.data.labels import CLASSES, LabelKind
from effnet.errors import DataError
from effnet.system.text import printable

if TYPE_CHECKING:
    from effnet.data.annotated.record import Finding

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


class Stored(Protocol):
    """An encoded image inside something larger: a member of a shard, a row of a table."""

    @property
    def name(self) -> str:
        """The name in messages and reports, unique within a data set."""
        ...

    @property
    def block(self) -> int:
        """The number of the part that holds it; a part is available whole or not at all."""
        ...

    def read(self) -> bytes:
        """Return the encoded image, from any thread.

        Raises ImageError if this image cannot be read, DataError if the part that holds it cannot.
        """
        ...


Source = str | np.ndarray | Stored
"""A path, uint8 [H, W, C], or an image that is stored elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file that is not used, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The images of one given split, or all of them; `labels[i]` belongs to `sources[i]`; files are sorted by path."""

    sources: tuple[Source, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Two or more images, by path or name, that must stay on one side of a split, and the reason.

    `kind` is "group" for images that belong together by the user's definition (one patient, one video), "identical"
    for files with the same bytes, and "similar" for the same photograph in another size or encoding.
    """

    kind: Literal["group", "identical", "similar"]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Images by given split ("train", "val", "test"), or under "" if the source has no splits.

    If the blocks of the images cannot all be available at once, `mixed` is the number that can, otherwise it is 0.
    Relative paths start at the folder `root`; `channels` is the number declared by the source; `groups` are those of a
    manifest's column and, once searched, of `group_by` and of identical files. `class_names` are the classes in their
    order; empty if they are those of the labels, sorted. `label_kind` says what the labels are. `outputs` are the words
    that choose the same columns of a manifest again, with their kinds; empty for the column `label` alone. `findings`
    are the irregularities of annotations, which `notes` have as sentences. `corrections` are those of its labels, by
    path below `root`: the right label, None for an image that was left out (effnet.data.corrections).
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
    class_names: tuple[str, ...] = ()
    label_kind: LabelKind = CLASSES
    outputs: tuple[str, ...] = ()
    findings: "tuple[Finding, ...]" = ()
    corrections: tuple[tuple[str, str | None], ...] = ()

    def relative(self, name: str) -> str:
        """Return a path relative to the data folder, with slashes; other names unchanged."""
        prefix = os.path.join(self.root, "") if self.root else ""
        return name.removeprefix(prefix).replace(os.sep, "/")

    def absolute(self, path: str) -> str:
        """Return the path or name for a result of `relative`."""
        return os.path.join(self.root, *path.split("/")) if self.root and not path.startswith("/") else path


def make_part(pairs: Iterable[tuple[str, str]]) -> Part:
    """Return the (path, label) pairs as a Part, in an order independent of the file system."""
    ordered = sorted(pairs)
    return Part(sources=tuple(p for p, _ in ordered), labels=tuple(label for _, label in ordered))


def refuse_if_strict(skipped: Iterable[Skipped], *, strict: bool) -> None:
    """Raise DataError, naming the first skipped files, if strict."""
    found = list(skipped)
    if strict and found:
        lines = "".join(f"\n  {printable(s.path)}: {s.reason}" for s in found[:5])
        more = f"\n  and {len(found) - 5} more" if len(found) > 5 else ""
        raise DataError(
            f"strict needs every file to be usable, but {len(found)} cannot be used; "
            f"repair or remove them, or omit strict:{lines}{more}"
        )


def source_name(source: Source, default: str) -> str:
    """Return the path or name of an image, or `default` for one in memory, which has no name."""
    if isinstance(source, str):
        return source
    return default if isinstance(source, np.ndarray) else source.name


def encoded(source: str | Stored) -> str | bytes:
    """Return the decoder's input: the path of a file, or the bytes of an image that is stored elsewhere."""
    return source if isinstance(source, str) else source.read()
