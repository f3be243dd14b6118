"""Decode videos and streams with PyAV, an optional package that is imported only here."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any

import numpy as np

from effnet.data.images.limits import check_pixels
from effnet.errors import ImageError, MissingExtraError
from effnet.system.text import printable
from effnet.watching.record import Frame
from effnet.watching.sources import Source

# A stream with so many damaged packets one after the other is broken.
_MOST_DAMAGED = 200
# FFmpeg must not follow what a playlist or a redirection names to another kind of place, such as a file.
_PROTOCOLS = {
    "file": "file",
    "stream": "rtp,rtsp,rtsps,srtp,udp,tcp,tls,tls_gnutls,http,https,httpproxy,rtmp,rtmpt,srt,crypto",
}
_CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}


class BrokenStream(Exception):
    """A source cannot be opened or read on; the argument is the reason."""


def frames_of(source: Source, *, timeout: float, clock: Callable[[], float] = time.monotonic) -> Iterator[Frame]:
    """Yield the frames of a video file, a camera or a stream until it ends; their images are converted when asked for.

    The time of a file's frames is that in the file, that of others is counted from the first by `clock`. Raises
    BrokenStream if the source cannot be opened, or sends nothing for `timeout` seconds.
    """
    av = _package()
    try:
        with closing(_opened(av, source, timeout)) as container:
            if not container.streams.video:
                raise BrokenStream("it has no video")
            stream = container.streams.video[0]
            # Threads that decode several frames at once would hold frames of a camera back.
            stream.thread_type = "SLICE" if source.live else "AUTO"
            start = None
            for frame in _decoded(av, container, stream):
                now = clock()
                start = now if start is None else start
                at = now - start if source.live or frame.time is None else float(frame.time)
                yield Frame(at=at, arrived=now, image=partial(_image, frame))
    except (av.error.FFmpegError, OSError) as error:
        raise BrokenStream(_reason(error)) from error


def _package() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingExtraError("av", "video") from error
    # FFmpeg writes to standard error what is wrong with each packet.
    av.logging.set_level(None)
    return av


def _opened(av: Any, source: Source, timeout: float) -> Any:
    limits = (timeout, timeout) if source.live else None
    if source.kind == "device":
        return av.open(_device(source.address), format=_CAMERAS.get(sys.platform), timeout=limits)
    options = {"protocol_whitelist": _PROTOCOLS[source.kind]}
    if source.kind == "file":
        # Without a scheme, a name such as "concat:a" would be read as one.
        return av.open(f"file:{os.path.abspath(source.address)}", options=options)
    if source.address.startswith(("rtsp:", "rtsps:")):
        options["rtsp_transport"] = "tcp"  # lost packets of UDP damage frames
    # What FFmpeg buffers makes answers late.
    return av.open(source.address, options=options | {"fflags": "nobuffer"}, timeout=limits)


def _device(address: str) -> str:
    return f"/dev/video{address}" if address.isdigit() and sys.platform == "linux" else address


def _decoded(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """Yield all frames: each packet must be decoded, as later ones refer to it."""
    damaged = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except (av.error.InvalidDataError, ValueError) as error:
            damaged += 1
            if damaged >= _MOST_DAMAGED:
                raise BrokenStream(f"{damaged} packets one after the other are damaged") from error
            continue
        damaged = 0 if frames else damaged
        yield from frames


def _image(frame: Any) -> np.ndarray:
    """Return a frame upright, uint8 [height, width, 3]."""
    check_pixels(frame.width, frame.height)
    try:
        pixels = frame.to_ndarray(format="rgb24")
    except Exception as error:  # of FFmpeg, for a format of pixels that it cannot convert
        raise ImageError(f"a frame must be convertible to RGB; {printable(str(error))}") from error
    turns = 0
    with suppress(AttributeError):  # of older PyAV
        turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _reason(error: Exception) -> str:
    """Return why a source cannot be read, without its address, which may have a password."""
    text = getattr(error, "strerror", None) or type(error).__name__
    return printable(str(text).lower())
