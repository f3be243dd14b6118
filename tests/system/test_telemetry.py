"""No runtime looks up a host or writes an id into the home folder unless the user has opted in."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_RUN = """
import effnet
import numpy as np, onnxruntime, openvino, nncf
from effnet.runtimes.registry import open_engine
from pathlib import Path
for runtime in ("onnxruntime", "openvino"):
    engine = open_engine(Path({model!r}), threads=1, runtime=runtime)
    engine.run(np.zeros((1, *engine.size, engine.channels), np.uint8))
"""


def traced(code: str, home: Path, **environment: str) -> tuple[list[str], list[str]]:
    """Return the connections that a Python program made, and the files in its home folder."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    home.mkdir(exist_ok=True)
    names = ("CI", "TF_BUILD", "JENKINS_URL", "NNCF_CI", "PYTEST_CURRENT_TEST", "ORT_DISABLE_TELEMETRY")
    clean = {name: value for name, value in os.environ.items() if name not in names} | {"HOME": str(home)}
    log = home.parent / "trace"
    done = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-e", "trace=connect,sendto", "-o", str(log), sys.executable, "-c", code],
        env=clean | environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if "Operation not permitted" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    connections = [line for line in log.read_text(errors="replace").splitlines() if re.search(r"AF_INET6?\b", line)]
    return connections, sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


@pytest.mark.elsewhere
def test_runtimes_look_up_no_host_and_write_no_id(small_bundle: Path, tmp_path: Path) -> None:
    assert traced(_RUN.format(model=str(small_bundle / "model.onnx")), tmp_path / "home") == ([], [])


def test_a_user_who_turned_telemetry_on_keeps_it(tmp_path: Path, run_python, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "intel").mkdir()
    (tmp_path / "intel" / "openvino_telemetry").write_text("1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    code = (
        "import effnet, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], sys.modules.get('openvino_telemetry', 1))"
    )
    assert run_python("-c", code).out.split() == ["0", "1"]
    (tmp_path / "intel" / "openvino_telemetry").write_text("0")
    assert run_python("-c", code).out.split() == ["0", "None"]
