"""Spectrograms and resampling against scipy, and against the formula of the bands written out."""

import math

import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from effnet.data.sound.record import Sound
from effnet.data.sound.resampling import resampled
from effnet.data.sound.spectrogram import log_mel, mel_bands, middle_window, random_window
from effnet.errors import DataError

SOUND = Sound()


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, count).astype(np.float32)


def slaney_mel(hz: float) -> float:
    return 3 * hz / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000, 6.4)


def slaney_hz(mel: float) -> float:
    return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def bands_by_formula(sound: Sound) -> np.ndarray:
    """Return the triangles of Slaney's filters, a number at a time."""
    low, high = slaney_mel(sound.low_hz), slaney_mel(sound.high_hz)
    ends = [slaney_hz(low + (high - low) * i / (sound.mels + 1)) for i in range(sound.mels + 2)]
    weights = np.zeros((sound.mels, sound.fft // 2 + 1))
    for band in range(sound.mels):
        left, middle, right = ends[band : band + 3]
        for bin_ in range(sound.fft // 2 + 1):
            hz = bin_ * sound.rate / sound.fft
            height = min((hz - left) / (middle - left), (right - hz) / (right - middle))
            weights[band, bin_] = max(0.0, height) * 2 / (right - left)
    return weights


def by_scipy(samples: np.ndarray, sound: Sound) -> np.ndarray:
    window = scipy.signal.get_window("hann", sound.window)
    before = (sound.fft - sound.window) // 2
    padded = np.pad(window, (before, sound.fft - sound.window - before))
    _, _, spectra = scipy.signal.stft(
        samples.astype(float), window=padded, nperseg=sound.fft, noverlap=sound.fft - sound.hop, boundary="zeros",
        padded=False,
    )  # fmt: skip
    powers = bands_by_formula(sound) @ np.abs(spectra * window.sum()) ** 2
    return 10 * np.log10(np.maximum(powers, 10 ** (sound.floor_db / 10)))[::-1]


@pytest.mark.parametrize("sound", [
    SOUND,
    Sound(rate=8000, window=200, hop=80, fft=256, mels=40, low_hz=0.0, high_hz=4000.0),
    Sound(rate=44_100, window=1102, hop=441, fft=2048, mels=80, low_hz=20.0, high_hz=16_000.0, floor_db=-80.0),
])  # fmt: skip
def test_it_equals_scipys_transform_and_the_formula_of_the_bands(sound: Sound) -> None:
    samples = noise(20 * sound.hop + 17)
    found, expected = log_mel(samples, sound), by_scipy(samples, sound)
    assert found.dtype == np.float32
    assert found.shape == (sound.mels, 1 + len(samples) // sound.hop)
    columns = min(found.shape[1], expected.shape[1])
    np.testing.assert_allclose(found[:, :columns], expected[:, :columns], atol=4e-5, rtol=0)  # dB: 1e-5 of a power
    np.testing.assert_allclose(mel_bands(sound), bands_by_formula(sound), atol=1e-7, rtol=1e-5)


def test_a_tone_is_in_the_row_of_its_pitch_and_high_tones_are_above() -> None:
    rows = []
    for hz in (200, 1000, 5000):
        tone = np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000).astype(np.float32)
        found = log_mel(tone, SOUND)
        rows.append(int(found[:, 50].argmax()))
        ends = [slaney_hz(mel) for mel in np.linspace(slaney_mel(50), slaney_mel(8000), 66)]
        assert abs(rows[-1] - (63 - int(np.argmin(np.abs(np.array(ends[1:-1]) - hz))))) <= 1
    assert rows[0] > rows[1] > rows[2]


def test_silence_and_what_is_shorter_than_a_window_are_the_floor_or_a_column() -> None:
    assert (log_mel(np.zeros(800, np.float32), SOUND) == -100).all()
    assert log_mel(noise(3), SOUND).shape == (64, 1)


def test_bands_without_a_frequency_are_refused() -> None:
    with pytest.raises(DataError, match="give fewer mels, or a larger fft"):
        mel_bands(Sound(mels=256))


@given(
    rate=st.sampled_from([8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000]),
    new_rate=st.sampled_from([8000, 16_000, 22_050, 32_000]),
    count=st.integers(1, 3000),
)
def test_resampling_equals_scipys(rate: int, new_rate: int, count: int) -> None:
    divisor = math.gcd(rate, new_rate)
    samples = noise(count)
    found = resampled(samples, rate=rate, new_rate=new_rate)
    expected = scipy.signal.resample_poly(samples.astype(float), new_rate // divisor, rate // divisor)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_uncommon_rates_are_resampled_to_their_length() -> None:
    assert len(resampled(noise(12_345), rate=12_345, new_rate=16_000)) == pytest.approx(16_000, abs=1)
    assert len(resampled(noise(0), rate=8000, new_rate=16_000)) == 0


def test_windows_are_of_one_size_wherever_they_are() -> None:
    sound = Sound(seconds=0.5)
    image = np.arange(1, 201, dtype=np.uint8)[None, :, None].repeat(64, axis=0)
    middle = middle_window(image, sound)
    assert middle.shape == (64, sound.frames, 1)
    assert middle[0, 0, 0] - 1 == 200 - middle[0, -1, 0] - 1
    starts = {int(random_window(image, sound, rng=np.random.default_rng(i))[0, 0, 0]) for i in range(300)}
    assert (min(starts), max(starts)) == (1, 200 - sound.frames + 1)
    short = image[:, :10]
    assert middle_window(short, sound).sum() == short.sum()
    places = {int(random_window(short, sound, rng=np.random.default_rng(i))[0].argmax()) for i in range(300)}
    assert (min(places), max(places)) == (9, sound.frames - 1)
