"""Files from outside are read up to a size, and written whole or not at all."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.system.files import open_regular, parse_json, read_bytes, read_json, written_whole

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)  # fmt: skip


@settings(max_examples=20)
@given(_VALUES)
def test_ordinary_json_is_read_as_the_standard_library_reads_it(value: object) -> None:
    assert parse_json(json.dumps(value)) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", '{"a": -Infinity}', "1e999", "9" * 30, "9" * 5000, "[" * 200_000, "", "{", b"\xff\xfe"],
)
def test_other_json_is_a_value_error_on_one_line(text: str | bytes) -> None:
    with pytest.raises(ValueError) as refused:
        parse_json(text)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(OSError):
            open_regular(path).read()


def test_a_large_file_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    with open(tmp_path / "large.json", "wb") as file:
        file.truncate(10**11)
    with pytest.raises(OSError, match="at most 1,000 bytes"):
        read_json(tmp_path / "large.json", limit_bytes=1000)
    (tmp_path / "small").write_bytes(b"12")
    assert read_bytes(tmp_path / "small", limit_bytes=2) == b"12"


def test_a_file_that_fails_midway_leaves_the_old_one_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail_midway() -> None:
        with written_whole(path) as beside:
            beside.write_text("half")
            raise OSError(28, "No space left on device", str(beside))

    with pytest.raises(OSError) as failed:
        fail_midway()
    assert failed.value.filename == str(path)
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["file"])
    with written_whole(path) as beside:
        beside.write_text("new")
    assert (path.read_text(), os.listdir(tmp_path)) == ("new", ["file"])
