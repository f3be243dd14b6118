"""Untrusted files are read up to a size; files are written atomically."""

import errno
import json
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import effnet
from effnet.errors import EffnetError
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


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """Return a function that limits the size of written files, like a full disk, until the test ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_while_a_file_is_copied_is_told_with_the_file_that_was_to_be(
    tmp_path: Path, small_disk: Callable[[int], None]
) -> None:
    """Python names the source file in the error."""
    (tmp_path / "source").write_bytes(bytes(200_000))
    (tmp_path / "target").write_text("before")
    small_disk(50_000)
    with pytest.raises(OSError) as failed, written_whole(tmp_path / "target") as beside:
        shutil.copyfile(tmp_path / "source", beside)
    assert (failed.value.errno, failed.value.filename) == (errno.EFBIG, str(tmp_path / "target"))
    assert str(tmp_path / "source") not in str(failed.value)
    assert (tmp_path / "target").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_an_error_over_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failed, written_whole(tmp_path / "target"):
        (tmp_path / "absent").read_bytes()
    assert failed.value.filename == str(tmp_path / "absent")


@pytest.mark.parametrize("writer", ["config", "metrics", "profile", "onnx", "weights", "checkpoint", "plot", "report"])
def test_every_writer_of_a_file_names_it_on_a_full_disk_and_leaves_nothing_beside(
    writer: str, tmp_path: Path, small_disk: Callable[[int], None]
) -> None:
    import numpy as np
    import onnx
    import torch

    from effnet.bundle.config import write_text
    from effnet.bundle.weights import write_arrays
    from effnet.measurement.profile.profile import write_whole
    from effnet.report.plots.figure import new_figure, save_svg
    from effnet.report.render import replace_text
    from effnet.runtimes.onnxruntime.graph import write_onnx
    from effnet.training.log.metrics import rewrite_metrics
    from effnet.training.state.tensorfile import save_tensors

    path = tmp_path / ("metrics.jsonl" if writer == "metrics" else "file.svg")
    tensor = onnx.helper.make_tensor("w", 1, [5000], np.zeros(5000, np.float32))
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    figure = new_figure(3, 2)
    figure.subplots().plot(range(500))
    write = {
        "config": lambda: write_text(path, "x" * 9000),
        "metrics": lambda: rewrite_metrics(tmp_path, [{"loss": 1.0}] * 1000),
        "profile": lambda: write_whole(path, "x" * 9000),
        "onnx": lambda: write_onnx(onnx.helper.make_model(graph), path),
        "weights": lambda: write_arrays({"w": np.zeros(5000)}, path, metadata={}),
        "checkpoint": lambda: save_tensors({"w": torch.zeros(5000)}, path),
        "plot": lambda: save_svg(figure, path),
        "report": lambda: replace_text(path, "x" * 9000),
    }[writer]
    path.write_text("before")
    small_disk(4000)
    with pytest.raises((OSError, EffnetError)) as failed:
        write()
    assert str(path) in str(failed.value)
    assert ".tmp" not in str(failed.value)
    assert path.read_text() == "before"
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_no_other_module_writes_beside_and_renames_on_its_own() -> None:
    package = Path(effnet.__file__).parent
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    found = {str(path.relative_to(package)) for path, text in sources.items() if re.search(r"name.*\.tmp\b", text)}
    assert found == {
        "system/files.py",
        "weights/readers/archive.py",
    }  # an archive becomes a folder
