import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.data.preprocess import Preprocess
from effnet.data.view.value_range import ValueRange, assumption, read_asked, to_uint8
from effnet.errors import DataError, ImageError, InputError

TWELVE = ValueRange(low=0, high=4095)
numbers = st.floats(-1e6, 1e6)


def test_the_ends_become_black_and_white_and_what_is_outside_is_clipped() -> None:
    values = np.array([0, 2048, 4095, 5000, 65535], np.uint16)
    assert to_uint8(values, "uint16", TWELVE).tolist() == [0, 128, 255, 255, 255]
    units = np.array([-3024, -1024, 1024, 3072, 30000], np.int16)
    assert to_uint8(units, "int16", ValueRange(low=-1024, high=3072)).tolist() == [0, 0, 128, 255, 255]
    real = np.array([np.nan, -np.inf, np.inf, 1.004, 0.5], np.float32)
    assert to_uint8(real, "float32", ValueRange(low=0, high=1)).tolist() == [0, 0, 255, 255, 128]


@given(numbers, numbers, st.lists(numbers, min_size=1, max_size=20))
def test_brighter_values_never_become_darker(one: float, other: float, values: list[float]) -> None:
    low, high = sorted((one, other))
    if high - low < 1e-3:
        return
    ordered = np.sort(np.array(values))
    found = to_uint8(ordered, "float64", ValueRange(low=low, high=high)).astype(int)
    assert (np.diff(found) >= 0).all()
    exact = 255 * (np.clip(ordered, low, high) - low) / (high - low)
    assert np.abs(found - exact).max() <= 0.5 + 1e-6


def test_without_a_range_it_is_that_of_the_type() -> None:
    assert to_uint8(np.array([0, 255, 256, 65535], np.uint16), "uint16", None).tolist() == [0, 0, 1, 255]
    assert to_uint8(np.array([0, 16, 4095], np.uint16), "uint12", None).tolist() == [0, 1, 255]
    assert to_uint8(np.array([-32768, 0, 32767], np.int16), "int16", None).tolist() == [0, 128, 255]
    assert "uint16 values" in assumption("uint16")
    assert "0..65535 is read as black to white" in assumption("uint16")
    assert "-32768..32767 is read" in assumption("int16")
    assert "0..4095 is read" in assumption("uint12")
    assert assumption("uint8") == assumption("int32") == ""
    with pytest.raises(ImageError, match="int32 values need a value range"):
        to_uint8(np.zeros(1, np.int32), "int32", None)
    with pytest.raises(ImageError, match=r"must lie in 0\.\.1"):
        to_uint8(np.array([0, 4095.0]), "float64", None)


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "1,0",
        "0,0",
        "a,b",
        "0,nan",
        "0,inf",
        "1,2,3",
        "",
        "0,1;",
        "0,1;3,2",
        ((0, 1), 2),
        "Auto",
        None,
        (1,),
        5,
        "0,1e40",
    ],
)
def test_a_range_that_cannot_be_is_refused(text: object) -> None:
    with pytest.raises(InputError, match="value_range must be LOW,HIGH"):
        read_asked(text)


def test_what_is_asked_for_is_two_numbers_or_auto() -> None:
    assert read_asked("auto") is None
    assert read_asked("0,4095") == read_asked((0, 4095)) == TWELVE
    assert read_asked("-1000, 400.5") == ValueRange(low=-1000.0, high=400.5)


def test_a_range_for_each_channel_maps_each_by_its_own() -> None:
    each = ValueRange(low=(0.0, -10.0), high=(4095.0, 10.0))
    values = np.array([[[0, -10], [4095, 10], [9000, np.nan]]])
    assert to_uint8(values, "float64", each).tolist() == [[[0, 0], [255, 255], [255, 0]]]
    for channel in range(2):
        one = to_uint8(values[..., channel], "float64", each.of(channel))
        assert (to_uint8(values, "float64", each)[..., channel] == one).all()
    assert str(each) == "0..4095, -10..10 (by channel)"
    assert (each.channels, each.ends) == (2, (-10.0, 4095.0))
    with pytest.raises(ImageError, match="it must have 2 channels, as the value range does; it has 1"):
        to_uint8(values[..., 0], "float64", each)


def test_ranges_of_channels_and_windows_are_asked_for_and_written() -> None:
    each = ValueRange(low=(0.0, -10.0), high=(4095.0, 10.0))
    assert read_asked("0,4095;-10,10") == read_asked([[0, 4095], [-10, 10]]) == read_asked(each.asked) == each
    assert read_asked("window") == "window"
    window = ValueRange(low=-160.0, high=240.0, window=True)
    for found in (each, window):
        preprocess = Preprocess(resolution=32, mean=(0.5,) * 2, std=(0.2,) * 2, value_range=found)
        assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    with pytest.raises(DataError, match="a value range of 2 channels must have as many as mean, 3"):
        Preprocess(resolution=32, value_range=each)


@pytest.mark.parametrize("low, high, window", [
    ((0.0,), (1.0, 2.0), False), ((), (), False), (0.0, (1.0,), False), ((0.0, 1.0), (1.0, 1.0), False), (0.0, 1.0, 1),
])  # fmt: skip
def test_ranges_of_channels_that_cannot_be_are_refused(low: Any, high: Any, window: Any) -> None:
    with pytest.raises(DataError, match="value range"):
        ValueRange(low=low, high=high, window=window)


def test_preprocessing_keeps_it_and_without_it_is_written_as_before() -> None:
    plain, ranged = Preprocess(resolution=32), Preprocess(resolution=32, value_range=TWELVE)
    assert "value_range" not in plain.to_dict()
    assert ranged.to_dict() == plain.to_dict() | {"value_range": {"low": 0, "high": 4095}}
    for one in (plain, ranged):
        assert Preprocess.from_dict(one.to_dict()) == one
    for bad in ([0, 1], {"low": 0}, {"low": 1, "high": 0}, {"low": "0", "high": 1}, {"low": True, "high": 2}, 3):
        with pytest.raises(DataError, match="value range"):
            Preprocess.from_dict(plain.to_dict() | {"value_range": bad})
