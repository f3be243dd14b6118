"""Items 5, 7 and 9: two processes in one folder, signals, closed streams, no home and little memory."""

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.attacks.ground import Attack, Command, Ground

_QUICK = ("--set", "fit.max_params=20000", "--epochs", "1", "--weights", "none")
_LONG = ("--set", "fit.max_params=20000", "--epochs", "200", "--weights", "none")


def two(*words: str, inside: bool = False) -> Callable[[Ground], Sequence[Command]]:
    """Return an attack that runs a command twice at once, for one folder; BUNDLE is replaced by the bundle."""

    def prepare(ground: Ground) -> Sequence[Command]:
        told = [str(ground.bundle) if word == "BUNDLE" else word for word in words]
        out = [] if inside else ["--out", ground.path("out")]
        whole = Command(words=("predict", ground.bundle if inside else ground.path("out"), ground.image), codes=(0,))
        return Command(words=(*told, *out), codes=(0, 2), beside=True), whole

    return prepare


def busy(threads: int) -> Callable[[Ground], Sequence[Command]]:
    """Return an attack that plans for a latency once on the machine as it is, and once under background load.

    The benchmark's own machine may be busy the first time, too; then that plan must say so. It is a whole fit, whose
    training has no time limit.
    """

    def prepare(ground: Ground) -> Sequence[Command]:
        cores = os.cpu_count() or 1
        words = ("fit", "digits", "--max-latency-ms", "0.3", "--epochs", "1", "--weights", "none",
                 "--set", f"fit.threads={min(threads, cores)}")  # fmt: skip
        return [
            Command(
                words=(*words, "--out", ground.path(f"out{load}")), codes=(0, 4), busy=load, seconds=300, memory_mb=2000
            )
            for load in (0, cores)
        ]

    return prepare


def _planned(ground: Ground) -> str:
    """Return the fault of two plans: another network under load, without a message about it."""
    paths = [ground.path(f"out{load}") / "report.json" for load in (0, os.cpu_count() or 1)]
    if not all(path.exists() for path in paths):  # exit code 4: the message says that nothing could be judged
        return ""
    calm, loaded = (json.loads(path.read_text()) for path in paths)
    names = [report["network"]["name"] for report in (calm, loaded)]
    return "" if names[0] == names[1] or loaded["busy"] else f"planned {names[1]} instead of {names[0]} without a word"


def terminated(number: signal.Signals, code: int) -> Callable[[Ground], Sequence[Command]]:
    """Return an attack that ends a fit by a signal, and then resumes it for its last epochs."""

    def prepare(ground: Ground) -> Sequence[Command]:
        (ground.path("tmp")).mkdir()
        words = ("fit", "digits", *_LONG, "--out", ground.path("out"))
        env = {"TMPDIR": str(ground.path("tmp"))}
        return (Command(words=words, codes=(code,), says="--resume", stop=(number, "epoch 2:"), env=env),)

    return prepare


def _nothing_left(ground: Ground) -> str:
    # PyTorch creates its own cache there, however a process ends.
    left = [path.name for path in ground.path("tmp").iterdir() if not path.name.startswith("torchinductor")]
    checkpoints = list(ground.path("out").rglob("*.safetensors"))
    return f"left in the temporary folder: {left}" if left else "" if checkpoints else "no checkpoint was saved"


def early(ground: Ground) -> Sequence[Command]:
    """Ctrl-C in the first moments of a command."""
    return [
        Command(
            words=(
                "models",
                "list",
            ),
            codes=(0, 130),
            stop=(signal.SIGINT, 0.02 + 0.02 * number),
        )
        for number in range(15)
    ]


def closed(*descriptors: int) -> Callable[[Ground], Sequence[Command]]:
    """Return an attack that closes standard streams before each verb starts."""

    def prepare(ground: Ground) -> Sequence[Command]:
        verbs = (
            ("predict", ground.bundle, ground.image), ("models", "list"), ("evaluate", ground.bundle, "digits"),
            ("data", "inspect", "digits"), ("models", "cost", "b0"), ("bench", ground.bundle), ("--help",),
            ("predict", "nothing", "none"),
        )  # fmt: skip
        return [Command(words=words, codes=(0, 1, 2), closed=descriptors) for words in verbs]

    return prepare


def _full_device() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)


