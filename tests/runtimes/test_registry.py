"""The list of runtimes: what a record must hold, and what follows from it."""

import dataclasses
from importlib import import_module
from pathlib import Path

import pytest

from effnet.compression.tools import tools_of
from effnet.errors import InputError
from effnet.runtimes import registry
from effnet.runtimes.record import formats_of
from effnet.runtimes.registry import RUNTIMES, files_of, find_runtime, register

ONE = RUNTIMES["litert"]


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_runtimes_folder_holds_what_its_record_says(name):
    found = RUNTIMES[name]
    folder = Path(import_module(found.home).__file__).parent
    there = {path.stem for path in folder.glob("*.py")}
    assert "writer" in there
    assert ("engine" in there, "untrained" in there) == (found.can_run, found.untrained)
    assert {*found.profiled} <= {target.precision for target in found.formats}
    assert register(found) is found  # again: nothing changes


@pytest.mark.parametrize(
    "change, message",
    [
        ({"title": "Another"}, "a runtime's name must be new; there is another litert"),
        ({"name": "new"}, "the format litert must be of its runtime, new; it is of litert"),
        (
            {"name": "new", "formats": formats_of("new", ("litert", "fp32", ("model.new",)))},
            r"the format litert \(model\.new\) must be new; another has its name or a file of it",
        ),
        (
            {"name": "new", "formats": formats_of("new", ("a", "fp32", ("model.a",)), ("b", "int8", ("model.a",)))},
            r"the format a \(model\.a\) must be new; another has its name or a file of it",
        ),
        (
            {"name": "new", "formats": formats_of("new", ("new", "fp32", ("model.new", "model.bin")))},
            r"the format new \(model\.new\) must be new; another has its name or a file of it",
        ),
        (
            {"name": "new", "formats": formats_of("new", ("new", "fp32", ("net.new",)))},
            r"the file of the format new must be named model\.SOMETHING; got 'net\.new'",
        ),
    ],
)
def test_a_record_that_clashes_is_refused_whole(change, message):
    before = dict(RUNTIMES), dict(registry.FORMATS), dict(registry.FEATURES)
    with pytest.raises(InputError, match=message):
        register(dataclasses.replace(ONE, **change))
    assert before == (RUNTIMES, registry.FORMATS, registry.FEATURES)


def test_an_unknown_runtime_and_one_that_cannot_run_are_refused_with_the_reason():
    with pytest.raises(InputError, match=r"one of onnxruntime, .*; got 'openvin'; did you mean 'openvino'"):
        find_runtime("openvin")
    with pytest.raises(InputError, match="it cannot run coreml, only export to it"):
        find_runtime("coreml")
    with pytest.raises(InputError, match="a runtime must be one of"):
        tools_of("openvin")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("model.onnx", ["model.onnx"]),
        ("a.int8.xml", ["a.int8.xml", "a.int8.bin"]),
        ("features.fp16.xml", ["features.fp16.xml", "features.fp16.bin"]),
        ("other.dat", ["other.dat"]),
    ],
)
def test_a_file_is_measured_with_those_that_belong_to_it(name, expected):
    assert [path.name for path in files_of(Path("folder") / name)] == expected
