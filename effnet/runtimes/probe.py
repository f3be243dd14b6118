"""Try a model file in a separate process: a damaged file crashes the whole process of some runtimes.

Of 1,500 mutated files each, ONNX Runtime and OpenVINO refused all that they could not run; LiteRT and ExecuTorch, even
with its verification, crashed on a few (SIGSEGV, SIGABRT, SIGFPE). So such runtimes, whose record says `fragile`, open
only files that were tried before on this machine or written by effnet on it. `python -m effnet.runtimes.probe MODEL
HOME SHA256` is the trial; HOME is the Python package of the runtime.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from effnet.bundle.formats import Format
from effnet.bundle.model_file import read_model, sha256
from effnet.errors import BundleError, EffnetError
from effnet.runtimes.installed import runtime_version
from effnet.runtimes.registry import RUNTIMES, open_engine, register_home
from effnet.system.cache import cache_folder

_SECONDS = 600.0
_MOST_KEPT = 1_000

# Keys of this process; they are also files in the cache folder if that can be written to.
_known: set[str] = set()


def try_first(path: Path, runtime: str, digest: str) -> None:
    """Raise BundleError if opening and running the model at `path`, whose SHA-256 is `digest`, crashes a process.

    Return at once for a file that was tried before or written by effnet on this machine. A frozen application cannot
    start Python, and tries nothing.
    """
    if getattr(sys, "frozen", False) or not sys.executable:
        return
    key = _key(runtime, digest)
    if key in _known or (_folder() / key).is_file():
        return
    command = [sys.executable, "-P", "-m", "effnet.runtimes.probe", str(path), RUNTIMES[runtime].home, digest]
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"{path} must open and run within {_SECONDS:g} s; it did not") from error
    if done.returncode == EffnetError.exit_code + 1:
        raise BundleError(done.stdout.decode("utf-8", "replace").strip())
    if done.returncode != 0:
        raise BundleError(
            f"{path} must be a whole model; it crashed the process that tried it ({_end(done.returncode)}), so it "
            "is damaged, or not from effnet: `effnet export` writes it again"
        )
    _remember(key)


def trust(folder: Path, target: Format) -> None:
    """Remember that effnet itself wrote the file of `target` in `folder`."""
    if RUNTIMES[target.runtime].fragile:
        _remember(_key(target.runtime, sha256(read_model(folder / target.file))))


def _key(runtime: str, digest: str) -> str:
    return f"{runtime}-{runtime_version(runtime) or 'unknown'}-{digest}"


def _folder() -> Path:
    return cache_folder() / "opened"


def _remember(key: str) -> None:
    """Keep a key for this process, and for later ones if the cache folder can be written to."""
    _known.add(key)
    with suppress(OSError):
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / key).touch()
        kept = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in kept[: max(0, len(kept) - _MOST_KEPT)]:
            path.unlink(missing_ok=True)


def _end(code: int) -> str:
    """Return how a process ended, such as SIGSEGV."""
    with suppress(ValueError):
        if code < 0:
            return signal.Signals(-code).name
    return f"exit status {code}"


def _run_once(path: Path, runtime: str, digest: str) -> None:
    import numpy as np

    engine = open_engine(path, runtime=runtime, digests={path.name: digest})
    engine.run(np.zeros((1, *engine.size, engine.channels), np.uint8))


def _leave_no_core() -> None:
    """Prevent a core dump on disk if this process crashes."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _leave_no_core()
    try:
        _run_once(Path(sys.argv[1]), register_home(sys.argv[2]), sys.argv[3])
    except EffnetError as error:
        print(error)
        sys.stdout.flush()
        os._exit(EffnetError.exit_code + 1)
    os._exit(0)  # at once, without the runtime's cleanup
