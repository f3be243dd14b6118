"""How a clip is shown to a network of images: a part of a bundle's preprocessing."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from effnet.errors import DataError, shown

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})
"""The suffixes of files that are clips in a data set."""

FRAMES = 8
"""The frames of a clip that are shown, evenly spaced."""

_MOST_FRAMES, _SECONDS = 1_000, (0.01, 3_600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """The model answers to `frames` of a clip at once, by the mean of their features; the clips last `seconds`.

    Raises DataError for a value out of range.
    """

    seconds: float
    frames: int = FRAMES

    def __post_init__(self) -> None:
        if type(self.frames) is not int or not 1 <= self.frames <= _MOST_FRAMES:
            raise DataError(f"frames of clips must be from 1 to {_MOST_FRAMES:,}; got {shown(self.frames)}")
        if type(self.seconds) not in (int, float) or not _SECONDS[0] <= self.seconds <= _SECONDS[1]:
            raise DataError(
                f"seconds of clips must be from {_SECONDS[0]} to {_SECONDS[1]:,}; got {shown(self.seconds)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serializable dict that from_dict reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Clip":
        """Read the result of to_dict; raise DataError for anything else."""
        if not isinstance(values, Mapping) or not {"seconds"} <= set(values) <= {"seconds", "frames"}:
            raise DataError(f"clips must have seconds and frames; got {shown(values)}")
        return cls(**values)


def is_video(path: Any) -> bool:
    """Return whether a path has the suffix of a video."""
    return isinstance(path, str | os.PathLike) and os.path.splitext(os.fspath(path))[1].lower() in VIDEO_SUFFIXES
