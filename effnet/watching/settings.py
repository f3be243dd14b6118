"""The settings of `effnet watch`. It imports nothing slow, as `--help` reads it."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from effnet.errors import InputError
from effnet.system.bounds import MAX_THREADS
from effnet.system.options import option


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How sources are watched; raises InputError for a value out of range."""

    PREFIX: ClassVar[str] = "watch"

    model: str = option("Bundle that answers.", default=dataclasses.MISSING, main=True, metavar="DIR")
    rule: tuple[str, ...] = option(
        "Rule such as 'person > 0.8 for 5s', 'count(car in road) >= 3 for 2s' or 'car crosses gate'; or the place that "
        "rules name, 'zone road = 0,0.5 1,0.5 1,1 0,1' or 'line gate = 0.5,0 0.5,1'; repeatable.",
        default=(), main=True, metavar="RULE", many=True,
    )  # fmt: skip
    max_fps: float = option(
        "Most frames of a source that are answered a second; 0: as many as possible.", default=5.0, main=True
    )
    events: str | None = option(
        "File to append the events to, a JSON object a line; standard output by default.", main=True, metavar="FILE"
    )
    snapshots: str | None = option(
        "Folder for an image of each event that starts; without it none is kept.", main=True, metavar="DIR"
    )
    webhook: str | None = option("Address that gets each event as JSON, by POST.", main=True, metavar="URL")
    metrics_port: int | None = option(
        "Port of /metrics and /health; 0: any free one. Without it and --view there is no server.", main=True
    )
    view: bool = option(
        "Serve a page of the latest answers and events, by default on port 8001.", main=True, default=False
    )
    use: str | None = option("Export to run, such as onnx-int8; by default the bundle's own.", metavar="FORMAT")
    workers: int = option("Engines of one thread; 0: one per core, at most one per source.", default=0)
    threshold: float | None = option("Score from which an object counts; the bundle's own by default.")
    smooth_seconds: float = option("Time constant of the average of probabilities and shares; 0: none.", default=0.5)
    hysteresis: float = option(
        "A rule on a probability or share ends only when the value is this far on the other side.", default=0.1
    )
    gap_seconds: float = option("A condition that fails for less than this still holds.", default=0.5)
    track_seconds: float = option("How long an object that is not found is still followed.", default=1.0)
    every_frame: bool = option("Write the answer to each frame as an event, too.", default=False)
    realtime: bool = option("Play video files at their own speed, as a camera would.", default=False)
    image_seconds: float = option("Time from one image of a folder to the next.", default=1.0)
    timeout_seconds: float = option("A stream that sends nothing for this long is opened again.", default=10.0)
    retry_seconds: float = option("Longest wait before a broken stream is opened again.", default=60.0)
    most_snapshots: int = option("Most files in --snapshots; the oldest are removed.", default=100)
    webhook_tries: int = option("Most times that an event is sent to --webhook.", default=4)
    host: str = option("Address of --view and --metrics-port.", default="127.0.0.1")

    def __post_init__(self) -> None:
        ranges = {
            "max_fps": (0, 1_000), "metrics_port": (0, 65_535), "workers": (0, MAX_THREADS), "threshold": (0, 1),
            "smooth_seconds": (0, 3_600), "hysteresis": (0, 1), "gap_seconds": (0, 3_600),
            "track_seconds": (0, 3_600), "image_seconds": (0.001, 86_400), "timeout_seconds": (0.1, 3_600),
            "retry_seconds": (0.1, 86_400), "most_snapshots": (1, 1_000_000), "webhook_tries": (1, 100),
        }  # fmt: skip
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise InputError(f"{name.replace('_', '-')} must lie in {least:g}..{most:g}; got {value:g}")

    @property
    def port(self) -> int | None:
        """The port of the server; None for no server."""
        return 8001 if self.metrics_port is None and self.view else self.metrics_port
