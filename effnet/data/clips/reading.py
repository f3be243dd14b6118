"""Decode videos with PyAV, an optional package that is imported only here."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import numpy as np

from effnet.data.images.limits import check_pixels
from effnet.errors import ImageError, MissingExtraError
from effnet.system.text import printable

# A video with so many damaged packets one after the other is broken.
_MOST_DAMAGED = 200


class BrokenVideo(Exception):
    """A video or stream cannot be opened or read on; the argument is the reason, without its address."""


def av_package() -> Any:
    """Return PyAV; raise MissingExtraError if it is not installed."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingExtraError("av", "video") from error
    # FFmpeg writes to standard error what is wrong with each packet.
    av.logging.set_level(None)
    return av


def video_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a video that cannot be read: those of FFmpeg are of several kinds."""
    return av_package().error.FFmpegError, OSError


def open_video(path: str | os.PathLike[str]) -> Any:
    """Open a video file; what it names, as a playlist does, may only be files."""
    # Without a scheme, a name such as "concat:a" would be read as one.
    return av_package().open(f"file:{os.path.abspath(path)}", options={"protocol_whitelist": "file"})


def video_stream(container: Any) -> Any:
    """Return the first video of an opened file; raise BrokenVideo if it has none."""
    if not container.streams.video:
        raise BrokenVideo("it has no video")
    return container.streams.video[0]


def decoded_frames(container: Any, stream: Any) -> Iterator[Any]:
    """Yield all frames of a stream: each packet must be decoded, as later ones refer to it.

    Damaged packets are left out; raises BrokenVideo if many come one after the other.
    """
    av, damaged = av_package(), 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except (av.error.InvalidDataError, ValueError) as error:
            damaged += 1
            if damaged >= _MOST_DAMAGED:
                raise BrokenVideo(f"{damaged} packets one after the other are damaged") from error
            continue
        damaged = 0 if frames else damaged
        yield from frames


def upright(frame: Any) -> np.ndarray:
    """Return a frame as its camera was held, uint8 [height, width, 3]; raise ImageError if it cannot be converted."""
    check_pixels(frame.width, frame.height)
    try:
        pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    except Exception as error:  # of FFmpeg, for a format of pixels that it cannot convert
        raise ImageError(f"a frame must be convertible to RGB; {printable(str(error))}") from error
    turns = 0
    with suppress(AttributeError):  # of older PyAV
        turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def reason_of(error: Exception) -> str:
    """Return why a video cannot be read, without its address, which may have a password."""
    text = getattr(error, "strerror", None) or type(error).__name__
    return printable(str(text).lower())


def clip_seconds(path: str | os.PathLike[str]) -> float:
    """Return the length of a video file; raise ImageError if it cannot be read."""
    with _named(path), closing(open_video(path)) as container:
        return _length(container, video_stream(container))


def sampled_frames(path: str | os.PathLike[str], count: int) -> list[np.ndarray]:
    """Return `count` evenly spaced frames of a video file, uint8 [height, width, 3]; raise ImageError if it has none.

    A video of fewer frames gives some of them more than once.
    """
    with _named(path):
        with closing(open_video(path)) as container:
            length = _length(container, video_stream(container))
        with closing(open_video(path)) as container:
            stream = video_stream(container)
            stream.thread_type = "AUTO"
            found: list[np.ndarray] = []
            last = None
            first = 0.0
            for number, frame in enumerate(decoded_frames(container, stream)):
                at = float(number) if frame.time is None else float(frame.time)
                first = at if last is None else first
                last = frame
                image = None
                while len(found) < count and at - first >= (len(found) + 0.5) * length / count:
                    image = upright(frame) if image is None else image
                    found.append(image)
            if last is None:
                raise BrokenVideo("it has no frame that can be decoded")
            if len(found) < count:  # what its header promised does not come
                found += [upright(last)] * (count - len(found))
            return found


def _length(container: Any, stream: Any) -> float:
    """Return the seconds of a video: those of its header, else from its first frame to its last."""
    if stream.duration is not None and stream.time_base is not None:
        return max(0.0, float(stream.duration * stream.time_base))
    times = [frame.time for frame in decoded_frames(container, stream) if frame.time is not None]
    return float(max(times) - min(times)) if times else 0.0


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what prevents reading a video into an ImageError that names it."""
    try:
        yield
    except BrokenVideo as error:
        raise ImageError(f"{printable(path)}: {error}") from error
    except video_errors() as error:
        raise ImageError(f"{printable(path)}: {reason_of(error)}") from error
