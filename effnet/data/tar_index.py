"""The pictures of a WebDataset shard: where in the tar file each lies, and its label.

Source: the WebDataset format: members of one sample stand together and share the name up to its first dot.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from effnet.data.decode import IMAGE_SUFFIXES
from effnet.errors import DataError
from effnet.system.text import printable

_SAMPLE = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)", re.DOTALL)
# Fields of KEY.json that may hold the label, the first that is there.
_JSON_LABELS = ("label", "cls", "class_name")
_MAX_LABEL_BYTES = 2**20


class Member(NamedTuple):
    """A picture of a shard: its name, where its bytes begin, how many they are, and its class by number or name."""

    name: str
    offset: int
    size: int
    label: int | str


class _Sample:
    """What the members of one key have told so far."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.seen: set[str] = set()
        self.picture: tarfile.TarInfo | None = None
        self.label: int | str | None = None


def list_members(file: BinaryIO, name: str) -> tuple[Member, ...]:
    """Lists the pictures of a tar file, in its order, by its headers alone; `name` is how errors call it.

    Raises:
        DataError: it is damaged, compressed or has no pictures, or a sample has no label or comes twice.
    """
    try:
        found = tuple(_members(file, name))
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{name} must be a whole, uncompressed tar file, but it cannot be read ({error}); make or copy it again"
        ) from error
    if not found:
        raise DataError(f"{name} must hold pictures (KEY.jpg or the like, each with KEY.cls), but it has none")
    return found


def _members(file: BinaryIO, name: str) -> Iterator[Member]:
    keys: set[str] = set()
    sample = _Sample("")
    # Uncompressed only: pictures are read at random.
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            match = _SAMPLE.fullmatch(info.name)
            if not info.isreg() or match is None:
                continue
            key, suffix = match[1], match[2].lower()
            if key != sample.key:
                yield from _finished(sample, name)
                if key in keys:
                    raise DataError(f"{name} must hold each key once, together, but {printable(key)} comes again later")
                keys.add(key)
                sample = _Sample(key)
            _add_(sample, info, suffix, archive, name)
        _check_end(file, archive.offset, name)
        yield from _finished(sample, name)


def _add_(sample: _Sample, info: tarfile.TarInfo, suffix: str, archive: tarfile.TarFile, name: str) -> None:
    if suffix in sample.seen:
        raise DataError(f"{name} must hold each member once, but {printable(info.name)} is in it twice")
    sample.seen.add(suffix)
    if f".{suffix}" in IMAGE_SUFFIXES:
        if sample.picture is not None:
            raise DataError(
                f"{name} must hold one picture a key, but {printable(sample.key)} has {printable(sample.picture.name)} "
                f"and {printable(info.name)}"
            )
        if info.issparse():
            raise DataError(f"{name} must store pictures in one piece, but {printable(info.name)} is a sparse file")
        sample.picture = info
    elif suffix in ("cls", "json"):
        label = _label(info, suffix, archive, name)
        if suffix == "cls" or sample.label is None:
            sample.label = label


def _label(info: tarfile.TarInfo, suffix: str, archive: tarfile.TarFile, name: str) -> int | str | None:
    member = archive.extractfile(info)
    if member is None or info.size > _MAX_LABEL_BYTES:
        raise DataError(f"{name}: {printable(info.name)} must hold a label, but has {info.size:,} bytes")
    try:
        text = member.read().decode("utf-8").strip()
        value: Any = text if suffix == "cls" else _json_label(json.loads(text))
    except ValueError as error:
        raise DataError(f"{name}: {printable(info.name)} must hold a label as text or JSON ({error})") from error
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        value = int(value)
    if value is None and suffix == "json":
        return None
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise DataError(
            f"{name}: {printable(info.name)} must hold the number or the name of a class, received {value!r}"
        )
    return value


def _json_label(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    return next((data[field] for field in _JSON_LABELS if data.get(field) is not None), None)


def _finished(sample: _Sample, name: str) -> Iterator[Member]:
    """Yields the sample if it has a picture; a label without one, or members of other kinds, are passed over."""
    info = sample.picture
    if info is None:
        return
    if sample.label is None:
        raise DataError(
            f"{name}: the picture {printable(info.name)} must have a label, {printable(sample.key)}.cls or "
            f"{printable(sample.key)}.json with one of {', '.join(_JSON_LABELS)} beside it; it has none "
            "(class folders in a tar file must be unpacked)"
        )
    yield Member(name=info.name, offset=info.offset_data, size=info.size, label=sample.label)


def _check_end(file: BinaryIO, offset: int, name: str) -> None:
    """Raises DataError where no end mark stands behind the last member: tarfile takes a cut there for the end."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise DataError(
            f"{name} must be a whole tar file, but it is cut off or damaged at byte {offset:,}; make or copy it again"
        )
