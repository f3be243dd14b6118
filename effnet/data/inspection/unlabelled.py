"""Images without labels: those of a folder that are no copies of labelled images, test images above all."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from effnet.data.datasets import Dataset, Split, loaded_image
from effnet.data.images.decode import Decoding
from effnet.data.sources.folder import list_images
from effnet.data.sources.source import Skipped, Source, encoded
from effnet.errors import ImageError, InputError
from effnet.system.files import read_bytes
from effnet.system.machine import usable_cores
from effnet.system.text import printable

_SPLITS = ("test", "val", "train")
_MOST_BYTES = 10**9
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlabelled:
    """The `paths` of images without labels below `folder`, and what was left out of the `found` ones.

    `copies` counts those with the bytes or the pixels of a labelled image, by its split; `repeated` those that are
    copies of another one of `paths`; `unread` those that were not looked at, as there was no time.
    """

    folder: str
    paths: tuple[str, ...]
    found: int
    copies: Mapping[str, int]
    repeated: int = 0
    unread: int = 0
    unreadable: tuple[Skipped, ...] = ()

    @property
    def split(self) -> Split:
        """The images as a split whose labels mean nothing."""
        return Split(sources=self.paths, labels=np.zeros(len(self.paths), np.int64))

    @property
    def sentences(self) -> tuple[str, ...]:
        """The counts in words."""
        name = printable(self.folder)
        lines = [f"{len(self.paths):,} of the {self.found:,} images in {name} have no label"]
        if total := sum(self.copies.values()):
            parts = ", ".join(f"{count:,} of {split}" for split, count in self.copies.items() if count)
            lines.append(f"{total:,} images in {name} are copies of labelled ones ({parts}) and were left out")
        if self.repeated:
            lines.append(f"{self.repeated:,} images in {name} are copies of others there and were left out")
        if self.unread:
            lines.append(f"{self.unread:,} images in {name} were left out, drawn at random: there was no time for more")
        if self.unreadable:
            first = self.unreadable[0]
            lines.append(
                f"{len(self.unreadable):,} files in {name} cannot be read and were left out; the first is "
                f"{printable(first.path)}: {first.reason}"
            )
        return tuple(lines)


def read_unlabelled(
    folder: str | os.PathLike[str],
    dataset: Dataset,
    *,
    most: int | None = None,
    seed: int = 0,
    option: str = "--unlabelled",
    progress: Progress | None = None,
) -> Unlabelled:
    """Return the images anywhere below `folder` whose bytes and pixels are those of no labelled image of `dataset`.

    All images are decoded once. At most `most` of the folder are looked at, drawn with `seed`. Raises InputError, in
    which `option` names the folder's, if it is no folder, or holds no image that can be used.
    """
    root, name = os.fspath(folder), printable(os.fspath(folder))
    if not os.path.isdir(root):
        raise InputError(f"{option} must be a folder of images; {name} is none")
    listed = list_images(root)
    if not listed.paths:
        raise InputError(f"{option} must be a folder of images; there are none in {name}")
    paths = _drawn(listed.paths, most, seed)
    labelled = [(part, split) for part in _SPLITS if len(split := getattr(dataset, part))]
    total = len(paths) + sum(len(split) for _, split in labelled)
    split = Split(sources=paths, labels=np.zeros(len(paths), np.int64))
    own = _marks(split, dataset.decoding, _counted(progress, 0, total))
    known, done = dict[bytes, str](), len(paths)
    for part, images in labelled:  # test comes first: a copy of several is one of test
        for mark in _marks(images, dataset.decoding, _counted(progress, done, total)):
            for digest in mark if not isinstance(mark, str) else ():
                known.setdefault(digest, part)
        done += len(images)
    found = _sorted_out(paths, own, known)
    unreadable = (*found.unreadable, *listed.skipped)
    result = Unlabelled(
        folder=root, paths=found.paths, found=len(listed.paths), copies=found.copies, repeated=found.repeated,
        unread=len(listed.paths) - len(paths), unreadable=unreadable,
    )  # fmt: skip
    if not result.paths:
        said = ". ".join(result.sentences[1:])
        raise InputError(f"{option} must hold images other than the labelled ones; {said}: name another folder")
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sorted:
    paths: tuple[str, ...]
    copies: Mapping[str, int]
    repeated: int
    unreadable: tuple[Skipped, ...]


def _sorted_out(paths: Sequence[str], own: Sequence[tuple[bytes, ...] | str], known: Mapping[bytes, str]) -> _Sorted:
    """Return the images without copies; `own` are their digests, or the reason why one cannot be read."""
    kept, unreadable, seen = [], [], set[bytes]()
    copies, repeated = dict.fromkeys(_SPLITS, 0), 0
    for path, mark in zip(paths, own, strict=True):
        if isinstance(mark, str):
            unreadable.append(Skipped(path=path, reason=mark.removeprefix(f"{path}: ")))
        elif parts := [known[digest] for digest in mark if digest in known]:
            copies[min(parts, key=_SPLITS.index)] += 1
        elif seen & set(mark):
            repeated += 1
        else:
            kept.append(path)
            seen |= set(mark)
    return _Sorted(paths=tuple(kept), copies=copies, repeated=repeated, unreadable=tuple(unreadable))


def _drawn(paths: Sequence[str], most: int | None, seed: int) -> Sequence[str]:
    if most is None or len(paths) <= most:
        return paths
    chosen = np.random.default_rng(seed).permutation(len(paths))[: max(1, most)]
    return [paths[index] for index in np.sort(chosen)]


def _counted(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    return (lambda done: progress(before + done, total)) if progress else (lambda done: None)


def _marks(split: Split, decoding: Decoding, counted: Callable[[int], None]) -> list[tuple[bytes, ...] | str]:
    """Return the digests of the file and of the pixels of each image, or the reason why it cannot be read."""

    def mark(index: int) -> tuple[bytes, ...] | str:
        try:
            file = _file_digest(split.sources[index])
            with loaded_image(split, index, decoding) as pixels:
                shape = repr(pixels.shape).encode()
                digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16, person=b"pixels", key=shape)
        except (ImageError, OSError) as error:
            return str(error)
        return (*file, digest.digest())

    found = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for number, each in enumerate(pool.map(mark, range(len(split)))):
            found.append(each)
            counted(number + 1)
    return found


def _file_digest(source: Source) -> tuple[bytes, ...]:
    if isinstance(source, np.ndarray):
        return ()
    data = encoded(source)
    if isinstance(data, str):
        data = read_bytes(data, limit_bytes=_MOST_BYTES)
    return (hashlib.blake2b(data, digest_size=16).digest(),)
