"""Archives of published TensorFlow checkpoints."""

import gzip
import io
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from effnet.bundle.declared import MAX_GROWTH
from effnet.errors import WeightsError
from effnet.system.files import open_regular

# The graph, the TFLite files and the logs beside a checkpoint are not needed.
_WANTED = re.compile(r"checkpoint|[^.].*\.(index|data-\d{5}-of-\d{5})")
_GZIP = b"\x1f\x8b"
_MAX_MEMBERS = 10_000
_MAX_READ = 2**20


def is_archive(name: str) -> bool:
    """Return whether a file name is that of a checkpoint archive."""
    return name.endswith((".tar.gz", ".tgz", ".tar"))


def is_archive_file(path: Path) -> bool:
    """Return whether a file's content is an archive: timm names files of torch.save .pth.tar."""
    if not path.is_file():
        return False
    with open_regular(path) as file:
        start = file.read(512)
    return start.startswith(_GZIP) or start[257:262] == b"ustar"


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the files of a checkpoint into the new `folder`, whole or not at all, and return it.

    All go straight into `folder`, whatever their folders in the archive; links and sparse files are skipped.
    Raises WeightsError if the archive is damaged, unpacks to many times its size or has no checkpoint.
    """
    beside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
    try:
        beside.mkdir(parents=True)
        _extract(archive, beside)
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _extract(archive: Path, folder: Path) -> None:
    try:
        with _content(archive) as content, tarfile.open(fileobj=content, mode="r:") as tar:
            for number, member in enumerate(tar):
                if number == _MAX_MEMBERS:
                    raise ValueError(f"it has more than {_MAX_MEMBERS:,} files")
                if member.isfile() and not member.issparse() and _WANTED.fullmatch(name := Path(member.name).name):
                    _copy(tar, member, folder / name)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise WeightsError(
            f"{archive.name} is not a complete archive: {str(error)[:120]}; get the file again"
        ) from error
    if not any(path.suffix == ".index" for path in folder.iterdir()):
        raise WeightsError(f"{archive.name} must hold a TensorFlow checkpoint; it has no file that ends with .index")


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None
    with source, open(path, "wb") as file:
        shutil.copyfileobj(source, file)
        if file.tell() != member.size:
            raise EOFError("it ends too early")


@contextmanager
def _content(archive: Path) -> Iterator[BinaryIO]:
    """Yield the tar file, decompressed if needed, as a stream of limited size."""
    with open_regular(archive) as file:
        most = MAX_GROWTH * file.seek(0, os.SEEK_END)
        file.seek(0)
        zipped = file.read(2) == _GZIP
        file.seek(0)
        if not zipped:
            yield _Bounded(file, most)  # type: ignore[misc]
            return
        with gzip.GzipFile(fileobj=file) as opened:
            yield _Bounded(opened, most)  # type: ignore[misc,arg-type]


class _Bounded(io.RawIOBase):
    """A stream of at most `most` bytes that also limits each read: tarfile reads names of any length at once."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._most = file, most

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self._check(place)
        return self._file.seek(place, whence)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_READ:
            raise ValueError("a name in it is too long")
        self._check(self._file.tell() + size)
        return self._file.read(size)

    def _check(self, place: int) -> None:
        if place > self._most + _MAX_READ:
            raise ValueError(f"it unpacks to more than {MAX_GROWTH} times its size")
