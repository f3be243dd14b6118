from pathlib import Path

import numpy as np
import pytest

from effnet.data.datasets import read_dataset
from effnet.data.inspection.inspect import describe, inspect_and_join, inspect_dataset
from effnet.data.inspection.sounds import with_sound
from effnet.data.sound.record import Sound
from effnet.errors import DataError

soundfile = pytest.importorskip("soundfile")


def folder(root: Path, *, silent: bool = False, rates: tuple[int, ...] = (8000, 48_000)) -> Path:
    """Write twenty sounds of two classes, of half a second."""
    rng = np.random.default_rng(0)
    for number in range(20):
        rate = rates[number % len(rates)]
        path = root / ("hum" if number % 2 else "hiss") / f"{number}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = np.sin(np.arange(rate // 2) * 400 / rate) if number % 2 else rng.normal(0, 1, rate // 2)
        soundfile.write(path, np.zeros(rate // 2 + number) if silent else 0.2 * wave, rate)
    return root


def test_inspection_says_what_becomes_of_sounds_and_names_the_damaged(tmp_path: Path) -> None:
    root = folder(tmp_path / "hall")
    (root / "hum" / "bad.wav").write_bytes(b"RIFF\0\0\0\0WAVE" + bytes(50))
    dataset, report = inspect_and_join(read_dataset(root))
    lines = "\n".join(describe(report))
    assert "hall: 21 sounds, 2 classes" in lines
    assert "10 8,000 Hz mono, 10 48,000 Hz mono" in lines
    assert "Sounds become spectrograms: 0.5 s at 8,000 Hz, 64 mel bands up to 4000 Hz, 51 columns" in lines
    assert "1 files cannot be decoded" in lines
    assert "centre crop" not in lines
    assert (dataset.mirror_safe, dataset.channels) == (False, 1)
    assert dataset.value_range is not None
    assert dataset.value_range.ends[0] >= -100
    # Steady sounds look alike, but are no copies.
    assert not any("nearly identical" in note for note in dataset.notes)


def test_parameters_are_kept_if_the_split_is_made_again(tmp_path: Path) -> None:
    root = folder(tmp_path / "hall")
    (root / "hum" / "copy.flac").write_bytes((root / "hum" / "1.flac").read_bytes())
    dataset, _ = inspect_and_join(read_dataset(root), sound="mels=32")
    assert dataset.sound is not None
    assert dataset.sound.mels == 32
    assert with_sound(read_dataset(root), Sound(mels=20)).sound == Sound(mels=20)


def test_of_low_rates_every_band_has_a_frequency(tmp_path: Path) -> None:
    found = with_sound(read_dataset(folder(tmp_path, rates=(2000, 4000)))).sound
    assert found is not None
    assert (found.rate, found.window) == (2000, 50)
    assert found.fft > 64


def test_silence_has_a_range_all_the_same(tmp_path: Path) -> None:
    report = inspect_dataset(read_dataset(folder(tmp_path / "silence", silent=True)))
    assert report.values is not None
    assert report.values.value_range.ends[0] < report.values.value_range.ends[1]
    assert (report.values.least, report.values.most) == (-100, -100)


def test_sounds_of_which_none_can_be_read_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "hall")
    for path in root.glob("*/*.flac"):
        path.write_bytes(b"fLaC" + path.name.encode())
    with pytest.raises(DataError, match="must have sounds that can be read, but none of the sampled can"):
        inspect_dataset(read_dataset(root))
