"""The images that a user names on the command line, in batches."""

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import typer

from effnet.cli.console import fail
from effnet.errors import ImageError, InputError
from effnet.system.text import printable

if TYPE_CHECKING:
    import numpy as np

    from effnet.data.sources.source import Skipped

_TOGETHER = 16


def chunks(
    paths: Iterable["str | Skipped"], prepare: Callable[[str], "np.ndarray"], *, bad: list[str]
) -> Iterator[tuple[list[str], "np.ndarray"]]:
    """Yield batches of readable images: their paths, and their pixels, uint8 [images, R, R, C].

    Unreadable images are reported on stderr, and their paths are added to `bad`.
    """
    import numpy as np

    from effnet.data.sources.source import Skipped

    paths = iter(paths)
    while chunk := list(islice(paths, _TOGETHER)):
        names, prepared = [], []
        for path in chunk:
            try:
                if isinstance(path, Skipped):
                    raise ImageError(f"{printable(path.path)}: {path.reason}")
                prepared.append(prepare(path))
                names.append(path)
            except ImageError as error:
                bad.append(path.path if isinstance(path, Skipped) else path)
                fail(str(error))
        if prepared:
            yield names, np.stack(prepared)


def each(
    paths: Iterable["str | Skipped"], answer: Callable[[str], "np.ndarray"], *, bad: list[str]
) -> Iterator[tuple[str, "np.ndarray"]]:
    """Yield each readable path with its row; the others are reported as `chunks` does."""
    for path in paths:
        assert isinstance(path, str)
        try:
            yield path, answer(path)
        except ImageError as error:
            bad.append(path)
            fail(str(error))


def end_with(bad: list[str]) -> None:
    """End the command with exit code 2 if images could not be read."""
    if bad:
        fail(f"{len(bad)} {'image was' if len(bad) == 1 else 'images were'} not readable")
        raise typer.Exit(2)


def expand(words: list[str], *, videos: bool = False) -> Iterator["str | Skipped"]:
    """Yield the image files behind files, folders, globs and - (a list on stdin).

    A folder gives the images that a data set would find in it, with `videos` these too, and the files that look like
    images but are not read, with the reason. Raises InputError for an argument that matches nothing.
    """
    from effnet.data.sources.folder import list_images

    for word in words:
        if word == "-":
            yield from (line for line in (line.rstrip("\r\n") for line in sys.stdin) if line)
            continue
        # A file's name may contain brackets, so it is looked up before it is used as a pattern.
        if os.path.isfile(word):
            yield word
        elif os.path.isdir(word):
            listed = list_images(word, videos=videos)
            for note in listed.notes:
                fail(f"{word}: {note}")
            if not listed.paths and not listed.skipped:
                raise InputError(f"there must be images in {word}; none were found")
            every: list[str | Skipped] = [*listed.paths, *listed.skipped]
            yield from sorted(every, key=lambda f: f if isinstance(f, str) else f.path)
        else:
            found = sorted(p for p in glob.glob(word, recursive=True) if os.path.isfile(p))
            if not found:
                raise InputError(f"there is no file, folder or match for {word}")
            yield from found
