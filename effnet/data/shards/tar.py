"""List the images of a tar file: the position of each in the file, and its label.

Source: the WebDataset format: members of one sample are adjacent and share the name up to its first dot.
"""

import re
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from effnet.data.images.decode import IMAGE_SUFFIXES
from effnet.data.sound.record import SOUND_SUFFIXES
from effnet.errors import DataError
from effnet.system.files import parse_json
from effnet.system.text import printable

MAX_IMAGE_BYTES = 2**29
"""No encoded image of at most 100 million pixels comes near this size."""

_SAMPLE = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)", re.DOTALL)
# Fields of KEY.json that may hold the label; the first present one is used.
_JSON_LABELS = ("label", "cls", "class_name")
_MAX_LABEL_BYTES = 2**20
_MAX_CLASS_CHARACTERS = 1000
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# Headers before one member: long names, extended attributes. Real file names are far shorter.
_MAX_HEADER_BYTES = 2**16
_MAX_SHARED_HEADERS = 64
_MAX_NAME_CHARACTERS = 1024
# tarfile's patterns take quadratic time over digits (CVE-2024-6232); no file name has as many digits as this.
_MANY_DIGITS = re.compile(rb"\d{256}")


class Member(NamedTuple):
    """An image of a shard: its name, the offset and number of its bytes, and its label.

    That is its class by number or name or, of several outputs, a value for each by name.
    """

    name: str
    offset: int
    size: int
    label: int | str | dict[str, Any]


class _Sample:
    """The members of one key read so far."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.seen: set[str] = set()
        self.image: tarfile.TarInfo | None = None
        self.label: int | str | dict[str, Any] | None = None


class _Headers:
    """A file with a read limit for headers: tarfile trusts any size that a header states."""

    def __init__(self, file: BinaryIO) -> None:
        self.tell, self.seek = file.tell, file.seek
        self._file = file
        self.left = _MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError("a header is too long")
        self.left -= size
        data = self._file.read(size)
        if size > tarfile.BLOCKSIZE and _MANY_DIGITS.search(data):
            raise tarfile.ReadError("a header is damaged")
        return data


def list_members(file: BinaryIO, name: str) -> tuple[Member, ...]:
    """List the images of a tar file, in its order, from its headers alone; `name` is its name in errors.

    Raises:
        DataError: it is damaged, compressed or has no images, or a sample has no label or occurs twice.
        OSError: the disk fails.
    """
    found = tuple(_members(file, name))
    if not found:
        raise DataError(f"{name} must hold images (KEY.jpg or the like, each with KEY.cls), but it has none")
    return found


def _members(file: BinaryIO, name: str) -> Iterator[Member]:
    keys: set[str] = set()
    sample = _Sample("")
    for info in _infos(file, name):
        match = _SAMPLE.fullmatch(info.name)
        if not info.isreg() or match is None:
            continue
        key, suffix = match[1], match[2].lower()
        if key != sample.key:
            yield from _finished(sample, name)
            if key in keys:
                raise DataError(f"{name} must hold the members of a key together, but {_shown(key)} occurs again later")
            keys.add(key)
            sample = _Sample(key)
        _add_(sample, info, suffix, file, name)
    yield from _finished(sample, name)


def _infos(file: BinaryIO, name: str) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of a tar file; each must follow the previous one, with its contents inside the file."""
    length = file.seek(0, 2)
    file.seek(0)
    headers, archive, end = _Headers(file), None, 0
    while True:
        headers.left = _MAX_HEADER_BYTES
        try:
            if archive is None:  # uncompressed only: images are read at random
                archive = tarfile.TarFile(fileobj=headers)  # type: ignore[arg-type]
            info = archive.next()
        except OSError:
            raise
        # For damaged headers tarfile raises whatever its arithmetic does, such as IndexError or RecursionError.
        except Exception as error:
            raise _damaged(name, " ".join(str(error).split())[:200] or type(error).__name__) from error
        if info is None:
            break
        if archive.offset <= end or info.size < 0 or len(archive.pax_headers) > _MAX_SHARED_HEADERS:
            raise _damaged(name, f"the header at byte {info.offset:,} is damaged")
        if len(info.name) > _MAX_NAME_CHARACTERS:
            raise _damaged(name, f"the name at byte {info.offset:,} has {len(info.name):,} characters")
        end = archive.offset
        if info.offset_data + (0 if info.issparse() else info.size) > length and info.isreg():
            raise _damaged(name, f"{_shown(info.name)} extends beyond the end of the file at byte {length:,}")
        yield info
        archive.members.clear()  # type: ignore[attr-defined]  # they would be kept until the end, a million of them
    _check_end(file, archive.offset, name)


