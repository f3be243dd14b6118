"""Compile the kernels, and keep the library in a folder to which only this user can write.

Loading a library runs its code. So a cached one is loaded only if nobody else can write there and its bytes are those
that were compiled, and a new one is kept only after another process has loaded it and checked its results.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_SOURCES = ("kernels.c", "depthwise.c")
# No -ffast-math: it would change how the whole process treats denormal numbers.
_FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
_CONTRACT = "-ffp-contract=fast"
# A starved or a small device may need minutes; past them something hangs.
_COMPILE_SECONDS = 300
_ASK_SECONDS = 300
_SCRATCH = ".build-"
_MAX_BYTES = 50 * 10**6

# Run in its own process: a truncated library, or one for another processor, crashes that process, not the training.
_TRIAL = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
rows, channels = 67, 19
values = [float((i * 7) % 11) for i in range(rows * channels)]
x, mean, var = (ctypes.c_float * len(values))(*values), (ctypes.c_float * channels)(), (ctypes.c_float * channels)()
long = ctypes.c_long
assert library.effnet_moments(x, long(rows), long(channels), mean, var, 2) == 1
for c in range(channels):
    column = values[c::channels]
    wanted = sum(column) / rows
    assert abs(mean[c] - wanted) < 1e-4
    assert abs(var[c] - sum((v - wanted) ** 2 for v in column) / rows) < 1e-3
for name in sys.argv[2:]:
    getattr(library, name)
"""


class NoLibrary(Exception):
    """The kernels cannot be compiled here; the argument is the reason, on one line."""


class _Unusable(NoLibrary):
    """The library was compiled, but does not run from the folder it is in."""


def load_library(cache: Path, functions: tuple[str, ...]) -> tuple[ctypes.CDLL, str]:
    """Return the library that has `functions`, compiled if `cache` has no trusted one, and a note on problems.

    The note is one line if the library could not be kept and each process compiles it again; else it is empty.
    Raises NoLibrary.
    """
    compiler = _compiler()
    source = "\n".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in _SOURCES)
    flags = [*_FLAGS, _CONTRACT, "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"]
    version = _run([compiler, "--version"], what="the C compiler", seconds=_ASK_SECONDS)
    identity = (source.encode(), version, " ".join(flags).encode(), _processor(), "".join(platform.libc_ver()).encode())
    key = hashlib.sha256(b"|".join(identity)).hexdigest()[:16]
    folder, note = _own_folder(cache), ""
    if folder:
        try:
            return _kept(folder, key) or _build(source, [compiler, *flags], functions, folder=folder, key=key), ""
        except (OSError, _Unusable) as error:  # such as a full disk, or one that runs no programs
            note = str(error.strerror if isinstance(error, OSError) else error)
    try:
        library = _build(source, [compiler, *flags], functions)
    except OSError as error:
        raise NoLibrary(f"no folder can hold the library ({error.strerror or error})") from error
    reason = note or "other users can write there, or it does not belong to this user"
    return library, f"{cache / 'kernels'} cannot keep the compiled kernels ({reason}), so each process compiles them"


def _build(
    source: str, command: list[str], functions: tuple[str, ...], *, folder: Path | None = None, key: str = ""
) -> ctypes.CDLL:
    """Compile, test and load the library; keep it in `folder` if given."""
    if folder:
        _remove_old(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_SCRATCH) as scratch:
        text, library = Path(scratch) / "kernels.c", Path(scratch) / "kernels.so"
        text.write_text(source, encoding="utf-8")
        # The compiler's temporary files are there too, and removed with the folder if it is killed.
        _run([*command, str(text), "-o", str(library), "-lm"], what="the C compiler", seconds=_COMPILE_SECONDS,
             scratch=scratch)  # fmt: skip
        if not library.is_file() or not 0 < library.stat().st_size <= _MAX_BYTES:
            raise NoLibrary("the C compiler produces no library")
        try:
            # -I and -S: no user or site packages are imported.
            trial = [sys.executable, "-I", "-S", "-c", _TRIAL, str(library), *functions]
            _run(trial, what="the compiled library", seconds=_ASK_SECONDS)
        except NoLibrary as error:
            raise _Unusable(str(error)) from error
        return ctypes.CDLL(str(_keep(library, folder, key) if folder else library))


def _remove_old(folder: Path) -> None:
    """Remove folders left by processes that were killed while they compiled."""
    for path in folder.glob(f"{_SCRATCH}*"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - 3600:
                shutil.rmtree(path, ignore_errors=True)


def _compiler() -> str:
    if sys.platform == "win32":  # pointers and longs differ in size there
        raise NoLibrary("the kernels are not made for Windows")
    if getattr(sys, "frozen", False):  # there is no interpreter to test them
        raise NoLibrary("this program is a single file")
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    raise NoLibrary("there is no C compiler")


def _run(command: list[str], *, what: str, seconds: float, scratch: str | None = None) -> bytes:
    """Return the output of a program; kill it and its children after `seconds`. Raises NoLibrary.

    `scratch` is the folder for its temporary files.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | ({"TMPDIR": scratch} if scratch else {}),
            start_new_session=True,
        )
    except OSError as error:
        raise NoLibrary(f"{what} cannot be started ({error.strerror})") from error
    with process:
        try:
            out, _ = process.communicate(timeout=seconds)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise NoLibrary(f"{what} does not end within {seconds} seconds") from error
            raise
    if process.returncode:
        raise NoLibrary(f"{what} fails with code {process.returncode}")
    return out


def _own_folder(cache: Path) -> Path | None:
    """Return the folder for libraries below the cache folder, or None if other users can write to it or replace it.

    Parent folders must belong to root or this user, and may be writable by all only if sticky, as /tmp is. Folders
    shared with a group are trusted: many systems give each user their own group.
    """
    folder = cache / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = folder.resolve(strict=True)
        status, user = folder.stat(), os.geteuid()
        if status.st_uid != user:
            return None
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            folder.chmod(0o700)
        for parent in folder.parents:
            above = parent.stat()
            shared = above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX
            if above.st_uid not in (0, user) or shared:
                return None
    except OSError:
        return None
    return folder


def _kept(folder: Path, key: str) -> ctypes.CDLL | None:
    """Return a library that was kept before, whose name contains its hash; remove damaged ones."""
    for path in folder.glob(f"{key}-*.so"):
        digest = path.stem.removeprefix(f"{key}-")
        with contextlib.suppress(OSError):
            if _hash_of(path) == digest:
                return ctypes.CDLL(str(path))
            path.unlink()
    return None


def _hash_of(path: Path) -> str:
    """Return the hash of a file if only this user can have written it, else an empty string."""
    try:
        with open(
            path, "rb", opener=lambda name, _: os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        ) as file:
            status = os.fstat(file.fileno())
            ours = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if not ours or not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
                return ""
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _keep(library: Path, folder: Path, key: str) -> Path:
    """Move a library to its place atomically: its bytes are on the disk before its name."""
    library.chmod(0o600)
    with open(library, "rb") as file:
        os.fsync(file.fileno())
        path = folder / f"{key}-{hashlib.file_digest(file, 'sha256').hexdigest()}.so"
    os.replace(library, path)  # other processes may do the same
    return path


def _processor() -> bytes:
    """Return an identifier of this processor model: a library compiled for one may crash on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # machines that share a folder must not load each other's libraries
        return f"{platform.processor()} {platform.machine()} {platform.node()}".encode()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)})).encode()
