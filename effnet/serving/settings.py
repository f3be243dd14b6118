"""The settings of a server: its address, its limits and its life."""

from dataclasses import dataclass
from pathlib import Path

from effnet.errors import InputError
from effnet.system.bounds import MAX_THREADS
from effnet.system.machine import usable_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a server serves; raises InputError for a value out of range.

    `workers` are engines of one thread, 0 for one a core. `deadline_ms` is the longest wait for an engine, `queue` the
    most requests that wait, `max_batch` the most images that run together. `body_seconds` is the time for a request's
    header and body. `keys` are the accepted keys, none for a server that is open to all. After SIGTERM it serves for
    `drain_seconds` more, while its readiness says 503, and finishes what it has begun within `finish_seconds`. `format`
    is the export that answers, None for each bundle's own.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 0
    max_batch: int = 8
    max_delay_ms: float = 0.0
    deadline_ms: float = 1000.0
    queue: int = 64
    max_body_mb: float = 10.0
    max_pixels: int = 25_000_000
    body_seconds: float = 10.0
    keys: tuple[bytes, ...] = ()
    watch: bool = False
    drain_seconds: float = 5.0
    finish_seconds: float = 30.0
    format: str | None = None
    log_requests: bool = True

    def __post_init__(self) -> None:
        ranges = {
            "port": (0, 65535), "workers": (0, MAX_THREADS), "max_batch": (1, 1024), "max_delay_ms": (0, 10_000),
            "deadline_ms": (1, 600_000), "queue": (1, 100_000), "max_body_mb": (0.001, 1_000),
            "max_pixels": (1, 1_000_000_000), "body_seconds": (0.1, 600), "drain_seconds": (0, 3_600),
            "finish_seconds": (0, 3_600),
        }  # fmt: skip
        for name, (least, most) in ranges.items():
            if not least <= (value := getattr(self, name)) <= most:
                raise InputError(f"{name.replace('_', '-')} must lie in {least:g}..{most:g}; got {value:g}")

    @property
    def engines(self) -> int:
        """The number of engines."""
        return self.workers or usable_cores()

    @property
    def max_body(self) -> int:
        """The longest body of a request, in bytes."""
        return round(self.max_body_mb * 10**6)

    @property
    def body_room(self) -> int:
        """The bytes that the bodies of all requests may take together."""
        return max(64 * 10**6, 4 * self.max_body)


_LEAST_KEY, _MOST_KEYS_BYTES = 16, 10**6


def read_keys(path: Path) -> tuple[bytes, ...]:
    """Return the keys in a file, one a line, empty lines and comments (#) left out; raise InputError if it has none."""
    from effnet.system.files import read_bytes

    try:
        lines = [line.strip() for line in read_bytes(path, limit_bytes=_MOST_KEYS_BYTES).splitlines()]
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
