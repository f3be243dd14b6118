import json

import pytest

from effnet.data.preprocess import Preprocess
from effnet.data.sound.record import Sound, read_asked_sound, suited_sound
from effnet.data.view.value_range import ValueRange
from effnet.errors import DataError, InputError


def test_the_record_survives_json_within_preprocessing() -> None:
    sound = Sound(seconds=1.5, mels=40)
    preprocess = Preprocess(
        resolution=32, mode="squash", crop=1.0, mean=(0.5,), std=(0.2,), sound=sound,
        value_range=ValueRange(low=-70.0, high=5.0),
    )  # fmt: skip
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    assert "sound" not in Preprocess(resolution=32).to_dict()


@pytest.mark.parametrize("values, words", [
    ({"rate": 500}, "rate of sounds must be a whole number from 1,000 to 192,000, received 500"),
    ({"rate": 16_000.0}, "rate of sounds must be a whole number"),
    ({"mels": True}, "mels of sounds must be a whole number"),
    ({"seconds": float("nan")}, "seconds of sounds must be a number"),
    ({"seconds": "2"}, "seconds of sounds must be a number"),
    ({"window": 1024}, "window of sounds must be at most fft, 512 samples"),
    ({"high_hz": 9000.0}, "at most half the rate, 8000"),
    ({"low_hz": 8000.0}, "low_hz of sounds must be below high_hz"),
    ({"seconds": 600.0, "mels": 512, "hop": 1}, "must have at most 4,194,304 values"),
    ({"bands": 64}, "received 'bands'; did you mean 'hop'|received 'bands'"),
])  # fmt: skip
def test_values_that_mean_nothing_are_refused(values: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Sound.from_dict(values)
    with pytest.raises(DataError, match="must be an object"):
        Sound.from_dict([1])


def test_a_spectrogram_has_one_channel() -> None:
    with pytest.raises(DataError, match="a spectrogram has 1 channel"):
        Preprocess(resolution=32, sound=Sound())


def test_parameters_follow_from_the_files_unless_they_are_given() -> None:
    found = suited_sound([48_000, 8000, 44_100], [0.4, 3.0, 1.25], {})
    assert (found.rate, found.seconds, found.window, found.hop, found.fft) == (8000, 1.25, 200, 80, 256)
    assert found.high_hz == 4000
    assert suited_sound([96_000], [40.0], {}).rate == 32_000
    assert suited_sound([96_000], [40.0], {}).seconds == 10
    asked = read_asked_sound("seconds=3, mels=80,rate=16000")
    found = suited_sound([48_000], [1.0], asked)
    assert (found.seconds, found.mels, found.rate, found.window, found.high_hz) == (3.0, 80, 16_000, 400, 8000)


@pytest.mark.parametrize("text, words", [
    ("mel=80", "did you mean 'mels'"), ("mels=many", "sound must set parameters"), ("80", "as in seconds=3,mels=80"),
])  # fmt: skip
def test_options_that_cannot_be_read_are_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_asked_sound(text)
