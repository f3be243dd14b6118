"""The storage of a search: an Optuna study in a journal, a file, or in a database, and how a worker waits for it."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from effnet.errors import InputError, MissingExtraError
from effnet.system.lock import LOCKS, alone

if TYPE_CHECKING:
    import optuna

T = TypeVar("T")

_STUDY = "effnet-search"
# A worker shows that it is alive this often; another that sees no sign for the second span takes its unit over.
_BEAT_SECONDS, _SILENT_SECONDS = 30.0, 150.0
# Waiting for a storage that does not answer: the first and the longest pause.
_RETRY_SECONDS, _MOST_RETRY_SECONDS = 1.0, 30.0
# Classes of SQLSTATE of a server that starts, stops or has no connection left (PostgreSQL 17, appendix A).
_PASSING_STATES = ("08", "53", "57")


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How a worker waits: `clock` counts seconds, `pause` waits for some, `say` tells the user why."""

    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    beat_seconds: float = _BEAT_SECONDS
    silent_seconds: float = _SILENT_SECONDS


def load_study(storage: str) -> "tuple[optuna.Study, Callable[[], None]]":
    """Return the study in a storage, and what frees its connections."""
    try:
        import optuna
        from optuna.storages import JournalStorage, RDBStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise MissingExtraError("optuna", "train") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)  # it logs each connection of a server that died
    kept: Any
    close: Callable[[], None] = _nothing
    if "://" in storage:
        _check_address(storage)
        try:
            kept = RDBStorage(_with_driver(storage), engine_kwargs={"pool_pre_ping": True})
            close = kept.engine.dispose
        except ImportError as error:
            raise MissingExtraError("pg8000", "postgres") from error
    else:
        Path(storage).parent.mkdir(parents=True, exist_ok=True)
        lock: Any = _SystemLock(Path(storage)) if LOCKS else None
        kept = JournalStorage(JournalFileBackend(storage, lock_obj=lock))
    # No sampler proposes anything: this one draws nothing either.
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(
        storage=kept, study_name=_STUDY, load_if_exists=True, direction="maximize", sampler=sampler
    )
    return study, close


def _nothing() -> None:
    """Do nothing."""


class _SystemLock:
    """The lock of a journal file, which the system frees at once when its holder is killed; Optuna's own waits."""

    def __init__(self, path: Path) -> None:
        self._path, self._held = path, ExitStack()

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._held.enter_context(alone(self._path))
        return True

    def release(self) -> None:
        """Free the lock."""
        self._held.close()


def _check_address(storage: str) -> None:
    """Raise InputError unless the URL of a PostgreSQL server names its host and a database."""
    try:
        found = urlsplit(storage)
        named = bool(found.hostname and found.path.strip("/"))
    except ValueError:
        named = False
    if storage.startswith("postgres") and not named:
        raise InputError(
            f"the URL of a database must name its host and the database, as in postgresql://USER@HOST/NAME; got "
            f"{without_password(storage)}"
        )


def _with_driver(storage: str) -> str:
    """Return the URL of a PostgreSQL database with the driver that the extra installs."""
    scheme, mark, rest = storage.partition("://")
    return f"postgresql+pg8000{mark}{rest}" if scheme in ("postgresql", "postgres") else storage


def patiently(act: Callable[[], T], *, waiting: Waiting, where: str) -> T:
    """Return the result of an operation on a storage; wait, say so, and try again while a database does not answer."""
    pause, told = _RETRY_SECONDS, False
    while True:
        try:
            found = act()
        except Exception as error:
            if not _may_pass(error):
                raise
            if not told:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                waiting.say(f"The storage {where} does not answer ({reason}); waiting for it")
                told = True
            waiting.pause(pause)
            pause = min(2 * pause, _MOST_RETRY_SECONDS)
            continue
        if told:
            waiting.say(f"The storage {where} answers again")
        return found


def _may_pass(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, says that a database cannot be reached or is not ready."""
    while error is not None:
        if type(error).__name__ in ("OperationalError", "InterfaceError"):
            return True
        states = [str(each["C"]) for each in error.args if isinstance(each, dict) and "C" in each]
        if any(state[:2] in _PASSING_STATES for state in states):
            return True
        error = error.__cause__
    return False


def without_password(storage: str) -> str:
    """Return a storage as messages may show it."""
    head, at, rest = storage.rpartition("@")
    return f"{head.partition('://')[0]}://...@{rest}" if at and "://" in head else storage
