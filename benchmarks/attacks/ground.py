"""The folder of an attack, with a bundle, a canary and a secret; and the definition of a fault."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT

HANG_SECONDS = 60
MEMORY_MB = 1000
SECRET = "a-line-of-a-private-file-4711"
_TRACEBACK = "Traceback (most recent call last)"
# A successful attack on memory would end the benchmark, and this machine's other work.
_ADDRESSES = 8 * 10**9
# Interval of the memory checks of an attack; the system records its peak.
_LOOK_SECONDS = 0.02
# An attack is killed after this time.
_KILLED_AFTER = HANG_SECONDS + 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A folder of one attack: `bundle` may be damaged, `canary` must never appear, `secret` must never be copied."""

    folder: Path
    bundle: Path

    @property
    def canary(self) -> Path:
        """The file that an attack's code creates."""
        return self.folder / "canary"

    @property
    def secret(self) -> Path:
        """A file outside every folder given to effnet."""
        return self.folder / "private" / "secret.txt"

    @property
    def image(self) -> Path:
        """A good image."""
        return self.folder / "good.png"

    def path(self, name: str) -> Path:
        """Return the path of a file to make in the folder."""
        return self.folder / name


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line of effnet, `words`, and its expected result.

    It must end with one of `codes`, and print `says` (a text, in either stream) and none of `lacks`. `python` runs the
    words as Python code instead; `prefix` stands before Python. `before` runs in the child before effnet starts. `stop`
    sends a signal after a number of seconds, or once the output contains a text; output of Python before effnet starts
    does not count. `beside` starts the same command a second time, at once: one of the two must end with each of
    `codes`. `busy` is the number of processes that compute meanwhile.
    """

    words: Sequence[str]
    codes: Sequence[int] = (2,)
    says: str = ""
    lacks: Sequence[str] = ()
    env: Mapping[str, str | None] = field(default_factory=dict)
    python: bool = False
    prefix: Sequence[str] = ()
    before: Callable[[], None] | None = None
    closed: Sequence[int] = ()
    stop: tuple[signal.Signals, float | str] | None = None
    beside: bool = False
    busy: int = 0
    memory_mb: float = MEMORY_MB
    seconds: float = HANG_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack: `item` is the number in the list of promises, `prepare` makes the input and returns the commands.

    `after` checks the folder at the end and returns a fault, or an empty text.
    """

    item: int | str
    name: str
    prepare: Callable[[Ground], Sequence[Command]]
    after: Callable[[Ground], str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of a command: exit code (negative for a signal), time, peak memory and output."""

    code: int
    seconds: float
    peak_mb: float
    text: str


def carry_out(attack: Attack, *, bundle: Path) -> tuple[list[str], list[Outcome]]:
    """Return the faults of one attack, one per line, and the outcomes of its commands."""
    with tempfile.TemporaryDirectory(prefix="effnet-hostile-") as name:
        ground = _prepare_ground(Path(name), bundle)
        faults, outcomes = [], []
        for command in attack.prepare(ground):
            done = _run_two(command, ground) if command.beside else [run(command, ground)]
            outcomes += done
            codes = sorted(outcome.code for outcome in done)
            if command.beside and codes != sorted(command.codes):
                faults.append(f"of two processes the exit codes must be {sorted(command.codes)}; got {codes}")
            for outcome in done:
                faults += _faults(outcome, command)
        if ground.canary.exists():
            faults.append("code of the attack ran")
        if leaked := _leaked(ground):
            faults.append(f"a private file was copied to {leaked}")
        if attack.after and (found := attack.after(ground)):
            faults.append(found)
        return faults, outcomes


def _prepare_ground(folder: Path, bundle: Path) -> Ground:
    from PIL import Image

    ground = Ground(folder=folder, bundle=folder / "bundle")
    shutil.copytree(bundle, ground.bundle)
    ground.secret.parent.mkdir()
    ground.secret.write_text(SECRET * 1000, encoding="utf-8")
    Image.new("L", (8, 8), 90).save(ground.image)
    return ground


def _faults(outcome: Outcome, command: Command) -> list[str]:
    """Return the faults of a command."""
    faults = []
    # While Python starts and imports the package, some milliseconds, effnet cannot handle a signal.
    traced, begun = _TRACEBACK in outcome.text, str(ROOT / "effnet" / "__main__.py") in outcome.text
    early = bool(command.stop) and traced and not begun
    # A signal before Python has started ends it like any program.
    if outcome.code < 0 and not (command.stop and outcome.code == -command.stop[0]):
        faults.append(f"killed by signal {-outcome.code}: {outcome.text[-200:]!r}")
    elif not command.beside and outcome.code >= 0 and outcome.code not in command.codes and not early:
        faults.append(f"exit code {outcome.code} instead of {tuple(command.codes)}: {outcome.text[-300:]!r}")
    if outcome.seconds > command.seconds:
        faults.append(f"took {outcome.seconds:.0f} s")
    if outcome.peak_mb > command.memory_mb:
        faults.append(f"took {outcome.peak_mb:.0f} MB")
    if traced and not early:
        faults.append(f"a traceback: {outcome.text.strip().splitlines()[-1][:200]}")
    if not command.beside and command.says not in outcome.text:
        faults.append(f"must say {command.says!r}: {outcome.text[-300:]!r}")
    faults += [f"must not print {text!r}" for text in (*command.lacks, SECRET) if text in outcome.text]
    return faults


def _leaked(ground: Ground) -> str:
    """Return the first file outside the private folder that holds the secret, as text or as the bytes of an array."""
    for path in sorted(ground.folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and ground.secret.parent not in path.parents:
            with open(path, "rb") as file:
                if SECRET.encode() in file.read(64 * 10**6):
                    return path.name
    return ""


def environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return the environment of a user who is offline and has no cache; None removes a name."""
    own = {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    found = os.environ | own | changes
    return {name: value for name, value in found.items() if value is not None}


def run(command: Command, ground: Ground) -> Outcome:
    """Run a command and return its outcome; its memory is that of the largest of its processes."""
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(command.busy)]
    try:
        return _finish(*_start(command, ground, "0"), command)
    finally:
        for process in load:
            process.kill()
            process.wait()


def _run_two(command: Command, ground: Ground) -> list[Outcome]:
    started = [_start(command, ground, number) for number in "01"]
    return [_finish(*one, command) for one in started]


def _start(command: Command, ground: Ground, number: str) -> tuple[subprocess.Popen[bytes], Path, float]:
    output = ground.path(f"private/output-{number}")
    start = [sys.executable, "-c"] if command.python else [sys.executable, "-m", "effnet"]
    environ = environment({"EFFNET_CACHE": str(ground.path("cache")), **command.env})

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGHUP):  # a shell ignores them for what it starts in the background
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
        if command.before:
            command.before()
        for descriptor in command.closed:
            os.close(descriptor)

    with open(output, "wb") as file:
        process = subprocess.Popen(
            [*command.prefix, *start, *map(str, command.words)], cwd=ground.folder, env=environ, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, preexec_fn=prepare,
        )  # fmt: skip
    return process, output, time.monotonic()


