"""Fixtures of all tests; the folder `helpers` is on the path."""

import atexit
import importlib.util
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

from effnet.weights import download

pytest_plugins = ["data_fixtures", "fit_fixtures", "pattern_fixtures"]

# The same random cases in each run, so that a test that failed fails again. EFFNET_RANDOM=1 looks for new ones.
settings.register_profile("effnet", derandomize="EFFNET_RANDOM" not in os.environ, max_examples=50)
settings.load_profile("effnet")

# A shell ignores Ctrl-C for what it begins in the background, and nohup a closed terminal; so would the processes that
# tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Tests run in as many processes as there are cores, and the networks in them are tiny: threads would only wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Settings of the user's own terminal would change what is printed.
os.environ.update(COLUMNS="100", NO_COLOR="1", TERM="dumb")
os.environ.pop("FORCE_COLOR", None)

# No test uses the network or the user's downloads: weights and features are looked for in this folder.
_CACHES = tempfile.mkdtemp(prefix="effnet-tests-")
atexit.register(shutil.rmtree, _CACHES, ignore_errors=True)
os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=f"{_CACHES}/hub", EFFNET_CACHE=f"{_CACHES}/effnet")
# The compiled kernels are shared by all processes of a session: compiling them takes ten seconds.
if "EFFNET_TESTS_KERNELS" not in os.environ:
    os.environ["EFFNET_TESTS_KERNELS"] = tempfile.mkdtemp(prefix="effnet-kernels-")
    atexit.register(shutil.rmtree, os.environ["EFFNET_TESTS_KERNELS"], ignore_errors=True)
os.mkdir(f"{_CACHES}/effnet")
os.symlink(os.environ["EFFNET_TESTS_KERNELS"], f"{_CACHES}/effnet/kernels")
for _name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT"):
    os.environ.pop(_name, None)


# Files that `make test` leaves to `make test-all`, as it does single tests with the mark; CONTRIBUTING says why.
_ELSEWHERE = (
    "peers/",
    "runtimes/executorch/",
    "runtimes/coreml/",
    "runtimes/openvino/",
    "runtimes/onnxruntime/test_export_features",
    "compression/test_dense_",
    "contracts/test_eca",
    "jobs/search/test_assembling",
    "nas/assemble/test_assemble",
    "nas/test_supernet",
    "training/distributed/",
    "weights/test_identify",
    "cli/test_launched",
    "cli/test_missing_packages",
    "jobs/fit/test_locked",
    "serving/page/test_page_browser",
    "test_examples_elsewhere",
    "test_install",
)


# Tests that need no more than the device's installation and the extra `check`; without torch only they are collected.
_DEVICE = (
    "arch/test_catalog",
    "arch/test_codec",
    "arch/test_cost",
    "arch/test_describe",
    "arch/test_doctests",
    "arch/test_lineage",
    "arch/test_scale",
    "data/annotated",
    "data/inspection/test_shapes",
    "data/inspection/test_values",
    "data/test_folder",
    "data/test_groups",
    "data/test_hierarchy",
    "data/test_iterative_split",
    "data/test_layout",
    "data/test_letterbox",
    "data/test_manifest",
    "data/test_order",
    "data/test_output",
    "data/test_split",
    "data/test_value_range",
    "data/test_windows",
    "measurement/detection",
    "measurement/test_segmentation_figures",
    "tasks/boxes",
    "cli/test_help",
)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    if importlib.util.find_spec("torch") is not None or collection_path == Path(__file__).parent:
        return None
    path = collection_path.relative_to(Path(__file__).parent).as_posix()
    # A folder is entered if it is, or holds, one of them.
    wanted = any(path.startswith(device) or device.startswith(f"{path}/") for device in _DEVICE)
    return None if wanted else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(root) and item.path.relative_to(root).as_posix().startswith(_ELSEWHERE):
            item.add_marker("elsewhere")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files instead of comparing them")


