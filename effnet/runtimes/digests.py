"""The SHA-256 of each exported file, which config.json keeps: a swapped or damaged file is refused."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from effnet.bundle.config import read_digests
from effnet.bundle.formats import Format
from effnet.bundle.model_file import ChangedFileError, read_model, sha256
from effnet.errors import BundleError
from effnet.runtimes.registry import find_export


def digests_of(folder: Path, formats: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the files of `formats` in `folder`, by name; a file that is a folder has none."""
    names = [name for key in formats for name in find_export(key).files]
    return {name: sha256(read_model(folder / name)) for name in names if (folder / name).is_file()}


def check_digests(folder: str | os.PathLike[str], name: str) -> None:
    """Raise BundleError unless the files of the format `name` match the digests in config.json."""
    digests, target = read_digests(folder), find_export(name)
    with remedy(folder, target):
        for file in target.files:
            read_model(Path(folder) / file, digests)


@contextmanager
def remedy(folder: str | os.PathLike[str], target: Format) -> Iterator[None]:
    """Add to the error about a changed file of a format how to write it again."""
    try:
        yield
    except ChangedFileError as error:
        raise BundleError(f"{error}: write it again with `effnet export {folder} {target.asked}`") from error
