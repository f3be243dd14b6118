"""Read PyTorch's files without torch: zip archives, and the plain pickles from before 1.6.

A state dict's tensors are views of storages, parts of the file that its pickle refers to; only the wanted ones are
read. Source: torch/serialization.py (`_save`, `_legacy_save`), torch/_utils.py (`_rebuild_tensor_v2` and others).
"""

import io
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from effnet.bundle.declared import KINDS, Declared, check_declared, decode
from effnet.errors import WeightsError
from effnet.weights.readers.pickled import Call, Name, Outside, Pickle, read_pickle

MAX_PICKLE_BYTES = 4 * 10**6
"""Limit of a pickle; that of L2's weights, averages and optimizer state has a quarter of it."""

Choose = Callable[[Any], Mapping[str, Any]]
"""Selects the wanted tensors, by name, from the value of a pickle."""

_MAGIC_NUMBER, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_OF_STORAGES = {
    "Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16", "Long": "I64", "Int": "I32", "Short": "I16",
    "Char": "I8", "Byte": "U8", "Bool": "BOOL", "Untyped": "U8",
}  # fmt: skip
_OTHER_WIDTHS = {"ComplexDouble": 16, "ComplexFloat": 8, "QInt32": 4, "QInt8": 1, "QUInt8": 1, "QUInt4x2": 1}
_OF_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8",
    "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
}  # fmt: skip
# Names that training scripts store beside weights, unused here; a pickle with other names is refused.
_HARMLESS = re.compile(
    r"torch\.(\w+\.)*(\w*Storage|Size|device|dtype|layout|\w*Tensor|Parameter|Buffer|_get_layout|_rebuild\w*)"
    r"|torch\.(q?u?int|b?float|complex|bits|per_)\w+|torch\.(bool|half|double|long|short)"
    r"|collections\.(OrderedDict|defaultdict|Counter|deque)|_codecs\.encode|argparse\.Namespace"
    r"|(builtins|__builtin__)\.(set|frozenset|complex|bytearray|list|dict|tuple|int|float|str|bool|slice|range)"
    r"|numpy\.(_?core\.)?(multiarray|numeric)\.(scalar|_reconstruct|_frombuffer)|numpy\.(dtype|ndarray|float64|bool_)"
    r"|numpy\.dtypes\.\w+|pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path|datetime\.(datetime|date|timedelta)"
)
_REBUILT = re.compile(r"torch\.(_utils|_tensor)\._rebuild_(\w+)")
_PLAIN = ("tensor", "tensor_v2", "tensor_v3")
_MAX_WRAPPERS = 4


class ForeignPickleError(ValueError):
    """A pickle contains a name that weights do not need, `name`; it is empty if torch.save did not write it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"its pickle names {name}")
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Storage:
    """`count` numbers of one of KINDS, or an unsupported type (empty `kind`); a view begins at `start`."""

    key: str
    kind: str
    itemsize: int
    count: int
    start: int

    @property
    def size_bytes(self) -> int:
        return self.count * self.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """A tensor: every number of `shape`, at `offset` and in steps of `stride`, of a storage read as `kind`."""

    storage: _Storage
    kind: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def is_tensor(value: object) -> bool:
    """Return whether part of a pickle's value is a tensor, readable or not."""
    return isinstance(value, Call) and _REBUILT.fullmatch(value.name) is not None


def read_zipped(file: BinaryIO, archive: zipfile.ZipFile, *, choose: Choose, where: object) -> dict[str, np.ndarray]:
    """Return the arrays of the tensors that `choose` selects from an archive of torch.save, opened from `file`.

    Raises ValueError if it is damaged, ForeignPickleError if it contains names that weights do not need, WeightsError
    if a tensor has no numbers or needs more bytes than the file has.
    """
    names = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
    root = names[0].removesuffix("data.pkl")
    if len(names) > 1:
        raise ValueError("it has several pickles")
    if f"{root}byteorder" in archive.namelist() and _member(archive, f"{root}byteorder", most=8) != b"little":
        raise ValueError("it was written on a big-endian machine")
    pickle = _checked(read_pickle(io.BytesIO(_member(archive, names[0], most=MAX_PICKLE_BYTES))))

    def read(storage: _Storage) -> bytes:
        data = _member(archive, f"{root}data/{storage.key}", most=storage.size_bytes)
        if len(data) < storage.size_bytes:
            raise ValueError("a storage in it has too few bytes")
        return data

    return _arrays(choose(pickle.value), read, file_bytes=file.seek(0, os.SEEK_END), where=where)


def _member(archive: zipfile.ZipFile, name: str, *, most: int) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"it lacks {name[-60:]!r}") from None
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise ValueError("its parts are compressed, which torch never does")
    if info.file_size > most:
        raise ValueError(f"{name[-60:]!r} in it must have at most {most:,} bytes; it has {info.file_size:,}")
    return archive.read(info)


