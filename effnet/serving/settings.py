"""The settings of a server: its address, its limits and its life. It imports nothing slow, as `--help` reads it."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from effnet.errors import InputError
from effnet.system.bounds import MAX_THREADS
from effnet.system.options import option

_LEAST_KEY, _MOST_KEYS_BYTES = 16, 10**6


def read_keys(path: str) -> tuple[bytes, ...]:
    """Return the keys in a file, one a line, empty lines and comments (#) left out; raise InputError if it has none."""
    from effnet.system.files import read_bytes

    try:
        lines = [line.strip() for line in read_bytes(Path(path), limit_bytes=_MOST_KEYS_BYTES).splitlines()]
    except OSError as error:
        raise InputError(f"--keys must be a file that can be read; {path}: {error.strerror}") from error
    keys = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not keys:
        raise InputError(f"--keys must be a file with a key a line; {path} has none")
    short = next((number for number, key in enumerate(keys, 1) if len(key) < _LEAST_KEY), None)
    if short is not None:
        raise InputError(
            f"a key must have at least {_LEAST_KEY} characters; key {short} of {path} has {len(keys[short - 1])}: "
            "`openssl rand -hex 32` makes one"
        )
    return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a server serves; raises InputError for a value out of range. `keys` are the accepted keys themselves."""

    PREFIX: ClassVar[str] = "serve"

    host: str = option("Address to listen on; 0.0.0.0: on all.", default="127.0.0.1", main=True)
    port: int = option("Port to listen on; 0: any free one.", default=8000, main=True)
    keys: tuple[bytes, ...] | None = option(
        "File of the accepted keys, one a line; without it the server is open to all.", main=True, metavar="FILE",
        read=read_keys,
    )  # fmt: skip
    use: str | None = option(
        "Export to run, such as onnx-int8; by default each bundle's own.", main=True, metavar="FORMAT"
    )
    workers: int = option("Engines of one thread; 0: one per core.", default=0, main=True)
    deadline_ms: float = option(
        "Longest wait for an engine; a request that would wait longer is refused.", default=1000.0, main=True
    )
    page: bool = option("Show a page for people at /.", default=True, main=True)
    review: str | None = option(
        "Images to correct on the page: a folder or a manifest; scored while no request waits.", main=True,
        metavar="DATA",
    )  # fmt: skip
    watch: bool = option("Load a bundle again when it changes.", default=False, main=True)
    drain_seconds: float = option(
        "How long to serve on after SIGTERM, while the readiness is 503.", default=5.0, main=True
    )
    corrections: str = option(
        "File that the page appends corrections to; `effnet fit --corrections` reads it.",
        default="corrections.jsonl", metavar="FILE",
    )  # fmt: skip
    queue: int = option("Most requests that wait.", default=64)
    max_batch: int = option("Most images that run together; the best size up to it is measured.", default=8)
    max_delay_ms: float = option("How long an idle engine waits for a batch to fill.", default=0.0)
    engine_nice: int = option(
        "Steps of niceness by which engines run behind the thread that answers connections (Linux).", default=2
    )
    max_body_mb: float = option("Largest body of a request, in 10^6 bytes.", default=10.0)
    max_pixels: int = option("Largest image, width times height.", default=25_000_000)
    body_seconds: float = option("Time for the header, and for the body, of a request.", default=10.0)
    finish_seconds: float = option("Most time for what has begun, when the server ends.", default=30.0)
    log_requests: bool = option("Write a log line for each request.", default=True)

    def __post_init__(self) -> None:
        ranges = {
            "port": (0, 65535), "workers": (0, MAX_THREADS), "max_batch": (1, 1024), "max_delay_ms": (0, 10_000),
            "deadline_ms": (1, 600_000), "queue": (1, 100_000), "max_body_mb": (0.001, 1_000),
            "max_pixels": (1, 1_000_000_000), "body_seconds": (0.1, 600), "drain_seconds": (0, 3_600),
            "finish_seconds": (0, 3_600), "engine_nice": (0, 19),
        }  # fmt: skip
        for name, (least, most) in ranges.items():
            if not least <= (value := getattr(self, name)) <= most:
                raise InputError(f"{name.replace('_', '-')} must lie in {least:g}..{most:g}; got {value:g}")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the address."""
        from effnet.serving.http.address import is_local

        return is_local(self.host)

    @property
    def engines(self) -> int:
        """The number of engines."""
        from effnet.system.machine import usable_cores

        return self.workers or usable_cores()

    @property
    def max_body(self) -> int:
        """The longest body of a request, in bytes."""
        return round(self.max_body_mb * 10**6)

    @property
    def body_room(self) -> int:
        """The bytes that the bodies of all requests may take together."""
        return max(64 * 10**6, 4 * self.max_body)


_LEAST_RATE, _MOST_RATE = 1e-3, 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions(Settings):
    """The options of `effnet serve`: the settings of a server, and what is done instead of serving."""

    FLAGS: ClassVar[tuple[str, ...]] = (
        "host", "port", "keys", "use", "workers", "deadline_ms", "page", "review", "watch", "drain_seconds",
        "manifests", "out", "plan",
    )  # fmt: skip

    manifests: Literal["off", "kubernetes", "kserve", "compose"] = option(
        "Write manifests of these settings and a Dockerfile, instead of serving.", default="off", main=True
    )
    out: str = option("Folder of the manifests.", default="manifests", main=True, metavar="DIR")
    plan: float = option(
        "Say how many replicas answer these images a second within the deadline, instead of serving.", default=0.0,
        main=True, metavar="RATE",
    )  # fmt: skip
    plan_image: str = option("For --plan: an image as clients send it; by default a JPEG of 1024 x 768.", default="")

    def __post_init__(self) -> None:
        # Zero arguments of `super` do not work in a class with slots, which is made twice.
        Settings.__post_init__(self)
        if self.plan != 0 and not _LEAST_RATE <= self.plan <= _MOST_RATE:
            raise InputError(
                f"plan must lie in {_LEAST_RATE:g}..{_MOST_RATE:g} images a second, or be 0; got {self.plan:g}"
            )
