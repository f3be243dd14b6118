"""Read the body of a request: bytes are counted while they come, and it must be whole within a time."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from effnet.errors import shown
from effnet.serving.http.errors import Gone, HttpError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# What a browser or a client library sends for one image is one part, at most a few fields more.
_MOST_PARTS, _MOST_PART_HEADER = 16, 8 * 1024


class BodyRoom:
    """The memory that the bodies of all requests share."""

    def __init__(self, size_bytes: int) -> None:
        self._free = size_bytes

    def take(self, size: int) -> None:
        """Reserve bytes; raise HttpError if there is no room for them."""
        if size > self._free:
            raise HttpError(
                503,
                "the bodies of all requests must fit the server's memory; too many come at once: send the request "
                "again in 1 s",
                rejection="body",
                headers={"retry-after": "1"},
            )
        self._free -= size

    def give(self, size: int) -> None:
        """Return reserved bytes."""
        self._free += size


class Body:
    """The body of one request, and its place in the room until `free` is called."""

    def __init__(self, room: BodyRoom) -> None:
        self.data = b""
        self._room, self._taken = room, 0

    async def read(self, receive: Receive, headers: Any, *, most: int, seconds: float) -> None:
        """Read it whole; raise HttpError if it is longer than `most` bytes or takes longer than `seconds`."""
        self._check_headers(headers, most)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    part, more = message.get("body", b""), message.get("more_body", False)
                    if self._taken + len(part) > most:
                        raise too_long(most, f"more than {most:,}")
                    self._room.take(len(part))
                    self._taken += len(part)
                    parts.append(part)
        except TimeoutError as error:
            raise HttpError(
                408, f"a request must be whole within {seconds:g} s; it was not: send it faster, or a smaller image",
                rejection="body", close=True,
            ) from error  # fmt: skip
        self.data = parts[0] if len(parts) == 1 else b"".join(parts)
        if not isinstance(self.data, bytes):
            self.data = bytes(self.data)

    def free(self) -> None:
        """Give its place in the room back."""
        self._room.give(self._taken)
        self.data, self._taken = b"", 0

    @staticmethod
    def _check_headers(headers: Any, most: int) -> None:
        length = headers.get("content-length")
        if length is not None and length.isdigit() and int(length[:20]) > most:
            raise too_long(most, f"{int(length[:20]):,}")
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            raise HttpError(
                415, f"a body must not be compressed; its content-encoding is {shown(coding)}: send it as it is",
                rejection="format",
            )  # fmt: skip


def too_long(most: int, found: str) -> HttpError:
    """Return the error for a body of more than `most` bytes."""
    # The connection stays open: the rest is read and dropped, as a client that still sends would see no answer.
    return HttpError(
        413, f"a body must have at most {most:,} bytes; it has {found}: send a smaller image", rejection="body"
    )


def image_in(data: bytes, content_type: str) -> bytes:
    """Return the image of a body: the body itself, or the one file of a form; raise HttpError for anything else."""
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    if kind == "multipart/form-data":
        return _file_of_form(data, _boundary(parameters))
    # Browsers and curl send a file under many types; what it is, its first bytes say.
    if kind.startswith("image/") or kind in ("", "application/octet-stream", "application/x-www-form-urlencoded"):
        return data
    raise HttpError(
        415,
        f"the content-type must be image/jpeg, image/png, image/webp or multipart/form-data; got {shown(kind)}",
        rejection="format",
    )


def _boundary(parameters: str) -> bytes:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "boundary" and 0 < len(value.strip().strip('"')) <= 70:
            return value.strip().strip('"').encode("latin-1", "replace")
    raise HttpError(400, "multipart/form-data must name its boundary, of 1 to 70 characters; it does not")


def _file_of_form(data: bytes, boundary: bytes) -> bytes:
    """Return the content of the only part with a file name. Source: RFC 7578 and RFC 2046, section 5.1."""
    # The first boundary may stand at the very start.
    parts = (b"\r\n" + data).split(b"\r\n--" + boundary, _MOST_PARTS + 1)
    if len(parts) > _MOST_PARTS + 1:
        raise HttpError(400, f"a form must have at most {_MOST_PARTS} parts; it has more: send one image")
    if len(parts) < 3 or not parts[-1].startswith(b"--"):
        raise HttpError(400, "a form must end with its boundary; this one does not: it is cut off or damaged")
    files = []
    for part in parts[1:-1]:
        header, blank, content = part.partition(b"\r\n\r\n")
        if not blank or len(header) > _MOST_PART_HEADER:
            raise HttpError(400, "each part of a form must have a header, and an empty line after it; one has not")
        if b"filename" in header.lower():
            files.append(content)
    if len(files) != 1:
        raise HttpError(400, f"a form must hold one file, the image; it holds {len(files)}: send a request for each")
    return files[0]