@pytest.fixture
def check_golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Return a comparison of a text with its golden file, which rewrites the file under --update-golden."""

    def check(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        assert path.is_file(), f"{path} is absent; write it with --update-golden"
        found, golden = text.splitlines(), path.read_text(encoding="utf-8").splitlines()
        for number, (new, old) in enumerate(zip(found, golden, strict=False), start=1):
            assert new == old, f"{path.name}, line {number}, differs from the golden file"
        assert len(found) == len(golden), f"{path.name} must have as many lines as the golden file"

    return check


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread: tiny networks only wait for each other's threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """Output and exit code of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Return a runner of `effnet WORDS...` within this process, which saves the start of another.

    It plans with few networks on a made-up device, unless another `procedure` is given; None is production's.
    """
    from procedures import UNTIMED

    from effnet.cli.main import main

    def run(*words: Any, stdin: bytes = b"", procedure: Any = UNTIMED) -> Ran:
        monkeypatch.setattr(sys, "argv", ["effnet", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        with pytest.raises(SystemExit) as stopped:
            main(procedure)
        found = capsys.readouterr()
        return Ran(code=stopped.value.code or 0, out=found.out, err=found.err)

    return run


@pytest.fixture
def run_python() -> Callable[..., Ran]:
    """Return a runner of `python WORDS...` in a process of its own."""

    def run(*words: Any, timeout: float = 300) -> Ran:
        done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, timeout=timeout)
        return Ran(code=done.returncode, out=done.stdout, err=done.stderr)

    return run


_INSTALLED_FILE = download.installed_file


@pytest.fixture(scope="session", autouse=True)
def no_weights_of_packages() -> Iterator[None]:
    """Hide the weights that are installed as packages, so that they do not influence a fit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "installed_file", lambda entry: None)
        yield


@pytest.fixture
def weights_of_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one test find the weights that are installed as packages."""
    monkeypatch.setattr(download, "installed_file", _INSTALLED_FILE)


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes of twenty grey images each, 8 x 8 pixels; to be read, not changed."""
    import numpy as np
    from PIL import Image

    root, rng = tmp_path_factory.mktemp("data") / "shades", np.random.default_rng(0)
    for number, name in enumerate(("dark", "middle", "light")):
        (root / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.clip(60 + 70 * number + rng.normal(0, 20, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes of twenty images each, 64 x 64 pixels, told apart by their colour; not to change."""
    import numpy as np
    from PIL import Image

    root, rng = tmp_path_factory.mktemp("data") / "colours", np.random.default_rng(0)
    for number, name in enumerate(("red", "green", "blue")):
        (root / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.normal(100, 40, (64, 64, 3))
            pixels[..., number] += 70
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def lite0_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the names and shapes of timm's Lite0 and random weights; not to change."""
    import safetensors.numpy

    import effnet
    from effnet.bundle.weights import state_arrays
    from effnet.weights.schemes import from_effnet

    network = effnet.build(effnet.get_spec("tf_efficientnet_lite0"), seed=1)
    path = tmp_path_factory.mktemp("weights") / "tf_efficientnet_lite0.safetensors"
    safetensors.numpy.save_file(from_effnet(state_arrays(network), network.spec, scheme="timm"), path)
    return path


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Return what makes a folder once for all processes that share the tests; torch computes in one thread."""
    import torch

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def once(name: str, make: Callable[[Path], None]) -> Path:
        done, folder = root / f"{name}.done", root / name
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of one that failed
                threads = torch.get_num_threads()
                torch.set_num_threads(1)  # as one_thread does for a module
                make(folder)
                torch.set_num_threads(threads)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def small_bundle(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The folder of a real fit of the digits for a latency; tests that change it copy it."""
    from dataclasses import replace

    from procedures import QUICK, fit

    def make(folder: Path) -> None:
        drawing = replace(QUICK, draws=True)
        fit("digits", max_latency_ms=50, max_macs=162_000, epochs=2, out=folder, procedure=drawing)

    return made_once("bundle", make)


@pytest.fixture
def bundle_copy(small_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the small bundle that a test may damage."""
    return shutil.copytree(small_bundle, tmp_path / "bundle", ignore=shutil.ignore_patterns("run"))