def full(ground: Ground) -> Sequence[Command]:
    """A standard output that cannot be written."""
    verbs = (("predict", ground.bundle, ground.image), ("models", "list"), ("data", "inspect", "digits"))
    return [Command(words=words, codes=(1,), before=_full_device) for words in verbs]


def homeless(ground: Ground) -> Sequence[Command]:
    """A user without a name and a home."""
    for path in (ground.folder, *ground.folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    env = {"HOME": None, "USER": None, "LOGNAME": None, "EFFNET_CACHE": None, "XDG_CACHE_HOME": None,
           "TMPDIR": str(ground.folder), "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
    verbs: tuple[tuple[Any, ...], ...] = (
        ("predict", ground.bundle, ground.image), ("evaluate", ground.bundle, "digits"), ("data", "inspect", "digits"),
        ("fit", "digits", *_QUICK, "--out", ground.path("out")),
    )  # fmt: skip
    return [Command(words=words, codes=(0,), env=env, prefix=_nobody()) for words in verbs]


def _nobody() -> tuple[str, ...]:
    """Return the prefix that runs a process as an unknown user, who may read below root's folder."""
    if os.getuid() or shutil.which("setpriv") is None:
        return ()
    able = "+dac_override,+dac_read_search"
    return ("setpriv", "--reuid=54321", "--clear-groups", f"--inh-caps={able}", f"--ambient-caps={able}")


def _limit(megabytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes * 10**6, megabytes * 10**6))


def little_memory(ground: Ground) -> Sequence[Command]:
    """Less memory than a command needs; with still less, PyTorch's own native code ends the process as it loads."""
    out = ground.path("out")
    train = ("train", "digits", "--model", "lite0", "--resolution", "64", "--epochs", "1", "--out", out)
    limits = [(("predict", ground.bundle, ground.image), size) for size in (150, 300, 500)]
    return [
        Command(words=words, codes=(0, 1), before=_limit(size), lacks=("interrupted",))
        for words, size in (*limits, (train, 2000))
    ]


def full_disk(ground: Ground) -> Sequence[Command]:
    """A disk of 1 MB that is full before the bundle is complete."""
    place = ground.path("disk")
    place.mkdir()
    if os.system(f"mount -t tmpfs -o size=700k none {place} 2>/dev/null"):
        shutil.rmtree(place)
        return ()
    return (Command(words=("fit", "digits", *_QUICK, "--out", place / "out"), codes=(1,), says="the disk is full"),)


def _unmount(ground: Ground) -> str:
    place = ground.path("disk")
    if not place.exists():
        return ""
    left = [path.name for path in place.rglob("*.tmp")]
    os.system(f"umount {place}")
    return f"left on the full disk: {left}" if left else ""


ATTACKS = (
    Attack(
        item=5,
        name="two fits of a head",
        prepare=two("fit", "digits", "--weights", "BUNDLE", "--set", "fit.strategy=head"),
    ),
    Attack(item=5, name="two fits from scratch", prepare=two("fit", "digits", *_QUICK)),
    Attack(item=5, name="two prunings", prepare=two("prune", "BUNDLE", "digits", "--macs", "0.8", "--epochs", "1")),
    Attack(
        item=5, name="two quantizations", prepare=two("quantize", "BUNDLE", "digits", "--set", "quantize.train=false")
    ),
    Attack(
        item=5,
        name="two exports",
        prepare=two("export", "BUNDLE", "--to", "executorch", inside=True),
    ),
    Attack(item=7, name="a busy machine, one thread", prepare=busy(1), after=_planned),
    Attack(item=7, name="a busy machine, two threads", prepare=busy(2), after=_planned),
    Attack(item=9, name="SIGTERM", prepare=terminated(signal.SIGTERM, 143), after=_nothing_left),
    Attack(item=9, name="SIGHUP", prepare=terminated(signal.SIGHUP, 129), after=_nothing_left),
    Attack(item=9, name="Ctrl-C", prepare=terminated(signal.SIGINT, 130), after=_nothing_left),
    Attack(item=9, name="Ctrl-C at once", prepare=early),
    Attack(item=9, name="a closed standard output", prepare=closed(1)),
    Attack(item=9, name="all streams closed", prepare=closed(0, 1, 2)),
    Attack(item=9, name="a full standard output", prepare=full),
    Attack(item=9, name="no home and no name", prepare=homeless),
    Attack(item=9, name="little memory", prepare=little_memory),
    Attack(item=9, name="a full disk", prepare=full_disk, after=_unmount),
)
