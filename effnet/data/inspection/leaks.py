"""Find test set leakage: test images with a copy, or an image of their group, in train or val."""

import hashlib
import heapq
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from effnet.data.datasets import Dataset, Split, split_listing
from effnet.data.groups import joined
from effnet.data.labels import LabelKind
from effnet.data.several.outputs import SEVERAL
from effnet.data.sources.source import Group, Listing, Source, source_name
from effnet.errors import DataError, ImageError
from effnet.system.files import open_regular

_SPLITS = ("train", "val", "test")
# The number of marks kept of a fit's images; the number of first bytes of a file, headers included, that identify it.
_SAMPLED, _MARKED_BYTES = 256, 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """The names of leaked test images; of `num_test`, `copies` are identical or nearly identical to others.

    The rest share a group (a patient, a video) with others.
    """

    names: tuple[str, ...]
    copies: int
    num_test: int

    @property
    def sentence(self) -> str:
        """The number of leaked test images and the reason, as a sentence."""
        others = len(self.names) - self.copies
        reasons = [
            f"{self.copies:,} are identical or nearly identical to images in train or val" * bool(self.copies),
            f"{others:,} belong to the same group as images in train or val" * bool(others),
        ]
        return (
            f"{len(self.names):,} of the {self.num_test:,} test images leak: {' and '.join(filter(None, reasons))}, "
            "so the accuracy on the whole test split is too high."
        )


NO_LEAKS = Leaks(names=(), copies=0, num_test=0)


def find_leaks(dataset: Dataset) -> Leaks:
    """Return the test images that a group of the data set connects with images of train or val."""
    names = {split: set(names_of(getattr(dataset, split))) for split in _SPLITS}
    seen = names["train"] | names["val"]
    copies = _connected(names["test"], seen, (group for group in dataset.groups if group.kind != "group"))
    leaked = _connected(names["test"], seen, dataset.groups)
    return Leaks(names=tuple(sorted(leaked)), copies=len(copies), num_test=len(dataset.test))


def keep_together(dataset: Dataset, groups: Collection[Group]) -> Dataset:
    """Return the data set with these groups, split again if one of them is on two sides of a split made by effnet.

    The split is unchanged if otherwise nothing could be held out: `find_leaks` then reports the leaks.
    """
    dataset = replace(dataset, groups=(*dataset.groups, *groups))
    listed = dataset.listed
    if listed is None or not _is_parted(dataset, groups):
        return dataset
    try:
        split = split_listing(replace(listed, groups=dataset.groups), seed=dataset.seed, channels=dataset.channels)
    except DataError:
        return dataset
    sizes = [len(group.names) for group in groups if group.kind == "similar"] or [len(g.names) for g in groups]
    count = f"{sum(sizes):,} images are nearly identical to others, in {len(sizes):,} groups"
    note = f"{count}; the split keeps each on one side."
    return replace(split, notes=(*dataset.notes, note), value_range=dataset.value_range, sound=dataset.sound)


def names_of(split: Split) -> Iterator[str]:
    """Yield the paths or names of a split's images; an empty string for those in memory."""
    return (source_name(source, "") for source in split.sources)


def fingerprint_of(listing: Listing) -> str:
    """Return a hash of the images' paths below the data folder, labels and given splits.

    Files are not read; images in memory are. The same data in another place have the same fingerprint.
    """
    rows = sorted(
        f"{split}\0{listing.relative(_identity(source))}\0{label}"
        for split, part in listing.parts.items()
        for source, label in zip(part.sources, part.labels, strict=True)
    )
    return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def marks_of(splits: Iterable[Split], class_names: Sequence[str], kind: LabelKind) -> list[str]:
    """Return a mark for each image: a hash of its label, file size and first bytes, independent of its path.

    Labels of several outputs are left out: the same images may have some more or fewer of them elsewhere. For images in
    blocks that cannot all be available at once, the name replaces the content.
    """
    names = tuple(class_names)
    return [
        _mark(source, "" if kind is SEVERAL else kind.to_text(label, names), read=split.blocks is None)
        for split in splits
        for source, label in zip(split.sources, split.labels.tolist(), strict=True)
    ]


def sample_of_marks(marks: Iterable[str]) -> tuple[str, ...]:
    """Return a small sample of marks, independent of order: data sets that share images share sampled marks too.

    Source: a bottom-k sketch, A. Z. Broder, "On the resemblance and containment of documents", 1997.
    """
    return tuple(heapq.nsmallest(_SAMPLED, set(marks)))


def _mark(source: Source, label: str, *, read: bool) -> str:
    content = _begin(source) if read else None
    text = f"{label}\0".encode("utf-8", "surrogateescape")
    return hashlib.sha256(text + (content or _identity(source).encode("utf-8", "surrogateescape"))).hexdigest()[:16]


def _begin(source: Source) -> bytes | None:
    """Return the size and the first bytes of an image's file, or None if it cannot be read."""
    try:
        if isinstance(source, np.ndarray):
            return source.tobytes()
        if not isinstance(source, str):
            data = source.read()
            return b"%d\0" % len(data) + data[:_MARKED_BYTES]
        with open_regular(source) as file:
            return b"%d\0" % os.fstat(file.fileno()).st_size + file.read(_MARKED_BYTES)
    except (OSError, ImageError):
        return None


def _identity(source: Source) -> str:
    if isinstance(source, np.ndarray):
        return hashlib.sha256(source.tobytes()).hexdigest()
    return source_name(source, "")


def _connected(test: set[str], seen: set[str], groups: Iterable[Group]) -> set[str]:
    numbers = joined(groups)
    known = {numbers[name] for name in seen & numbers.keys()}
    return {name for name in test & numbers.keys() if numbers[name] in known}


def _is_parted(dataset: Dataset, groups: Iterable[Group]) -> bool:
    """Return whether a group is on two sides of a split made by effnet."""
    if not dataset.made:
        return False
    sides = {name: split for split in ("train", *dataset.made) for name in names_of(getattr(dataset, split))}
    return any(len({sides[name] for name in group.names if name in sides}) > 1 for group in groups)