def read_plain(file: BinaryIO, *, choose: Choose, where: object) -> dict[str, np.ndarray]:
    """Return the arrays of the tensors that `choose` selects from consecutive pickles, as torch wrote them before 1.6.

    Raises the errors of `read_zipped`.
    """
    file_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    pickles = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    try:
        first = _checked(read_pickle(pickles)).value
        if first != _MAGIC_NUMBER or read_pickle(pickles).value != _PROTOCOL:
            raise ForeignPickleError("")
        told = read_pickle(pickles).value
        if isinstance(told, dict) and told.get("little_endian") is False:
            raise ValueError("it was written on a big-endian machine")
        pickle, keys = _checked(read_pickle(pickles)), read_pickle(pickles).value
    except ForeignPickleError:
        raise
    except ValueError as error:
        if file_bytes > MAX_PICKLE_BYTES and pickles.tell() == MAX_PICKLE_BYTES:
            raise ValueError(f"its pickle has more than {MAX_PICKLE_BYTES:,} bytes") from error
        raise
    storages = {storage.key: storage for storage in map(_storage, pickle.outside)}
    places, place = {}, pickles.tell()
    for key in keys if isinstance(keys, list) else ():
        storage = storages[_key(key)]
        places[storage.key] = place
        place += 8 + storage.size_bytes

    def read(storage: _Storage) -> bytes:
        if places[storage.key] + 8 + storage.size_bytes > file_bytes:
            raise ValueError("it ends too early")
        file.seek(places[storage.key])
        if int.from_bytes(file.read(8), "little") != storage.count:
            raise ValueError("a storage in it has another length than its pickle says")
        return file.read(storage.size_bytes)

    return _arrays(choose(pickle.value), read, file_bytes=file_bytes, where=where)


def _checked(pickle: Pickle) -> Pickle:
    for name in pickle.names:
        if not _HARMLESS.fullmatch(name):
            raise ForeignPickleError(name)
    return pickle


def _arrays(
    chosen: Mapping[str, Any], read: Callable[[_Storage], bytes], *, file_bytes: int, where: object
) -> dict[str, np.ndarray]:
    """Read each storage once, and copy the wanted views of it."""
    views = {name: _view(value, name=name, where=where) for name, value in chosen.items()}
    check_declared(
        (
            Declared(name=name, shape=view.shape, itemsize=np.dtype(KINDS[view.kind]).itemsize)
            for name, view in views.items()
        ),
        file_bytes=file_bytes,
        where=where,
    )
    users: dict[str, list[str]] = {}
    for name, view in views.items():
        if view.storage.size_bytes > file_bytes:
            raise ValueError("a storage in it is larger than the file")
        users.setdefault(view.storage.key, []).append(name)
    arrays: dict[str, np.ndarray] = {}
    for names in users.values():
        data = read(max((views[name].storage for name in names), key=lambda storage: storage.size_bytes))
        arrays |= {name: _copy(data, views[name]) for name in names}
    return {name: arrays[name] for name in views}


def _copy(data: bytes, view: _View) -> np.ndarray:
    numbers = np.frombuffer(data, KINDS[view.kind])
    steps = [(size - 1) * step for size, step in zip(view.shape, view.stride, strict=True)]
    if 0 in view.shape:
        numbers, last = numbers[:0], -1
    else:
        last = view.offset + sum(steps)
    if last >= len(numbers):
        raise ValueError("a tensor in it lies beyond its storage")
    width = numbers.itemsize
    shown = np.lib.stride_tricks.as_strided(
        numbers[view.offset :], view.shape, [step * width for step in view.stride], writeable=False
    )
    return decode(np.array(shown, order="C"), view.kind)


def _storage(outside: Outside) -> _Storage:
    """Parse the description of a storage in a pickle; raise ValueError for any other description."""
    try:
        _, named, key, _, count, *more = outside.description
        name = re.fullmatch(r"torch\.(?:\w+\.)*(\w+)Storage", named.text)[1]  # type: ignore[index]
        kind = _OF_STORAGES.get(name, "")
        width = np.dtype(KINDS[kind]).itemsize if kind else _OTHER_WIDTHS[name]
        start = more[0][1] if more and more[0] is not None else 0
        if type(count) is not int or type(start) is not int or not 0 <= start <= count < 2**48:
            raise ValueError
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError("a storage in it is described in another way than torch's") from error
    return _Storage(key=_key(key), kind=kind, itemsize=width, count=count, start=start)


def _key(key: object) -> str:
    if type(key) not in (str, int):
        raise ValueError("a storage in it has a name that is not text")
    return str(key)


def _view(value: object, *, name: str, where: object) -> _View:
    for _ in range(_MAX_WRAPPERS):
        if not is_tensor(value):
            raise ValueError("a tensor in it is described in another way than torch's")
        rebuilt, arguments = _REBUILT.fullmatch(value.name)[2], value.arguments  # type: ignore
        if rebuilt in _PLAIN:
            return _plain_view(arguments, name=name, where=where)
        if rebuilt in ("parameter", "parameter_with_state"):
            value = arguments[0]
        elif rebuilt == "from_type_v2" and isinstance(arguments[0], Name):
            value = Call(arguments[0].text, arguments[2])
        else:
            break
    raise _no_numbers(where, name, value.name.rpartition("_rebuild_")[2])  # type: ignore[attr-defined]


def _plain_view(arguments: tuple[Any, ...], *, name: str, where: object) -> _View:
    try:
        outside, offset, shape, stride, *more = arguments
        shape, stride = (sizes.arguments[0] if isinstance(sizes, Call) else sizes for sizes in (shape, stride))
        numbers = (offset, *shape, *stride)
        if len(shape) != len(stride) or any(type(number) is not int or not 0 <= number < 2**48 for number in numbers):
            raise ValueError
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError("a tensor in it is described in another way than torch's") from error
    storage = _storage(outside)
    dtype = next((extra for extra in more if isinstance(extra, Name)), None)
    kind = _OF_DTYPES.get(dtype.text.removeprefix("torch."), "") if dtype else storage.kind
    if not kind or any(
        isinstance(extra, dict) and extra for extra in more[2:]
    ):  # such as a pending conjugate or negative bit
        raise _no_numbers(where, name, dtype.text if dtype else outside.description[1].text)
    return _View(storage=storage, kind=kind, offset=offset + storage.start, shape=tuple(shape), stride=tuple(stride))


def _no_numbers(where: object, name: str, what: str) -> WeightsError:
    return WeightsError(f"{where}: {name} must be an array of numbers; got {what}; use the weights before quantization")
