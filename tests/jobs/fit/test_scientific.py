"""Sounds, DICOM files and bands through a whole fit: what training sees is what the device sees."""

import json

import numpy as np
import pytest
from dicoms import dicom
from procedures import TINIEST, fit, made_up
from tiffs import pages, tiff_of_bands

import effnet
from effnet.data.datasets import read_dataset
from effnet.data.sound.record import Sound
from effnet.data.view.value_range import ValueRange
from effnet.errors import DataError, InputError
from effnet.training.input.batches import augmented, eval_batches
from effnet.training.recipe.schema import Augment, Recipe

WORDS = {"procedure": made_up(space=TINIEST), "weights": "none", "max_macs": 4e5, "epochs": 1}


def write(root, name, data):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """CT slices of two classes, two of each of twenty patients, each with a window."""
    pytest.importorskip("pydicom")
    root, rng = tmp_path_factory.mktemp("ct"), np.random.default_rng(0)
    for number in range(40):
        patient = number // 2
        stored = np.clip(rng.normal(1100 + 200 * (patient % 2), 30, (16, 16)), 0, 4095).astype(np.uint16)
        tags = {"PatientID": f"P{patient}", "RescaleSlope": 1, "RescaleIntercept": -1024}
        tags |= {"WindowCenter": 100 + number, "WindowWidth": 600}
        write(root, f"{'dense' if patient % 2 else 'soft'}/{number}.dcm", dicom(stored, **tags))
    return root


