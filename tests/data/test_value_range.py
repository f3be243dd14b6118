import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.data.preprocess import Preprocess
from effnet.data.value_range import ValueRange, assumption, read_asked, to_uint8
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
    "text", ["0", "1,0", "0,0", "a,b", "0,nan", "0,inf", "1,2,3", "", "Auto", None, (1,), 5, "0,1e40"]
)
def test_a_range_that_cannot_be_is_refused(text: object) -> None:
    with pytest.raises(InputError, match="value_range must be LOW,HIGH"):
        read_asked(text)


def test_what_is_asked_for_is_two_numbers_or_auto() -> None:
    assert read_asked("auto") is None
    assert read_asked("0,4095") == read_asked((0, 4095)) == TWELVE
    assert read_asked("-1000, 400.5") == ValueRange(low=-1000.0, high=400.5)


def test_preprocessing_keeps_it_and_without_it_is_written_as_before() -> None:
    plain, ranged = Preprocess(resolution=32), Preprocess(resolution=32, value_range=TWELVE)
    assert "value_range" not in plain.to_dict()
    assert ranged.to_dict() == plain.to_dict() | {"value_range": {"low": 0, "high": 4095}}
    for one in (plain, ranged):
        assert Preprocess.from_dict(one.to_dict()) == one
    for bad in ([0, 1], {"low": 0}, {"low": 1, "high": 0}, {"low": "0", "high": 1}, {"low": True, "high": 2}, 3):
        with pytest.raises(DataError, match="value range"):
            Preprocess.from_dict(plain.to_dict() | {"value_range": bad})