def _damaged(name: str, reason: str) -> DataError:
    return DataError(
        f"{name} must be a whole, uncompressed tar file, but it cannot be read ({reason}); make or copy it again"
    )


def _add_(sample: _Sample, info: tarfile.TarInfo, suffix: str, file: BinaryIO, name: str) -> None:
    if suffix in sample.seen:
        raise DataError(f"{name} must hold each member once, but {_shown(info.name)} is in it twice")
    sample.seen.add(suffix)
    image = f".{suffix}" in IMAGE_SUFFIXES
    if info.issparse() and (image or suffix in ("cls", "json")):
        raise DataError(f"{name} must store files in one piece, but {_shown(info.name)} is a sparse file")
    if image:
        if sample.image is not None and _is_sound(suffix) != _is_sound(sample.image.name.rpartition(".")[2]):
            if _is_sound(suffix):  # of an image with sound, the image
                return
        elif sample.image is not None:
            raise DataError(
                f"{name} must hold one image per key, but {_shown(sample.key)} has {_shown(sample.image.name)} "
                f"and {_shown(info.name)}"
            )
        if info.size > MAX_IMAGE_BYTES:
            raise DataError(
                f"{name} must hold images of at most {MAX_IMAGE_BYTES:,} bytes, but {_shown(info.name)} has "
                f"{info.size:,}; remove it"
            )
        sample.image = info
    elif suffix in ("cls", "json"):
        label = _label(info, suffix, file, name)
        if suffix == "cls" or sample.label is None:
            sample.label = label


def _is_sound(suffix: str) -> bool:
    return any(f".{suffix.lower()}" in found for found in SOUND_SUFFIXES.values())


def _label(info: tarfile.TarInfo, suffix: str, file: BinaryIO, name: str) -> int | str | dict[str, Any] | None:
    if info.size > _MAX_LABEL_BYTES:
        raise DataError(f"{name}: {_shown(info.name)} must hold a label, but has {info.size:,} bytes")
    file.seek(info.offset_data)
    try:
        text = file.read(info.size).decode("utf-8").strip()
        value: Any = text if suffix == "cls" else _json_label(parse_json(text))
    except ValueError as error:
        raise DataError(f"{name}: {_shown(info.name)} must hold a label as text or JSON ({error})") from error
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        value = int(value)
    if value is None and suffix == "json":
        return None
    if isinstance(value, dict):
        return value  # of several outputs; checked with those of all images
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise _no_class(name, info, value)
    if isinstance(value, str) and (len(value) > _MAX_CLASS_CHARACTERS or _CONTROL.search(value)):
        raise _no_class(name, info, value)
    return value


def _no_class(name: str, info: tarfile.TarInfo, value: Any) -> DataError:
    shown = ascii(value) if isinstance(value, str) else type(value).__name__
    shown = repr(value) if isinstance(value, bool | float) or value == "" else shown
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return DataError(f"{name}: {_shown(info.name)} must hold the number or the name of a class, received {shown}")


def _json_label(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    return next((data[field] for field in _JSON_LABELS if data.get(field) is not None), None)


def _finished(sample: _Sample, name: str) -> Iterator[Member]:
    """Yield the sample if it has an image; ignore a label without an image, and members of other kinds."""
    info = sample.image
    if info is None:
        return
    if sample.label is None:
        raise DataError(
            f"{name}: the image {_shown(info.name)} must have a label, {_shown(sample.key)}.cls or "
            f"{_shown(sample.key)}.json with one of {', '.join(_JSON_LABELS)} beside it; it has none "
            "(class folders in a tar file must be unpacked)"
        )
    # A name is shown and kept in reports, never opened, so an unprintable one is kept in its escaped form.
    yield Member(name=printable(info.name), offset=info.offset_data, size=info.size, label=sample.label)


def _check_end(file: BinaryIO, offset: int, name: str) -> None:
    """Raise DataError unless an end mark follows the last member: tarfile accepts a file truncated there."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise DataError(
            f"{name} must be a whole tar file, but it is truncated or damaged at byte {offset:,}; make or copy it again"
        )


def _shown(name: str) -> str:
    """Return a name as an error shows it: on one line, with the middle of a long name left out."""
    return printable(name if len(name) <= 160 else f"{name[:80]}...{name[-80:]}")
