"""What can be watched, from the words of the command line: images, folders, video files, webcams, network streams."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from effnet.data.images.decode import IMAGE_SUFFIXES
from effnet.errors import InputError, nearest
from effnet.system.text import brief, printable

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "udp", "rtp", "srt", "tcp")

_MOST_NAME = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One source: `address` is a path, a device or an URL, as it is opened. `shown` is it without user and password."""

    name: str
    kind: Literal["images", "file", "device", "stream"]
    address: str
    shown: str

    @property
    def live(self) -> bool:
        """Whether its frames come on their own, and it is opened again if it breaks."""
        return self.kind in ("device", "stream")


def read_sources(words: Sequence[str]) -> tuple[Source, ...]:
    """Return the sources that SOURCE or NAME=SOURCE words name; raise InputError for what is none."""
    found = []
    for word in words:
        name, equals, address = word.partition("=")
        if not equals or os.path.exists(word) or not re.fullmatch(r"[\w.-]+", name):
            name, address = "", word
        if not address or len(name) > _MOST_NAME:
            raise InputError(
                f"a source must be SOURCE or NAME=SOURCE, a name of at most 100 letters; got {brief(word)}"
            )
        found.append(_source(name, address))
    if not found:
        raise InputError("watch takes at least one source; got none")
    return _named(found)


def _source(name: str, address: str) -> Source:
    scheme = address.partition("://")[0].lower() if "://" in address else ""
    if scheme:
        if scheme not in SCHEMES:
            raise InputError(
                f"a stream must be one of {', '.join(f'{each}://' for each in SCHEMES)}; got {scheme}://"
                f"{nearest(scheme, SCHEMES)}"
            )
        shown = _without_password(address)
        return Source(name=name or urlsplit(shown).netloc or scheme, kind="stream", address=address, shown=shown)
    if re.fullmatch(r"\d{1,3}", address) and not os.path.exists(address):
        return Source(name=name or f"camera{address}", kind="device", address=address, shown=f"camera {address}")
    path = Path(address)
    shown, stem = printable(address), printable(path.stem or path.resolve().name)
    if not path.exists():
        raise InputError(
            f"a source must be an image, a folder of images, a video file, the number of a webcam or an address such "
            f"as rtsp://HOST/PATH; there is no {shown}"
        )
    if path.is_char_device():
        return Source(name=name or stem, kind="device", address=address, shown=shown)
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES - {".gif"}:
        return Source(name=name or stem, kind="images", address=address, shown=shown)
    if not path.is_file():
        raise InputError(f"a source must be a regular file, a folder or a camera; {shown} is none of them")
    return Source(name=name or stem, kind="file", address=address, shown=shown)


def _without_password(address: str) -> str:
    """Return an URL without its user, password and query: events and metrics must not have them."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return printable(urlunsplit((parts.scheme, host, parts.path, "", "")))


def _named(sources: Sequence[Source]) -> tuple[Source, ...]:
    """Return the sources with names that differ: a number follows a name that others have too."""
    every, met, found = Counter(source.name for source in sources), Counter[str](), []
    for source in sources:
        met[source.name] += 1
        again = every[source.name] > 1
        found.append(replace(source, name=f"{source.name}-{met[source.name]}") if again else source)
    if len({source.name for source in found}) < len(found):
        raise InputError("each source must have another name: write NAME=SOURCE")
    return tuple(found)
