"""The frames of video files, cameras and network streams, as they come."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

from effnet.data.clips.reading import (
    BrokenVideo,
    av_package,
    decoded_frames,
    open_video,
    reason_of,
    upright,
    video_errors,
    video_stream,
)
from effnet.watching.record import Frame
from effnet.watching.sources.source import Source

# FFmpeg must not follow what a playlist or a redirection names to another kind of place, such as a file.
_PROTOCOLS = "rtp,rtsp,rtsps,srtp,udp,tcp,tls,http,https,httpproxy,rtmp,rtmpt,srt,crypto"
_CAMERAS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}


def frames_of(source: Source, *, timeout: float, clock: Callable[[], float] = time.monotonic) -> Iterator[Frame]:
    """Yield the frames of a video file, a camera or a stream until it ends; their images are converted on demand.

    The time of a file's frames is that in the file, that of others is counted from the first by `clock`. Raises
    BrokenVideo if the source cannot be opened, or sends nothing for `timeout` seconds.
    """
    av = av_package()
    try:
        with closing(_opened(av, source, timeout)) as container:
            stream = video_stream(container)
            # Threads that decode several frames at once would hold frames of a camera back.
            stream.thread_type = "SLICE" if source.live else "AUTO"
            start = None
            for frame in decoded_frames(container, stream):
                now = clock()
                start = now if start is None else start
                at = now - start if source.live or frame.time is None else float(frame.time)
                yield Frame(at=at, arrived=now, image=partial(upright, frame))
    except video_errors() as error:
        raise BrokenVideo(reason_of(error)) from error


def _opened(av: Any, source: Source, timeout: float) -> Any:
    if source.kind == "file":
        return open_video(source.address)
    limits = (timeout, timeout)
    if source.kind == "device":
        return av.open(_device(source.address), format=_CAMERAS.get(sys.platform), timeout=limits)
    # What FFmpeg buffers makes answers late.
    options = {"protocol_whitelist": _PROTOCOLS, "fflags": "nobuffer"}
    if source.address.lower().startswith(("rtsp:", "rtsps:")):
        options["rtsp_transport"] = "tcp"  # lost packets of UDP damage frames
    return av.open(source.address, options=options, timeout=limits)


def _device(address: str) -> str:
    return f"/dev/video{address}" if address.isdigit() and sys.platform == "linux" else address
