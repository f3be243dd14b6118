"""Read files of weights as arrays: safetensors, PyTorch, Keras, TensorFlow; the content decides the format."""

import errno
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from effnet.bundle.declared import to_32_bit
from effnet.bundle.safetensors_file import read_safetensors
from effnet.errors import WeightsError
from effnet.system.files import open_regular, read_bytes
from effnet.weights.readers.checkpoint import NOTHING_TOLD, State, Told, state_in
from effnet.weights.readers.hdf5_format import MAGIC as HDF5_MAGIC
from effnet.weights.readers.keras import KERAS_MEMBER, read_hdf5, read_keras_archive
from effnet.weights.readers.tensorflow import TABLE_MAGIC, read_bundle
from effnet.weights.readers.torch_file import Choose, ForeignPickleError, read_plain, read_zipped
from effnet.weights.schemes.tensorflow import SLOTS

Arrays = dict[str, np.ndarray]

_READABLE = ".safetensors, .pth, .pt, .bin, .h5, .keras, or a TensorFlow checkpoint"
_DAMAGED = (
    *(zipfile.BadZipFile, struct.error, zlib.error, EOFError, ValueError, TypeError, RuntimeError),
    *(KeyError, IndexError, AttributeError, OverflowError, MemoryError),
)
_MAX_LISTING_BYTES = 10**6
_PARTS_OF_A_CHECKPOINT = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The arrays of a file by name, and the metadata beside them."""

    arrays: Arrays
    told: Told = NOTHING_TOLD


def read_arrays(path: Path) -> Arrays:
    """Return the arrays of a file of weights by their names; `read_file` also returns metadata."""
    return read_file(path).arrays


def read_file(path: Path) -> Contents:
    """Read a file of weights; floating-point arrays are float32.

    Of a training script's checkpoint the arrays are those of the state dict, under the names that it has there. A
    TensorFlow checkpoint is named by its prefix, one of its files or its folder. Keras files give `LAYER/WEIGHT`.
    Raises WeightsError if the file cannot be read, is damaged, or is a pickle that would run code: such code
    is never run.
    """
    path = Path(path)
    try:
        prefix = _checkpoint_prefix(path)
        found = Contents(arrays=read_bundle(prefix, keep=_is_weight)) if prefix else _read_file(path)
    except OSError as error:
        reason = error.strerror or error
        raise WeightsError(f"{path} must be a readable file of weights; the system says: {reason}") from error
    if not found.arrays:
        raise WeightsError(f"{path} must contain weights; it has no arrays; get the file again or name another")
    return Contents(arrays={key: to_32_bit(array) for key, array in found.arrays.items()}, told=found.told)


def _is_weight(name: str) -> bool:
    return not name.endswith(SLOTS)


def _checkpoint_prefix(path: Path) -> Path | None:
    """Return the prefix of the TensorFlow checkpoint at `path`, or None for another file."""
    if path.is_dir():
        return _prefix_in(path)
    whole = Path(_PARTS_OF_A_CHECKPOINT.sub("", str(path)))
    return whole if Path(f"{whole}.index").is_file() and (whole != path or not path.is_file()) else None


def _prefix_in(folder: Path) -> Path:
    """Return the checkpoint in `folder`: the latest in its checkpoint list, else the only one."""
    listing = folder / "checkpoint"
    if listing.is_file():
        text = read_bytes(listing, limit_bytes=_MAX_LISTING_BYTES).decode("utf-8", "replace")
        latest = re.search(r'^model_checkpoint_path: "(.+)"', text, re.MULTILINE)
        if latest and (folder / f"{Path(latest[1]).name}.index").is_file():
            return folder / Path(latest[1]).name
    found = sorted(folder.glob("*.index"))
    if len(found) == 1:
        return found[0].with_suffix("")
    names = ", ".join(path.name for path in found[:3]) or "none"
    raise WeightsError(
        f"{folder} is a folder; as weights it must hold one TensorFlow checkpoint (NAME.index), and it holds "
        f"{names}; name the file of weights itself"
    )


def _read_file(path: Path) -> Contents:
    """Read a file that is opened only once, so that the format is checked on the data that is read."""
    if not path.is_file():
        raise WeightsError(f"{path} must be a file of weights ({_READABLE}); there is no such file")
    with open_regular(path) as file:
        start = file.read(512)
        file.seek(max(0, file.seek(0, os.SEEK_END) - 8))
        end = file.read()
        file.seek(0)
        for signature, read in _READERS:
            if signature(start):
                return read(file, path)
    if end == TABLE_MAGIC:
        raise WeightsError(
            f"{path} must be named NAME.index, with NAME.data-00000-of-00001 beside it, as TensorFlow writes "
            "checkpoints since 2016; rename it, or save an older checkpoint again with tf.train.Saver"
        )
    raise WeightsError(f"{path} must be a file of weights ({_READABLE}); {_describe(start)}")


def _describe(start: bytes) -> str:
    """Describe a file that cannot be read, and say what to do."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "it is empty; get it again"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer to the real file; fetch that with: git lfs pull"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "it is a web page, sent by the server instead of the file; look at the page, and get the file again"
    if start.startswith(b"\x1f\x8b") or start[257:262] == b"ustar":
        return "it is an archive; unpack it and name the file of weights in it"
    return f"it begins with {start[:12]!r}, which is none of these formats; get it again or name another file"


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Convert any exception of a reader of a damaged file to a WeightsError of one line."""
    try:
        yield
    except ForeignPickleError as error:
        raise _refuse_pickle(path, error.name) from error
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # a system error, not a seek before the start of the file
        reason = " ".join(str(error).split())[:120] or "it ends too early"
        raise WeightsError(f"{path} is cut off or damaged ({reason}); get it again") from error


def _read_zip(file: BinaryIO, path: Path) -> Contents:
    with _damage_told(path), zipfile.ZipFile(file) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
        if KERAS_MEMBER in archive.namelist():
            return Contents(arrays=read_keras_archive(file, archive, where=path))
        if "constants.pkl" in names:
            raise WeightsError(
                f"{path} must hold tensors and nothing else; it is a TorchScript program; if you trust it, load "
                "it with torch.jit.load and save its state_dict() as .safetensors"
            )
        if "data.pkl" in names:
            return _of_torch(lambda choose: read_zipped(file, archive, choose=choose, where=path), path)
    raise WeightsError(
        f"{path} must be a file of weights ({_READABLE}); it is an archive; unpack it and name a file in it"
    )


def _read_plain(file: BinaryIO, path: Path) -> Contents:
    with _damage_told(path):
        return _of_torch(lambda choose: read_plain(file, choose=choose, where=path), path)


def _of_torch(read: Callable[[Choose], Arrays], path: Path) -> Contents:
    """Return the wanted arrays of a pickle, with the metadata in the rest."""
    states: list[State] = []

    def choose(content: object) -> Mapping[str, object]:
        states.append(state_in(content, where=str(path)))
        return states[0].tensors

    return Contents(arrays=read(choose), told=states[0].told)


def _read_hdf5(file: BinaryIO, path: Path) -> Contents:
    with _damage_told(path):
        return Contents(arrays=read_hdf5(file, file_bytes=file.seek(0, os.SEEK_END), where=path))


def _read_safetensors(file: BinaryIO, path: Path) -> Contents:
    try:
        return Contents(arrays=read_safetensors(file, where=path)[0])
    except ValueError as error:
        raise WeightsError(f"{path} is not a complete safetensors file ({error}); get it again") from error


def _refuse_pickle(path: Path, asked: str) -> WeightsError:
    what = f"asks to run {asked}" if asked else "is not one that torch.save wrote"
    return WeightsError(
        f"{path} must hold tensors and nothing else; this pickle {what}, and a pickle can run any program, so it is "
        "not opened; if you trust it, load it yourself and save its state_dict() as .safetensors"
    )


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, Path], Contents]], ...] = (
    (lambda start: start.startswith(HDF5_MAGIC), _read_hdf5),
    (lambda start: start.startswith(b"PK\x03\x04"), _read_zip),
    (lambda start: start[8:9] == b"{", _read_safetensors),
    (lambda start: start.startswith(b"\x80"), _read_plain),
)