def _finish(process: subprocess.Popen[bytes], output: Path, start: float, command: Command) -> Outcome:
    timers = [threading.Timer(max(_KILLED_AFTER, command.seconds + 30), _kill_group, (process.pid, signal.SIGKILL))]
    number, moment = command.stop or (None, 0.0)
    if number and not isinstance(moment, str):
        timers.append(threading.Timer(moment, _kill_group, (process.pid, number)))
    for timer in timers:
        timer.start()
    # Not getrusage, whose peak is at least that of the parent process.
    peak_mb, ended, status = 0.0, 0, 0
    while not ended:
        peak_mb = max(peak_mb, _peak_mb(process.pid))
        if number and isinstance(moment, str) and moment.encode() in output.read_bytes():
            _kill_group(process.pid, number)
            number = None
        ended, status = os.waitpid(process.pid, os.WNOHANG)
        time.sleep(0 if ended else _LOOK_SECONDS)
    seconds = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    for timer in timers:
        timer.cancel()
    _kill_group(process.pid, signal.SIGKILL)  # processes it may have left behind
    text = output.read_bytes()[: 10**6].decode("utf-8", "replace")
    return Outcome(code=process.returncode, seconds=seconds, peak_mb=peak_mb, text=text)


def _peak_mb(session: int) -> float:
    """Return the largest peak of the processes of a session, in 10^6 bytes."""
    peak = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                # After the name, which may contain anything: state, parent, group, session.
                if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) != session:
                    continue
                lines = (folder / "status").read_text().splitlines()
            except OSError:  # it has ended
                continue
            peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))])
    return peak * 1024 / 1e6


def _kill_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def attacked(attack: Attack, bundle: Path) -> dict[str, object]:
    """Run an attack, print its result, and return it as a row of a record."""
    start = time.monotonic()
    faults, outcomes = carry_out(attack, bundle=bundle)
    row = {
        "item": attack.item,
        "name": attack.name,
        "commands": len(outcomes),
        "longest_s": round(max((outcome.seconds for outcome in outcomes), default=0.0), 2),
        "peak_mb": round(max((outcome.peak_mb for outcome in outcomes), default=0.0)),
        "faults": faults,
    }
    tell(row, time.monotonic() - start)
    return row


def tell(row: Mapping[str, Any], seconds: float) -> None:
    """Print a row of a record, and its faults."""
    print(f"{row['item']} {row['name']}: {'FAULT' if row['faults'] else 'good'} ({row['commands']} commands, longest "
          f"{row['longest_s']} s, at most {row['peak_mb']} MB; {seconds:.0f} s)", flush=True)  # fmt: skip
    for fault in row["faults"]:
        print(f"    {fault}", flush=True)
