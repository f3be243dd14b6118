"""Find WebDataset shards by folder, pattern or URL, and read the index beside them."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from effnet.data.labels import class_name
from effnet.data.shards.cache import url_folder
from effnet.data.shards.file import Shard
from effnet.data.sources.names import INDEX, is_url
from effnet.data.sources.source import SPLIT_NAMES
from effnet.errors import DataError
from effnet.system.cache import network_forbidden
from effnet.system.download import complete, discard
from effnet.system.files import parse_json, read_bytes
from effnet.system.http import Dropped, Refused, StatusError, checked_url, shown_url
from effnet.system.lock import alone
from effnet.system.text import printable

FORMAT = 1

_INNERMOST = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})")
_MOST_SHARDS = 1_000_000
_MAX_INDEX_BYTES = 16 * 10**6
"""Enough for about 100,000 shards."""
_MOST_BYTES = 10**15


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """The contents of the index beside shards; the defaults if there is none."""

    shards: tuple[Shard, ...] = ()
    class_names: tuple[str, ...] | None = None
    mirror_safe: bool = True


def locate(data: str) -> tuple[tuple[Shard, ...], ShardIndex]:
    """Return the shards that DATA names, in order, and the index beside them.

    Raises:
        DataError: a shard does not exist, or the pattern or the index is not valid.
    """
    if is_url(data):
        return _locate_urls(data)
    if os.path.isdir(data):
        index = _local_index(data)
        if index.shards:
            return index.shards, index
        names = sorted(name for name in os.listdir(data) if name.endswith(".tar") and not name.startswith("."))
        return _known_by(index, [os.path.join(data, name) for name in names]), index
    # A file name may contain braces.
    paths = (data,) if os.path.exists(data) else expand_braces(data)
    index = _local_index(os.path.dirname(paths[0]))
    shards = _known_by(index, paths)
    missing = [shard.location for shard in shards if not os.path.isfile(shard.location)]
    if missing:
        raise DataError(
            f"every shard of {printable(data)} must exist, but {len(missing)} of {len(shards)} do not; the first is "
            f"{printable(missing[0])}"
        )
    return shards, index


def _locate_urls(data: str) -> tuple[tuple[Shard, ...], ShardIndex]:
    try:
        checked_url(data)
    except Refused as error:
        raise DataError(f"DATA must be a valid URL, but {error}; received {shown_url(data)}") from error
    path = urlsplit(data).path
    if not path.endswith(".tar"):
        folder = data.removesuffix(INDEX).removesuffix("/")
        index = _remote_index(folder)
        if not index.shards:
            raise DataError(
                f"a URL must end in .tar or name a folder with {INDEX}, as written by `effnet data shard`; "
                f"there is none at {shown_url(folder)}/{INDEX}"
            )
        return index.shards, index
    urls = expand_braces(data)
    index = _remote_index(urls[0].rpartition("/")[0])
    return _known_by(index, urls), index


def expand_braces(pattern: str) -> tuple[str, ...]:
    """Return the expansions of a pattern with {a,b} and {000..011}, in the order of a shell.

    Raises:
        DataError: a brace holds neither a list nor a range, or it is not closed.
    """
    found = [pattern]
    while any("{" in text or "}" in text for text in found):
        expanded = chain.from_iterable(_expand_one(text, pattern) for text in found)
        found = list(islice(expanded, _MOST_SHARDS + 1))
        if len(found) > _MOST_SHARDS:
            raise DataError(f"a pattern must name at most {_MOST_SHARDS:,} shards; {printable(pattern)} names more")
    return tuple(dict.fromkeys(found))


def _expand_one(text: str, pattern: str) -> Iterator[str]:
    match = _INNERMOST.search(text)
    if match is None:
        if "{" in text or "}" in text:
            raise DataError(f"every brace of a pattern must be closed, received {printable(pattern)}")
        yield text
        return
    limits = _RANGE.fullmatch(match[1])
    if limits:
        first, last = int(limits[1]), int(limits[2])
        padded = any(re.match(r"-?0\d", number) for number in limits.groups())
        width = max(len(limits[1]), len(limits[2])) if padded else 0
        step = 1 if last >= first else -1
        if abs(last - first) >= _MOST_SHARDS:
            raise DataError(f"a pattern must name at most {_MOST_SHARDS:,} shards; {printable(pattern)} names more")
        middle: Sequence[str] = [f"{number:0{width}d}" for number in range(first, last + step, step)]
    elif "," in match[1]:
        middle = match[1].split(",")
    else:
        raise DataError(
            f"a brace must hold a list {{a,b}} or a range {{000..011}}, received {{{printable(match[1])}}} in "
            f"{printable(pattern)}"
        )
    for part in middle:
        yield text[: match.start()] + part + text[match.end() :]


def _make_shard(location: str, *, split: str) -> Shard:
    return Shard(location=location, name=printable(os.path.basename(_path(location))), split=split)


def _path(location: str) -> str:
    return unquote(urlsplit(location).path) if is_url(location) else location


def _known_by(index: ShardIndex, locations: Sequence[str]) -> tuple[Shard, ...]:
    """Return the shards from the index, or from their names alone if they are not in it.

    The split is a word of the name, as in train-000000.tar, or of the folder's name if there are several folders.
    """
    known = {shard.location: shard for shard in index.shards}
    folders = {os.path.dirname(_path(location)) for location in locations}
    found = []
    for location in locations:
        folder, name = os.path.split(_path(location))
        split = _split_in(name) or (_split_in(os.path.basename(folder)) if len(folders) > 1 else "")
        found.append(known.get(location) or _make_shard(location, split=split))
    return tuple(found)


def _split_in(name: str) -> str:
    words = re.findall("[a-z]+", name.lower())
    splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return splits.pop() if len(splits) == 1 else ""


def _local_index(folder: str) -> ShardIndex:
    path = os.path.join(folder, INDEX)
    try:
        text = read_bytes(path, limit_bytes=_MAX_INDEX_BYTES)
    except FileNotFoundError:
        return ShardIndex()
    except OSError as error:
        raise DataError(f"{printable(path)} must be readable, but it is not ({error.strerror})") from error
    index = _parse_index(text, path, lambda name: os.path.join(folder, name))
    missing = [shard.name for shard in index.shards if not os.path.isfile(shard.location)]
    if missing:
        raise DataError(
            f"every shard that {printable(path)} lists must be beside it, but {len(missing)} of {len(index.shards)} "
            f"are not; the first is {missing[0]}"
        )
    return index


def _remote_index(folder: str) -> ShardIndex:
    """Return the index at a URL, or the cached copy of an earlier run if there is no network."""
    url = f"{folder}/{INDEX}"
    place = url_folder(url) / INDEX
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with alone(place.with_suffix(".lock")):
            if not network_forbidden():
                return _download_index(url, place, folder)
            return _read_index(place, url, folder)
    except FileNotFoundError:
        return ShardIndex()
    except OSError as error:
        raise DataError(
            f"{shown_url(url)} cannot be kept in {place.parent} ({error.strerror}); set EFFNET_CACHE to another folder"
        ) from error


def _download_index(url: str, place: Path, folder: str) -> ShardIndex:
    """Download the index at a URL; it replaces an earlier copy only if it is valid."""
    part, shown = place.with_name(f"{INDEX}.part"), shown_url(url)
    discard(part)  # it is small, and may have changed
    try:
        complete(url, part, limit_bytes=_MAX_INDEX_BYTES)
        index = _read_index(part, url, folder)
        os.replace(part, place)
        return index
    except StatusError as error:
        if error.code in (403, 404, 410):
            return ShardIndex()
        raise DataError(f"{shown} must be an index of shards, but the server returned {error}") from error
    except Refused as error:
        raise DataError(f"{shown} cannot be used as an index of shards: {error}; check the URL") from error
    except Dropped as error:
        if not place.exists():
            raise DataError(f"{shown} cannot be downloaded ({error}); check the URL and the network") from error
        return _read_index(place, url, folder)
    finally:
        discard(part)


def _read_index(path: Path, url: str, folder: str) -> ShardIndex:
    text = read_bytes(path, limit_bytes=_MAX_INDEX_BYTES)
    return _parse_index(text, shown_url(url), lambda name: f"{folder}/{name}")


def _parse_index(text: bytes, path: str, place: Callable[[str], str]) -> ShardIndex:
    try:
        data = parse_json(text)
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']!r}, this effnet reads {FORMAT}")
        shards = tuple(_shard_row(row, place) for row in data["shards"])
        names = tuple(class_name(name) for name in data["class_names"])
        if len(set(names)) < len(names):
            raise ValueError("a class name occurs twice")
        return ShardIndex(shards=shards, class_names=names, mirror_safe=bool(data.get("mirror_safe", True)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{printable(path)} must be an index written by `effnet data shard`, but it is not ({_brief(error)}); "
            "write the shards again, or remove it"
        ) from error


def _shard_row(row: Any, place: Callable[[str], str]) -> Shard:
    file, split, sha256 = row["file"], row["split"], row["sha256"]
    if os.path.basename(file) != file or not file.endswith(".tar") or split not in ("", "train", "val", "test"):
        raise ValueError(f"not a shard beside it: {row!r}")
    if not file.isprintable() or len(file) > 255:
        raise ValueError(f"not the name of a file: {file!r}")
    if not re.fullmatch("([0-9a-f]{64})?", sha256):
        raise ValueError(f"sha256 must be 64 digits of 0-9 and a-f, received {sha256!r}")
    shard = _make_shard(place(file), split=split)
    size, count = _whole(row, "size_bytes"), _whole(row, "count")
    return replace(shard, size_bytes=size, count=count, sha256=sha256)


def _whole(row: Any, field: str) -> int:
    value = row[field]
    if type(value) is not int or not 0 <= value <= _MOST_BYTES:
        raise ValueError(f"{field} must be a whole number in 0..{_MOST_BYTES:,}, received {value!r}")
    return value


def _brief(error: Exception) -> str:
    text = f"the field {error} is absent" if isinstance(error, KeyError) else str(error)
    return printable(text if len(text) <= 200 else f"{text[:200]}...")