@pytest.fixture(scope="module")
def bands(tmp_path_factory):
    """Tiles of six pages: two classes that differ only in the last, of small numbers."""
    root, rng = tmp_path_factory.mktemp("fields"), np.random.default_rng(0)
    for number in range(40):
        values = rng.uniform(0, 9000, (16, 16, 6))
        values[..., 5] = rng.normal(20 + 15 * (number % 2), 2, (16, 16))
        write(root, f"{'wet' if number % 2 else 'dry'}/{number}.tif", pages(values.astype(np.uint16)))
    return root


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Tones and noises of several rates and lengths, in mono and stereo."""
    soundfile = pytest.importorskip("soundfile")
    root, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    for number in range(40):
        rate = (8000, 16_000, 44_100, 48_000)[number % 4]
        time = np.arange(int(rate * rng.uniform(0.05, 0.9))) / rate
        wave = np.sin(2 * np.pi * rng.uniform(300, 900) * time) if number % 2 else rng.normal(0, 0.3, len(time))
        path = root / ("tone" if number % 2 else "noise") / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.stack([0.3 * wave] * (1 + number // 20), axis=1), rate, subtype="PCM_24")
    return root


def check_the_device_sees_the_same(out, dataset):
    """Check that a bundle prepares files as its fit evaluated them, and return the pixels."""
    predictor = effnet.load(out)
    ((seen, _),) = eval_batches(dataset.test, predictor.config.preprocess)
    for file, expected in zip(dataset.test.sources, seen, strict=True):
        np.testing.assert_array_equal(predictor.prepare(file), expected)
        with open(file, "rb") as opened:
            np.testing.assert_array_equal(predictor.prepare(opened.read()), expected)
    assert seen.std() > 5
    return seen


def test_each_dicom_files_own_window_is_used_on_the_device_too(slices, tmp_path):
    report = fit(slices, out=tmp_path / "out", value_range="window", **WORDS).report
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    found = ValueRange.from_dict(config["preprocess"]["value_range"])
    assert found.window
    assert found.ends[1] - found.ends[0] == 599
    assert " --set fit.value_range=window " in report.command
    assert any("40 images share a PatientID with others (20 patients)" in note for note in report.dataset.notes)
    check_the_device_sees_the_same(tmp_path / "out", read_dataset(slices))
    predictor = effnet.load(tmp_path / "out")
    stored, units = np.full((16, 16), 1201, np.uint16), {"RescaleSlope": 1, "RescaleIntercept": -1024}
    both = [dicom(stored, WindowCenter=center, WindowWidth=101, **units) for center in (176.5, 5000)]
    assert [predictor.prepare(data).max() for data in both] == [130, 0]
    assert effnet.evaluate(predictor, slices).accuracy == report.test.accuracy


def test_explicit_windows_are_center_and_width_as_two_numbers(slices, tmp_path):
    report = fit(slices, out=tmp_path / "out", value_range="-160,240", **WORDS).report
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["preprocess"]["value_range"] == {"low": -160.0, "high": 240.0}
    assert " --set fit.value_range=-160,240 " in report.command


def test_bands_of_other_units_have_a_range_each_on_the_device_too(bands, tmp_path):
    report = fit(bands, out=tmp_path / "out", **WORDS).report
    config = effnet.load(tmp_path / "out").config
    assert config.preprocess.channels == config.arch.in_channels == 6
    found = config.preprocess.value_range
    assert found is not None
    assert found.channels == 6
    assert found.of(5).ends[1] < 60
    assert found.of(0).ends[1] > 8000
    seen = check_the_device_sees_the_same(tmp_path / "out", read_dataset(bands))
    assert seen[..., 5].std() > 40  # of one range for all, nothing were left of it
    assert "Each channel has its own values for black and white" in (tmp_path / "out" / "README.md").read_text()
    card = "by channel) are mapped to 0..255, all but one in a thousand of each channel's at either end"
    assert any(card in note for note in report.dataset.notes)
    # As an array of the same numbers, and as bands of one page.
    rng = np.random.default_rng(1)
    values = rng.uniform(0, 9000, (16, 16, 6)).astype(np.uint16)
    predictor = effnet.load(tmp_path / "out")
    for other in (pages(values), tiff_of_bands(values), tiff_of_bands(values, planar=True)):
        np.testing.assert_array_equal(predictor.prepare(other), predictor.prepare(values))


def test_ranges_of_bands_can_be_given_and_are_repeated_by_the_command(bands, tmp_path):
    text = ";".join(["0,9000"] * 5 + ["0,60"])
    report = fit(bands, out=tmp_path / "out", value_range=text, **WORDS).report
    assert f"'fit.value_range={text}'" in report.command
    assert effnet.load(tmp_path / "out").config.preprocess.value_range == ValueRange(
        low=(0.0,) * 6, high=(9000.0,) * 5 + (60.0,)
    )
    (tmp_path / "out" / "report.json").unlink()
    fit(bands, out=tmp_path / "out", value_range=text, resume=True, **WORDS)
    with pytest.raises(DataError, match="it must have 2 channels, as the value range does; it has 6"):
        fit(bands, out=tmp_path / "other", value_range="0,9000;0,60", **WORDS)


def test_sounds_are_spectrograms_in_training_and_on_the_device(sounds, tmp_path):
    report = fit(sounds, out=tmp_path / "out", sound="seconds=0.4,mels=40", **WORDS).report
    config = effnet.load(tmp_path / "out").config
    found = config.preprocess.sound
    assert found == Sound(
        rate=8000, seconds=0.4, window=200, hop=80, fft=256, mels=40, low_hz=50.0, high_hz=4000.0, floor_db=-100.0
    )
    assert (config.preprocess.mode, config.preprocess.crop, config.preprocess.channels) == ("squash", 1.0, 1)
    assert "--set fit.sound=seconds=0.4,mels=40 " in report.command
    assert not report.training.recipe["augment"]["flip"]
    assert report.training.recipe["augment"]["view"] == "none"
    check_the_device_sees_the_same(tmp_path / "out", read_dataset(sounds))
    assert effnet.evaluate(effnet.load(tmp_path / "out"), sounds).accuracy == report.test.accuracy
    card = (tmp_path / "out" / "README.md").read_text()
    assert "effnet predict BUNDLE sound.wav" in card
    assert "The image is the spectrogram of a sound" in card
    (tmp_path / "out" / "report.json").unlink()
    with pytest.raises(InputError, match=r"sound was 'seconds=0.4,mels=40', now 'seconds=0.4'"):
        fit(sounds, out=tmp_path / "out", sound="seconds=0.4", resume=True, **WORDS)


def test_training_draws_windows_of_a_sound(sounds, tmp_path):
    from effnet.data.preprocess import Preprocess

    preprocess = Preprocess(resolution=32, crop=1.0, mode="squash", mean=(0.5,), std=(0.2,), sound=Sound(seconds=0.2))
    whole = np.random.default_rng(0).integers(0, 256, (64, 90, 1), dtype=np.uint8)
    recipe = Recipe(augment=Augment(view="none", flip=False))
    views = [augmented(whole, recipe, preprocess, rng=np.random.default_rng(seed)) for seed in range(8)]
    assert {view.shape for view in views} == {(32, 32, 1)}
    assert len({view.tobytes() for view in views}) > 6


@pytest.mark.parametrize("asked, words", [
    ("mels=500,fft=512", "give fewer mels, or a larger fft"),
    ("high_hz=9000", "at most half the rate, 4000"),
    ("mel=40", "did you mean 'mels'"),
])  # fmt: skip
def test_parameters_of_sounds_that_cannot_be_are_refused(sounds, tmp_path, asked, words):
    with pytest.raises(InputError, match=words):
        fit(sounds, out=tmp_path / "out", sound=asked, **WORDS)


def test_of_sounds_beside_images_the_few_are_named_and_images_have_no_sound(sounds, bands, tmp_path):
    for path in (*sounds.glob("*/*"), *list(bands.glob("*/*"))[:6]):
        write(
            tmp_path / "mixed", f"{'a' if path.parent.name in ('tone', 'wet') else 'b'}/{path.name}", path.read_bytes()
        )
    report = fit(tmp_path / "mixed", out=tmp_path / "out", channels=1, **WORDS).report
    assert effnet.load(tmp_path / "out").config.preprocess.sound is not None
    unreadable = report.dataset.findings.unreadable
    assert len(unreadable) == 6
    assert {file.reason for file in unreadable} == {
        "it is an image, but the others, or those that the model was fitted on, are sounds"
    }
    with pytest.raises(InputError, match="these data are images: leave it out"):
        fit(bands, out=tmp_path / "other", sound="mels=40", **WORDS)


def test_without_soundfile_the_extra_is_named(sounds, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(InputError, match=r'this needs soundfile.*pip install "effnet\[audio\]"'):
        fit(sounds, out=tmp_path / "out", **WORDS)
