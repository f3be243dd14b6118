"""The parameters by which a sound becomes a spectrogram: a part of a bundle's preprocessing."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from effnet.errors import DataError, InputError, nearest, shown

SOUND_SUFFIXES = {"WAV": frozenset({".wav", ".wave"}), "FLAC": frozenset({".flac"}), "OGG": frozenset({".ogg", ".oga"})}
"""The formats of sounds that are read, and their suffixes."""

MOST_FFT = 2**16
"""The most samples of a Fourier transform."""

# The most values of the spectrogram of a window.
_MOST_VALUES = 2**22
_BOUNDS = {
    "rate": (1_000, 192_000), "seconds": (0.05, 600.0), "window": (16, MOST_FFT), "hop": (1, MOST_FFT),
    "fft": (16, MOST_FFT), "mels": (8, 512), "low_hz": (0.0, 96_000.0), "high_hz": (1.0, 96_000.0),
    "floor_db": (-300.0, 0.0),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A window of `seconds` at `rate` Hz as an image: `mels` rows, the highest band first, and a column each `hop`.

    `window` (of Hann), `hop` and `fft` are in samples, `low_hz` to `high_hz` is the range of the bands, and decibels
    below `floor_db` count as that. Raises DataError for a value out of range.
    """

    rate: int = 16_000
    seconds: float = 2.0
    window: int = 400
    hop: int = 160
    fft: int = 512
    mels: int = 64
    low_hz: float = 50.0
    high_hz: float = 8_000.0
    floor_db: float = -100.0

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            value, whole = getattr(self, name), isinstance(least, int)
            if type(value) not in ((int,) if whole else (int, float)) or not least <= value <= most:
                kind = "a whole number" if whole else "a number"
                raise DataError(f"{name} of sounds must be {kind} from {least:,} to {most:,}, received {shown(value)}")
        if self.window > self.fft:
            raise DataError(f"window of sounds must be at most fft, {self.fft} samples, received {self.window}")
        if not self.low_hz < self.high_hz <= self.rate / 2:
            raise DataError(
                f"low_hz of sounds must be below high_hz, and that at most half the rate, {self.rate / 2:g}; received "
                f"{self.low_hz:g} and {self.high_hz:g}"
            )
        if self.mels * self.frames > _MOST_VALUES:
            raise DataError(
                f"the spectrogram of a window must have at most {_MOST_VALUES:,} values, received {self.mels} bands x "
                f"{self.frames:,} columns: give less seconds"
            )

    @property
    def frames(self) -> int:
        """The number of columns of a window's spectrogram."""
        return 1 + math.floor(self.seconds * self.rate) // self.hop

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serializable dict that from_dict reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Sound":
        """Read the result of to_dict; raise DataError for anything else."""
        if not isinstance(values, Mapping):
            raise DataError(f"the parameters of sounds must be an object, received {shown(values)}")
        known = [field.name for field in fields(cls)]
        if wrong := [key for key in values if key not in known]:
            raise DataError(
                f"sounds have the parameters {', '.join(known)}, received {shown(wrong[0])}"
                f"{nearest(str(wrong[0]), known)}"
            )
        return cls(**values)


def read_asked_sound(text: str) -> dict[str, Any]:
    """Return the parameters that a text such as "seconds=3,mels=80" sets; raise InputError for anything else."""
    values: dict[str, Any] = {}
    known = {name: int if isinstance(least, int) else float for name, (least, _) in _BOUNDS.items()}
    for part in filter(None, text.split(",")):
        name, _, value = (word.strip() for word in part.partition("="))
        try:
            values[name] = known[name](value)
        except (KeyError, ValueError) as error:
            hint = nearest(name, known) if name not in known else ""
            raise InputError(
                f"sound must set parameters ({', '.join(known)}) as in seconds=3,mels=80; got {shown(part)}{hint}"
            ) from error
    return values


def suited_sound(rates: list[int], seconds: list[float], asked: Mapping[str, Any]) -> Sound:
    """Return the parameters for files with these rates and lengths, with those of `asked`.

    The rate is the lowest, at most 32 kHz: no file then has a band that is empty for its rate, by which a network would
    tell recorders apart. The window is the median length, at most 10 seconds. Spectra are of 25 ms, each 10 ms.
    Raises DataError for parameters that do not fit together.
    """
    rate = asked.get("rate") or max(_BOUNDS["rate"][0], min(32_000, *rates))
    middle = sorted(seconds)[len(seconds) // 2]
    window = asked.get("window") or max(16, round(0.025 * rate))
    chosen: dict[str, Any] = {
        "rate": rate,
        "seconds": round(min(10.0, max(0.25, middle)), 2),
        "window": window,
        "hop": max(1, round(0.010 * rate)),
        "fft": 2 ** math.ceil(math.log2(window)),
        "high_hz": rate / 2,
    }
    return replace(Sound(), **(chosen | dict(asked)))
