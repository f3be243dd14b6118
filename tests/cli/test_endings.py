"""However a command is cut short, it ends with its code and at most one line."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from effnet.errors import BundleError, EffnetError, MissingExtraError
from effnet.system.lock import alone_in

EFFNET = f"exec {sys.executable} -m effnet"
FULL = (
    "effnet: the disk is full, or standard output cannot be written: free some space, then run the command again, with "
    "--resume if it has that option\n"
)


def shell(command):
    return subprocess.run(["bash", "-c", f"{EFFNET} {command}"], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "command, code, err",
    [
        ("models list >&-", 0, ""),
        ("models list <&- >&- 2>&-", 0, ""),
        ("models list >/dev/full", 1, FULL),
        ("models show nonsense 2>&-", 2, ""),
        ("models show nonsense 2>/dev/full", 2, ""),
    ],
)
def test_closed_and_full_streams_end_no_verb_with_a_traceback(command, code, err):
    ran = shell(command)
    assert (ran.returncode, ran.stderr) == (code, err)
    assert ran.stdout == ""


def test_no_paths_come_from_a_closed_standard_input(small_bundle):
    ran = shell(f"predict {small_bundle} - <&-")
    assert (ran.returncode, ran.stderr) == (0, "")


_INTERRUPTED_AT = """
import runpy, signal, sys

class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == stopped_at:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, AtImport())
stopped_at, sys.argv[1:] = sys.argv[1], ["models", "list"]
runpy.run_module("effnet", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "module", ["effnet.cli.main", "typer", "effnet.arch.cost", "effnet.cli.models.show", "rich.table"]
)
def test_ctrl_c_while_modules_load_is_one_line(module):
    """Before the command has started, and within a verb."""
    ran = subprocess.run([sys.executable, "-c", _INTERRUPTED_AT, module], capture_output=True, text=True, timeout=300)
    assert (ran.returncode, ran.stderr) == (130, "effnet: interrupted\n")


def test_ctrl_c_that_a_module_in_c_made_an_error_of_its_own(run_cli, monkeypatch):
    def load(**_):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    monkeypatch.setattr("effnet.cli.main._command", lambda: load)
    ran = run_cli("models", "list")
    assert (ran.code, ran.err) == (130, "effnet: interrupted\n")


def wrapped(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OSError(errno.ENOMEM, "Cannot allocate memory", "cat.jpg"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        ImportError("libscipy_openblas64_.so: failed to map segment from shared object"),
        wrapped(
            BundleError("model.onnx cannot be run"), RuntimeError("Failed to allocate memory for requested buffer")
        ),
        wrapped(
            MissingExtraError("scikit-learn", "train"), ImportError("x.so: failed to map segment from shared object")
        ),
        wrapped(ImportError("Error importing numpy"), MemoryError()),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_said_to_be_that(error, run_cli, monkeypatch):
    def fail(**_):
        raise error

    monkeypatch.setattr("effnet.cli.main._command", lambda: fail)
    ran = run_cli("fit", "digits")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert ran.err.startswith("effnet: memory ran out (")
    assert ran.err.endswith("or use less memory with fewer threads, a smaller resolution or a smaller batch\n")


def test_words_that_say_already_what_to_do_about_memory_stay(run_cli, monkeypatch):
    def fail(**_):
        raise EffnetError("no memory was left in epoch 1: fit.batch=auto finds how many fit") from MemoryError()

    monkeypatch.setattr("effnet.cli.main._command", lambda: fail)
    ran = run_cli("fit", "digits")
    assert (ran.code, ran.err) == (
        1,
        "effnet: no memory was left in epoch 1: fit.batch=auto finds how many fit\n",
    )


def test_a_package_that_cannot_be_loaded_is_not_said_to_be_absent(run_cli, monkeypatch):
    def fail(**_):
        raise MissingExtraError("scikit-learn", "train") from ImportError("x.so: undefined symbol: f")

    monkeypatch.setattr("effnet.cli.main._command", lambda: fail)
    ran = run_cli("fit", "digits")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert ran.err.startswith("effnet: an installed package cannot be loaded (x.so: undefined symbol: f)")


def test_memory_that_is_limited_ends_a_prediction_with_words(small_bundle, tiny_images):
    """Whichever library meets the limit first; some write a line of their own."""
    command = f"predict {small_bundle} {tiny_images}/dark/00.png"
    ran = subprocess.run(
        ["bash", "-c", f"ulimit -v 70000; {EFFNET} {command}"], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 1
    assert "memory" in ran.stderr.lower()
    assert "Traceback" not in ran.stderr
    assert "interrupted" not in ran.stderr


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_request_to_end_leaves_no_temporary_folder(number, code, bundle_copy, run_cli, monkeypatch):
    def write(name, folder, *_, **__):
        (folder / "half").touch()
        os.kill(os.getpid(), number)

    monkeypatch.setattr("effnet.jobs.export.api.write_export", write)
    before = sorted(bundle_copy.parent.rglob("*"))
    ran = run_cli("export", bundle_copy, "--to", "onnx")
    assert (ran.code, ran.err) == (code, "effnet: terminated\n")
    assert sorted(bundle_copy.parent.rglob("*")) == before


def test_every_verb_that_writes_is_refused_where_another_process_writes(small_bundle, run_cli, tmp_path, lite0_file):
    out = tmp_path / "out"
    fresh = ("--out", out)
    commands = [
        ("fit", "digits", "--set", "fit.max_params=1M", "--epochs", 1, *fresh),
        (
            "fit",
            "digits",
            "--weights",
            small_bundle,
            "--set",
            "fit.strategy=head",
            "--set",
            "fit.max_params=1M",
            *fresh,
        ),
        ("train", "digits", "--epochs", 1, *fresh),
        ("prune", small_bundle, "digits", *fresh),
        ("quantize", small_bundle, "digits", *fresh),
        ("export", small_bundle, "--to", "onnx", *fresh),
        ("models", "pull", "tf_efficientnet_lite0.in1k", "--weights", lite0_file, *fresh),
        ("profile", *fresh),
        ("data", "shard", "digits", out),
        ("runs", "compare", small_bundle, *fresh),
    ]
    with alone_in(out):
        before = list(tmp_path.iterdir())
        for command in commands:
            ran = run_cli(*command)
            assert (command[0], ran.code) == (command[0], 2)
            assert ran.err == (
                f"effnet: only one effnet process at a time may write to {out}; process {os.getpid()} does. Wait until "
                "it ends, or name another --out\n"
            )
        assert list(tmp_path.iterdir()) == before
