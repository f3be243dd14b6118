import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from effnet.data.images.decode import Decoding, decode_image, image_header, stored_values
from effnet.data.sound.record import Sound
from effnet.data.view.value_range import ValueRange
from effnet.errors import ImageError

soundfile = pytest.importorskip("soundfile")

SOUND = Sound(seconds=0.5)
READ = Decoding(channels=1, sound=SOUND, value_range=ValueRange(low=-80.0, high=20.0))


def tone(rate: int, *, seconds: float = 0.5, hz: float = 1000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def save(samples: np.ndarray, rate: int, *, format: str = "WAV", subtype: str = "PCM_24") -> bytes:  # noqa: A002
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=format, subtype=subtype)
    return stream.getvalue()


def decibels(data: bytes) -> np.ndarray:
    return next(stored_values(data, READ))[..., 0]


def test_every_rate_width_and_number_of_channels_gives_the_same_spectrogram() -> None:
    expected = decibels(save(tone(16_000), 16_000))[:, 5:-5]
    others = [
        save(tone(8000), 8000), save(tone(48_000), 48_000), save(tone(44_100), 44_100, subtype="PCM_16"),
        save(np.stack([tone(16_000)] * 2, axis=1), 16_000, subtype="FLOAT"),
        save(tone(16_000), 16_000, format="FLAC", subtype="PCM_16"),
        save(tone(16_000), 16_000, format="OGG", subtype="VORBIS"),
    ]  # fmt: skip
    loud = expected > expected.max() - 40
    assert 0 < loud.mean() < 0.3
    for number, data in enumerate(others):
        found = decibels(data)[:, 5:-5]
        assert found.shape == expected.shape
        assert np.abs(found - expected)[loud].max() < (0.5 if number < 5 else 3), number  # the last is lossy


def test_the_channels_of_opposite_phase_cancel_out() -> None:
    both = np.stack([tone(16_000), -tone(16_000)], axis=1)
    assert decibels(save(both, 16_000)).max() == -100


def test_pixels_are_decibels_in_the_value_range() -> None:
    data = save(tone(16_000), 16_000)
    pixels = decode_image(data, channels=1, sound=SOUND, value_range=READ.value_range)
    expected = np.rint((np.clip(decibels(data), -80, 20) + 80) * 2.55)
    np.testing.assert_allclose(pixels[..., 0], expected, atol=1)
    header = image_header(data, decoding=READ)
    assert (header.format, header.height, header.width, header.channels) == ("WAV", 64, SOUND.frames, 1)
    assert header.mode == "16,000 Hz mono"


def test_what_is_no_number_is_silence() -> None:
    broken = np.zeros(8000, np.float32)
    broken[100], broken[200] = np.nan, np.inf
    assert (decibels(save(broken, 16_000, subtype="FLOAT")) == -100).all()


def test_of_a_long_file_the_middle_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.data.sound.reading.MOST_SAMPLES", 1600)
    samples = np.concatenate([np.zeros(8000), tone(16_000, seconds=0.1), np.zeros(8000)])
    assert decibels(save(samples, 16_000)).shape[1] == 11
    assert decibels(save(samples, 16_000))[:, 3:-3].max(axis=0).min() > 0


@pytest.mark.parametrize("data, words", [
    (save(np.zeros(0), 16_000), "a sound must have samples; it has none"),
    (save(tone(16_000), 16_000)[:30], "the sound cannot be read"),
    (b"RIFF\x10\0\0\0WAVEfmt garbage", "the sound cannot be read"),
    (b"fLaC" + bytes(60), "the sound cannot be read|is damaged|none"),
    (b"OggS" + bytes(60), "the sound cannot be read"),
    (save(tone(16_000), 900_000), "must have a rate from 1,000 to 768,000 Hz"),
    (save(np.zeros((10, 65)), 16_000), "must have at most 64 channels; it has 65"),
])  # fmt: skip
def test_files_that_cannot_be_read_end_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as raised:
        decode_image(data, channels=1, sound=SOUND, value_range=READ.value_range)
    assert "\n" not in str(raised.value)


def test_a_header_that_promises_more_than_there_is_takes_no_memory() -> None:
    data = bytearray(save(tone(16_000), 16_000, subtype="PCM_16"))
    place = data.index(b"data") + 4
    struct.pack_into("<I", data, place, 2**31 - 8)
    assert decibels(bytes(data)).shape[1] <= 51


def test_damaged_files_are_read_or_refused() -> None:
    said: list[str] = []
    rng = np.random.default_rng(0)
    for format, subtype in (("WAV", "PCM_24"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")):  # noqa: A001
        whole = save(tone(16_000), 16_000, format=format, subtype=subtype)
        for _ in range(40):
            data = bytearray(whole[: int(rng.integers(20, len(whole)))])
            for place in rng.integers(4, len(data), 4):
                data[place] = rng.integers(0, 256)
            try:
                assert decode_image(bytes(data), channels=1, sound=SOUND, value_range=READ.value_range).shape[0] == 64
            except ImageError as error:
                said.append(str(error))
    assert len(said) > 10
    assert not any("\n" in text for text in said)


def test_sounds_and_images_are_not_taken_for_each_other(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(ImageError, match="it is a sound, but the others"):
        decode_image(save(tone(16_000), 16_000), channels=1)
    with pytest.raises(ImageError, match="it is an image, but the others"):
        decode_image(str(next(photos.glob("*/*.png"))), channels=1, sound=SOUND)


def test_without_the_package_it_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(tone(16_000), 16_000)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ImageError, match=r'it is a sound: .*pip install "effnet\[audio\]"'):
        decode_image(data, channels=1, sound=SOUND)
