"""Read sound files with soundfile, an optional package that is imported only here."""

from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from effnet.data.sound.record import Sound
from effnet.data.sound.resampling import resampled
from effnet.data.sound.spectrogram import log_mel
from effnet.errors import ImageError, MissingExtraError

START_BYTES = 12
"""The first bytes of a file that `sound_format` needs."""

MOST_SAMPLES = 2**24
"""The most samples that are read of a file, from its middle: at 48 kHz nearly six minutes."""

DECIBELS = "float32 dB"
"""The type of a spectrogram's values."""

_MOST_CHANNELS = 64
_RATES = (1_000, 768_000)
# Values of all channels that are read together.
_TOGETHER = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundHeader:
    """The rate in Hz, the channels and the number of samples of a file; `seconds` is its length."""

    rate: int
    channels: int
    samples: int

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.samples / self.rate


def sound_format(start: bytes) -> str:
    """Return the format of a sound file with these first bytes, or an empty string."""
    if start[:4] in (b"RIFF", b"RIFX", b"RF64") and start[8:12] == b"WAVE":
        return "WAV"
    return {b"fLaC": "FLAC", b"OggS": "OGG"}.get(start[:4], "")


def sound_header(stream: BinaryIO) -> SoundHeader:
    """Return the header of a sound file; raise ImageError if it has no samples, or is damaged."""
    with _opened(stream) as file:
        return _header(file)


def spectrogram_of(stream: BinaryIO, sound: Sound) -> np.ndarray:
    """Return float32 decibels [mels, columns, 1] of the whole file, its channels averaged.

    Of a longer file than MOST_SAMPLES its middle is read. Raises ImageError as `sound_header` does.
    """
    with _opened(stream) as file:
        header = _header(file)
        samples = _mono(file, header)
    if not len(samples):
        raise ImageError("a sound must have samples; it has none")
    return log_mel(resampled(samples, rate=header.rate, new_rate=sound.rate), sound)[..., None]


def bytes_needed(header: SoundHeader, sound: Sound) -> float:
    """Return about the memory that `spectrogram_of` takes."""
    read = min(header.samples, MOST_SAMPLES)
    kept = read * max(1.0, sound.rate / header.rate)
    return 4 * (2 * read + 3 * kept) + 8 * sound.mels * kept / sound.hop


def _opened(stream: BinaryIO) -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise ImageError(f"it is a sound: {MissingExtraError('soundfile', 'audio')}") from error
    try:
        return soundfile.SoundFile(stream)
    except (soundfile.LibsndfileError, TypeError) as error:
        why = str(getattr(error, "error_string", error)).strip().rstrip(".")
        raise ImageError(f"the sound cannot be read ({why}): save it again as WAV or FLAC") from error


def _header(file: Any) -> SoundHeader:
    header = SoundHeader(rate=int(file.samplerate), channels=int(file.channels), samples=int(file.frames))
    if header.samples < 1:
        raise ImageError("a sound must have samples; it has none")
    if not _RATES[0] <= header.rate <= _RATES[1]:
        raise ImageError(f"a sound must have a rate from {_RATES[0]:,} to {_RATES[1]:,} Hz; it has {header.rate:,}")
    if not 1 <= header.channels <= _MOST_CHANNELS:
        raise ImageError(f"a sound must have at most {_MOST_CHANNELS} channels; it has {header.channels:,}")
    return header


def _mono(file: Any, header: SoundHeader) -> np.ndarray:
    """Return float32 samples [n], the mean of the channels; what is no number counts as silence."""
    left, together = min(header.samples, MOST_SAMPLES), max(1, _TOGETHER // header.channels)
    parts: list[np.ndarray] = []
    try:
        if header.samples > left:
            file.seek((header.samples - left) // 2)
        while left > 0:
            part = file.read(min(left, together), dtype="float32", always_2d=True)
            if not len(part):  # the header promises more than there is
                break
            parts.append(np.nan_to_num(part.mean(axis=1), nan=0.0, posinf=0.0, neginf=0.0))
            left -= len(part)
    except RuntimeError as error:  # of libsndfile
        raise ImageError(f"the sound is damaged ({str(error).strip().rstrip('.')}): save it again") from error
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
