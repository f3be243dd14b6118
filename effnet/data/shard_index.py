"""Finds WebDataset shards by folder, pattern or URL, and reads the index beside them."""

import json
import os
import re
import urllib.error
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from effnet.data.fetching import Dropped, alone, complete, network_forbidden
from effnet.data.listing import SPLIT_NAMES, class_name
from effnet.data.places import INDEX, is_url
from effnet.data.shard_store import Shard, url_folder
from effnet.errors import DataError
from effnet.system.text import printable

FORMAT = 1

_INNERMOST = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_MOST_SHARDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """What the index beside shards says; without one nothing is known."""

    shards: tuple[Shard, ...] = ()
    class_names: tuple[str, ...] | None = None
    mirror_safe: bool = True


def locate(data: str) -> tuple[tuple[Shard, ...], ShardIndex]:
    """Returns the shards that DATA names, in order, with what an index beside them says.

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
    # A name may hold braces of its own.
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
    path = urlsplit(data).path
    if not path.endswith(".tar"):
        folder = data.removesuffix(INDEX).removesuffix("/")
        index = _remote_index(folder)
        if not index.shards:
            raise DataError(
                f"a URL must end in .tar or lead to a folder with {INDEX}, as `effnet shard` writes it; "
                f"there is none at {folder}/{INDEX}"
            )
        return index.shards, index
    urls = expand_braces(data)
    index = _remote_index(urls[0].rpartition("/")[0])
    return _known_by(index, urls), index


def expand_braces(pattern: str) -> tuple[str, ...]:
    """Returns the texts that a pattern with {a,b} and {000..011} stands for, in order, as a shell has them.

    Raises:
        DataError: a brace holds neither a list nor a range, or it is not closed.
    """
    found = [pattern]
    while any("{" in text or "}" in text for text in found):
        found = [new for text in found for new in _expand_one(text, pattern)]
        if len(found) > _MOST_SHARDS:
            raise DataError(f"a pattern must mean at most {_MOST_SHARDS:,} shards, {printable(pattern)} means more")
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
            raise DataError(f"a pattern must mean at most {_MOST_SHARDS:,} shards, {printable(pattern)} means more")
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
    """Returns the shards as the index knows them, and by their names alone those that it does not know.

    A split is a word of the name, as in train-000000.tar; or the folder's name, where there are several.
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
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return ShardIndex()
    except ValueError as error:
        raise DataError(f"{printable(path)} must be UTF-8 text ({error})") from error
    index = _parse_index(text, path, lambda name: os.path.join(folder, name))
    missing = [shard.name for shard in index.shards if not os.path.isfile(shard.location)]
    if missing:
        raise DataError(
            f"every shard that {printable(path)} lists must be beside it, but {len(missing)} of {len(index.shards)} "
            f"are not; the first is {missing[0]}"
        )
    return index


def _remote_index(folder: str) -> ShardIndex:
    """Returns what the index at a URL says; the copy of an earlier run where the network cannot be had."""
    url = f"{folder}/{INDEX}"
    place = url_folder(url) / INDEX
    part = place.with_name(f"{INDEX}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with alone(place.with_suffix(".lock")):
            if not network_forbidden():
                part.unlink(missing_ok=True)  # it is small, and may have changed
                complete(url, part)
                os.replace(part, place)
            text = place.read_text(encoding="utf-8")
    except urllib.error.HTTPError as error:
        if error.code in (403, 404, 410):
            return ShardIndex()
        raise DataError(f"{url} must be to be had, but the server answers {error.code} {error.reason}") from error
    except Dropped as error:
        if not place.exists():
            raise DataError(f"{url} cannot be downloaded ({error}); check the URL and the network") from error
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ShardIndex()
    except OSError as error:
        raise DataError(
            f"{url} cannot be kept in {place.parent} ({error.strerror}); set EFFNET_CACHE to another folder"
        ) from error
    return _parse_index(text, url, lambda name: f"{folder}/{name}")


def _parse_index(text: str, path: str, place: Callable[[str], str]) -> ShardIndex:
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']!r}, this effnet reads {FORMAT}")
        shards = tuple(_shard_row(row, place) for row in data["shards"])
        names = tuple(class_name(name) for name in data["class_names"])
        if len(set(names)) < len(names):
            raise ValueError("a class name comes twice")
        return ShardIndex(shards=shards, class_names=names, mirror_safe=bool(data.get("mirror_safe", True)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{printable(path)} must be an index as `effnet shard` writes it, but it is not ({error!r}); "
            "write the shards anew, or remove it"
        ) from error


def _shard_row(row: Any, place: Callable[[str], str]) -> Shard:
    file, split = row["file"], row["split"]
    if os.path.basename(file) != file or not file.endswith(".tar") or split not in ("", "train", "val", "test"):
        raise ValueError(f"not a shard beside it: {row!r}")
    shard = _make_shard(place(file), split=split)
    return replace(shard, size_bytes=int(row["size_bytes"]), count=int(row["count"]), sha256=str(row["sha256"]))
