"""Download one file over HTTP: resumed if the connection breaks, limited in bytes, time and attempts.

The server is not trusted: its response may be endless, slow, damaged, or not the file at all.
"""

import json
import os
import re
import time
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.system.files import read_json
from effnet.system.http import Dropped, Pace, Refused, StatusError, TooLarge, Unreachable, request

_CHUNK_BYTES = 1 << 18
# After a connection that brings this much, or a hundredth of the file, the next one is made at once.
_PROGRESS_BYTES = 1 << 20
_MAX_CONNECTIONS = 1000
_TAG_BYTES = 10_000
# Status codes of a server that is busy or restarting. Source: RFC 9110, sections 15.5.9 and 15.6; RFC 6585, section 4.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_PAGE = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--", b"<?xml")
_PAGE_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a download continues while little data arrives.

    A connection is closed if fewer than `min_bytes_per_s` arrive in `silence_s`. The download fails after `tries`
    connections in a row, or `give_up_s`, that bring little. `clock` returns seconds, `sleep` waits for seconds.
    """

    silence_s: float = 20.0
    min_bytes_per_s: float = 1000.0
    tries: int = 5
    first_wait_s: float = 0.5
    give_up_s: float = 40.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


PATIENCE = Patience()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    url: str
    part: Path
    limit_bytes: int
    size_bytes: int
    hashed: bool
    progress: Callable[[int, int], None] | None
    admit: Callable[[int], int] | None
    patience: Patience


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tag:
    """Identifiers of one version of a remote file; `total` is its size in bytes, 0 if unknown."""

    etag: str = ""
    modified: str = ""
    total: int = 0

    @property
    def validator(self) -> str:
        """A value for If-Range: not a weak ETag, which does not guarantee equal bytes (RFC 9110, section 13.1.5)."""
        found = self.etag if self.etag.startswith('"') else self.modified
        return found if found.isascii() and found.isprintable() else ""


def complete(
    url: str,
    part: Path,
    *,
    limit_bytes: int,
    size_bytes: int = 0,
    hashed: bool = False,
    admit: Callable[[int], int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    patience: Patience | None = None,
) -> str:
    """Complete the file `part` from `url` and return the MD5 that the server names, or an empty string.

    A file that has not exactly `size_bytes`, if given, or has more than `limit_bytes` is refused before the first byte
    is stored if the server announces its size, and cut off otherwise. Parts of two versions of the file are never
    joined: a download is resumed only if the server distinguishes versions, or if it is `hashed`, which means that the
    caller checks its hash. `admit` is called with the size of the file, 0 if unknown, before bytes are stored; it
    returns the number of bytes that may be stored. `progress` is called with the bytes so far and the total, 0 if
    unknown.

    Raises StatusError for an error status, Refused if the response may not be stored (nothing is kept of it), Dropped
    if the connection fails too often (the received bytes are kept, and the next call resumes).
    """
    job = _Job(
        url=url, part=part, limit_bytes=limit_bytes, size_bytes=size_bytes, hashed=hashed, progress=progress,
        admit=admit, patience=patience or PATIENCE,
    )  # fmt: skip
    patience, begun = job.patience, size_on_disk(part)
    best, tries, since, connections = begun, 0, patience.clock(), 0
    while connections < _MAX_CONNECTIONS:
        connections += 1
        failure = _attempt(job)
        if isinstance(failure, str):
            return failure
        size = size_on_disk(part)
        if isinstance(failure, Unreachable) and max(best, size) == begun:
            raise failure  # no network: waiting would not help
        if size - best >= _worthwhile(job):
            best, tries, since = size, 0, patience.clock()
            continue
        best, tries = max(best, size), tries + 1
        wait_s = patience.first_wait_s * 2 ** (tries - 1)
        if tries >= patience.tries or patience.clock() + wait_s - since > patience.give_up_s:
            break
        patience.sleep(wait_s)
    if isinstance(failure, StatusError):
        raise failure
    raise Dropped(f"{failure}; gave up after {connections} connections" if connections > 1 else str(failure))


def discard(part: Path) -> None:
    """Remove an unfinished download."""
    part.unlink(missing_ok=True)
    _tag_path(part).unlink(missing_ok=True)


def size_on_disk(path: Path) -> int:
    """Return the size of a file in bytes, 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def _worthwhile(job: _Job) -> int:
    """Return the number of bytes a connection must bring for the next one to be made at once."""
    total = _read_tag(job.part).total or job.size_bytes
    return min(_PROGRESS_BYTES, -(-total // 100)) if total else _PROGRESS_BYTES


def _attempt(job: _Job) -> str | Dropped | StatusError:
    """Make one connection; return the server's MD5, or a failure after which another attempt may succeed."""
    try:
        md5 = _receive(job)
    except StatusError as error:
        if error.code not in _PASSING:
            raise
        return error
    except Refused:
        discard(job.part)
        raise
    except Dropped as error:
        return error
    _tag_path(job.part).unlink(missing_ok=True)
    return md5


def _receive(job: _Job) -> str:
    """Make one connection and append the received bytes; raise Dropped if it ends too soon."""
    start, tag = size_on_disk(job.part), _read_tag(job.part)
    if not start or not (tag.validator or job.hashed):
        discard(job.part)  # no way to tell whether the rest belongs to it
        start, tag = 0, _Tag()
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and tag.validator:
        headers["If-Range"] = tag.validator
    patience = job.patience
    pace = Pace(silence_s=patience.silence_s, min_bytes_per_s=patience.min_bytes_per_s, clock=patience.clock)
    try:
        response = request(job.url, headers, pace=pace)
    except StatusError as error:
        if error.code != 416 or not start:
            raise
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(start):
            return _server_md5(error.headers)
        discard(job.part)  # longer than the file that the server has now
        return _receive(job)
    with response:
        found = _tag_of(response.headers)
        if response.status == 206 and start:
            total = _resumed_total(job, response.headers, start=start, tag=tag, found=found)
        elif response.status == 200:
            start, total = 0, _announced(response)
            discard(job.part)
        else:
            raise Refused(f"the server returned status {response.status} to a request for a file")
        _check_encoding(job.url, response.headers)
        most = _most_bytes(job, total)
        if not start:
            _write_tag(job.part, _Tag(etag=found.etag, modified=found.modified, total=total))
        done = _store(job, response, pace, start=start, total=total, most=most)
        if done < (total or job.size_bytes):
            raise Dropped(f"the connection ended after {done:,} of {total or job.size_bytes:,} bytes")
        return _server_md5(response.headers)


def _store(job: _Job, response: Any, pace: Pace, *, start: int, total: int, most: int) -> int:
    """Append the body to the part and return the part's size in bytes; store at most `most` bytes."""
    done, head = start, b""
    with open(job.part, "ab" if start else "xb") as file:
        while chunk := pace.guard(response.read1, _CHUNK_BYTES):
            pace.stored(len(chunk))
            done += len(chunk)
            if done > most:
                raise TooLarge(f"it must have at most {most:,} bytes, but the server sends more")
            if not start and len(head) < _PAGE_BYTES:
                head += chunk[:_PAGE_BYTES]
                _check_head(head)
            file.write(chunk)
            if job.progress:
                job.progress(done, total)
        file.flush()
        os.fsync(file.fileno())
    return done


def _check_head(head: bytes) -> None:
    """Raise Refused for a web page: sites that require a login, or lost the file, send one in place of the file."""
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE):
        raise Refused("the server sends a web page instead")


def _check_encoding(url: str, headers: Any) -> None:
    encoding = headers.get("Content-Encoding", "").strip().lower()
    # Some servers declare the compression of the file itself as Content-Encoding.
    its_own = encoding in ("gzip", "x-gzip") and url.partition("?")[0].endswith((".gz", ".tgz"))
    if encoding not in ("", "identity") and not its_own:
        raise Refused(f"the server must send the file unencoded, but its Content-Encoding is {encoding[:40]!r}")


def _announced(response: Any) -> int:
    """Return the size in bytes that a complete response announces, 0 if it announces none."""
    text = response.headers.get("Content-Length")
    if text is None or response.chunked:
        return 0
    if not re.fullmatch(r"\d{1,18}", text.strip()):
        raise Refused(f"the Content-Length must be a number of bytes; the server sent {text[:40]!r}")
    return int(text)


def _resumed_total(job: _Job, headers: Any, *, start: int, tag: _Tag, found: _Tag) -> int:
    """Return the size of the whole file; raise Dropped, and discard the part, if the response is of another file.

    Source: RFC 9110, section 14.4 (Content-Range).
    """
    match = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    total = 0 if match is None or match[3] == "*" else int(match[3])
    same = all(
        not old or not new or old == new for old, new in ((tag.etag, found.etag), (tag.modified, found.modified))
    )
    if match is None or int(match[1]) != start or not same or (tag.total and total and total != tag.total):
        discard(job.part)
        raise Dropped("the server sent a range that was not requested, or one of another file; restarting")
    return total or tag.total or int(match[2]) + 1


def _most_bytes(job: _Job, total: int) -> int:
    """Return the maximum size of the file in bytes; raise Refused if the server announces another or a larger size."""
    if total and job.size_bytes and total != job.size_bytes:
        raise Refused(f"it must have {job.size_bytes:,} bytes, but the server announces {total:,}")
    size = total or job.size_bytes
    if size > job.limit_bytes:
        raise TooLarge(f"it must have at most {job.limit_bytes:,} bytes, but has {size:,}")
    admitted = job.admit(size) if job.admit else job.limit_bytes
    return size or min(job.limit_bytes, admitted)


def _tag_path(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _tag_of(headers: Any) -> _Tag:
    return _Tag(etag=headers.get("ETag", "")[:500], modified=headers.get("Last-Modified", "")[:100])


def _write_tag(part: Path, tag: _Tag) -> None:
    text = json.dumps({"etag": tag.etag, "modified": tag.modified, "total": tag.total})
    _tag_path(part).write_text(text, encoding="utf-8")


def _read_tag(part: Path) -> _Tag:
    try:
        data = read_json(_tag_path(part), limit_bytes=_TAG_BYTES)
        return _Tag(etag=str(data["etag"]), modified=str(data["modified"]), total=int(data["total"]))
    except (OSError, ValueError, KeyError, TypeError):
        return _Tag()


def _server_md5(headers: Any) -> str:
    """Return the MD5, in hexadecimal, that Google Cloud Storage sends with a file, or an empty string."""
    found = re.search(r"\bmd5=([\w+/]{22}==)", ",".join(headers.get_all("x-goog-hash", [])), re.ASCII)
    return b64decode(found[1]).hex() if found else ""
