"""Spectrograms with mel bands, in numpy: the same on the device as in training."""

import functools

import numpy as np

from effnet.data.sound.record import Sound
from effnet.errors import DataError

# Columns whose Fourier transforms are computed together: a few megabytes.
_TOGETHER = 1024
# Below this frequency the scale of bands is linear, with this many hertz a band; above, its step is a factor.
_BREAK_HZ, _LINEAR_HZ, _LOG_STEP = 1000.0, 200 / 3, np.log(6.4) / 27


def log_mel(samples: np.ndarray, sound: Sound) -> np.ndarray:
    """Return float32 decibels [mels, columns], the highest band first, of float32 samples [n] at the sound's rate.

    Column i is centred on sample i * hop, with zeros outside the samples. It equals librosa's power_to_db of
    feature.melspectrogram (pad_mode="constant", top_db=None) with its rows reversed.
    """
    half, columns = sound.fft // 2, 1 + len(samples) // sound.hop
    padded = np.pad(np.asarray(samples, np.float32), half)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, sound.fft)[:: sound.hop][:columns]
    window, bands = _hann(sound.window, sound.fft), mel_bands(sound)
    powers = np.empty((sound.mels, columns), np.float32)
    for start in range(0, columns, _TOGETHER):
        spectra = np.fft.rfft(pieces[start : start + _TOGETHER] * window)
        powers[:, start : start + _TOGETHER] = bands @ (spectra.real**2 + spectra.imag**2).T
    decibels = 10 * np.log10(np.maximum(powers, np.float32(10 ** (sound.floor_db / 10))))
    return np.maximum(decibels[::-1], np.float32(sound.floor_db))  # the logarithm rounds


def has_bands(sound: Sound) -> bool:
    """Return whether every band has a frequency of the Fourier transform."""
    try:
        return bool(len(mel_bands(sound)))
    except DataError:
        return False


@functools.lru_cache(maxsize=8)
def mel_bands(sound: Sound) -> np.ndarray:
    """Return the weights float32 [mels, fft / 2 + 1] of each band, the lowest first; each triangle has the area 1 Hz.

    Source: M. Slaney, "Auditory Toolbox", Interval Research report 1998-010; the default of librosa.filters.mel.
    Raises DataError if a band is so narrow that it has no frequency of the Fourier transform.
    """
    frequencies = np.arange(sound.fft // 2 + 1) * (sound.rate / sound.fft)
    ends = _to_hz(np.linspace(_to_mel(sound.low_hz), _to_mel(sound.high_hz), sound.mels + 2))
    low, middle, high = ends[:-2, None], ends[1:-1, None], ends[2:, None]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    weights = np.maximum(0, np.minimum(rising, falling)) * (2 / (high - low))
    if not weights.max(axis=1).all():
        raise DataError(
            f"every band of a spectrogram must have a frequency; of {sound.mels} bands from {sound.low_hz:g} Hz some "
            f"have none with fft={sound.fft}: give fewer mels, or a larger fft"
        )
    return weights.astype(np.float32)


def _to_mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ
    return float(_BREAK_HZ / _LINEAR_HZ + np.log(hz / _BREAK_HZ) / _LOG_STEP)


def _to_hz(mels: np.ndarray) -> np.ndarray:
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mels - _BREAK_HZ / _LINEAR_HZ))
    return np.where(mels < _BREAK_HZ / _LINEAR_HZ, mels * _LINEAR_HZ, above)


@functools.lru_cache(maxsize=8)
def _hann(length: int, size: int) -> np.ndarray:
    """Return the periodic window of Hann of this length, float32, in the middle of `size` numbers."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    before = (size - length) // 2
    return np.pad(window, (before, size - length - before)).astype(np.float32)


def middle_window(image: np.ndarray, sound: Sound) -> np.ndarray:
    """Return uint8 [mels, frames, 1]: the middle window of a spectrogram of any length, or all of it amid silence."""
    return _window(image, sound.frames, (image.shape[1] - sound.frames) // 2)


def random_window(image: np.ndarray, sound: Sound, *, rng: np.random.Generator) -> np.ndarray:
    """Return uint8 [mels, frames, 1]: a random window of a spectrogram, or all of it at a random place in silence."""
    most = image.shape[1] - sound.frames
    return _window(image, sound.frames, int(rng.integers(min(0, most), max(0, most) + 1)))


def _window(image: np.ndarray, frames: int, start: int) -> np.ndarray:
    """Return the columns from `start` on; those outside the image are 0, the floor."""
    result = np.zeros((image.shape[0], frames, *image.shape[2:]), image.dtype)
    part = image[:, max(0, start) : start + frames]
    place = max(0, -start)
    result[:, place : place + part.shape[1]] = part
    return result
