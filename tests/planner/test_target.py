"""The target of a fit: the precisions to plan with in each runtime, and refused options."""

import pytest

from effnet.errors import InputError
from effnet.measurement.budget import Budget
from effnet.planner.target import Target
from effnet.runtimes.registry import FORMATS, runnable

# The precisions of each runtime by the documentation of the exports.
WRITTEN = {
    "onnxruntime": ("fp32", "fp16", "w8", "int8"),
    "openvino": ("fp32", "fp16", "bf16", "int8"),
    "litert": ("fp32", "int8"),
    "executorch": ("fp32", "int8"),
}


@pytest.mark.parametrize(
    ("runtime", "budget", "expected"),
    [
        ("onnxruntime", Budget(), ("fp32",)),
        ("onnxruntime", Budget(params=1e6, macs=1e6), ("fp32",)),
        ("onnxruntime", Budget(latency_ms=5), ("fp32", "int8")),
        ("onnxruntime", Budget(memory_mb=50), ("fp32", "int8")),
        ("onnxruntime", Budget(size_mb=1), ("fp32", "w8", "int8")),
        ("openvino", Budget(latency_ms=5), ("fp32", "bf16", "int8")),
        ("openvino", Budget(size_mb=1), ("fp32", "bf16", "int8")),
        ("openvino", Budget(memory_mb=50), ("fp32", "int8")),
        ("litert", Budget(latency_ms=5), ("fp32", "int8")),
        ("executorch", Budget(size_mb=1, latency_ms=5), ("fp32", "int8")),
        ("executorch", Budget(), ("fp32",)),
    ],
)
def test_fewer_bits_are_planned_with_where_a_budget_may_need_them(runtime, budget, expected):
    assert Target(runtime=runtime).precisions(budget) == expected


@pytest.mark.parametrize("runtime", runnable())
def test_what_was_asked_for_is_all_there_is_and_has_a_file_of_that_runtime(runtime):
    for precision in WRITTEN[runtime]:
        target = Target(runtime=runtime, precision=precision)
        assert target.precisions(Budget(latency_ms=5, size_mb=1)) == (precision,)
        found = target.format(precision)
        assert (found.runtime, found.precision) == (runtime, precision)
        assert FORMATS[found.name] is found


@pytest.mark.parametrize("runtime", runnable())
def test_a_precision_that_the_runtime_lacks_is_refused_with_those_that_it_has(runtime):
    lacking = {"fp16", "bf16", "w8"} - set(WRITTEN[runtime])
    assert lacking
    for precision in lacking:
        with pytest.raises(InputError, match=f"writes {runtime} in {', '.join(WRITTEN[runtime])}; got .* {precision}"):
            Target(runtime=runtime, precision=precision)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--runtime", "openvinno"], "openvinno"),
        (["--precision", "int9"], "int9"),
        (["--precision", "bf16"], "effnet writes onnxruntime in fp32, fp16, w8, int8; got precision bf16"),
        (["--set", "fit.max_drop=101"], "101"),
    ],
)
def test_the_command_refuses_them_before_anything_is_read(words, says, run_cli, tmp_path):
    ran = run_cli("fit", tmp_path / "nothing", *words, "--out", tmp_path / "out")
    assert ran.code == 2
    assert says in ran.err
    assert not (tmp_path / "out").exists()
