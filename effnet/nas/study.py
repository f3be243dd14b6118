"""The shared record of a search: units of work that any number of workers claim, finish, and take over from the dead.

It is an Optuna study: a journal in a file for one machine, or a database for several. A unit is a place in a
generation; its result depends on nothing but the completed generations before it, so it does not matter which worker
computes it, how often one is killed, or how many there are.
"""

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from effnet.errors import EffnetError, InputError
from effnet.nas.storage import Waiting, load_study, patiently, without_password
from effnet.system.lock import alone, in_use
from effnet.system.text import reason_of

if TYPE_CHECKING:
    import optuna

T = TypeVar("T")

_LOCK = ".worker-"
_UNIT, _WORKER, _BEAT, _RESULT = "unit", "worker", "beat", "result"
_POLL_SECONDS = 1.0
"""The pause while another worker has a unit."""


class Unit(NamedTuple):
    """One piece of work: its generation and its place there."""

    generation: int
    slot: int


def seed_of(key: str, *numbers: int) -> int:
    """Return the seed of a place in a search, a number below 2^31 that depends on nothing else."""
    text = json.dumps([key, *numbers]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big") >> 1


@dataclass(slots=True, kw_only=True)
class _Silence:
    """The latest sign of life of a worker, and when this process first saw it, by its own clock."""

    beat: int
    since: float


@dataclass(slots=True, kw_only=True)
class Study:
    """A search's record, as one worker sees it; `open_study` makes it."""

    _study: "optuna.Study"
    _waiting: Waiting
    _where: str
    _worker: str
    _seen: dict[int, _Silence] = field(default_factory=dict)

    def results(self) -> dict[Unit, dict[str, Any]]:
        """Return the results of all finished units, those of one generation in the order of their places."""
        found: dict[Unit, dict[str, Any]] = {}
        for trial in self._trials():
            if _finished(trial):
                found.setdefault(_unit(trial), json.loads(trial.user_attrs[_RESULT]))
        return dict(sorted(found.items()))

    def work(self, unit: Unit, do: Callable[[], Mapping[str, Any]], *, score: str = "") -> dict[str, Any] | None:
        """Do a unit, record its result under `score` as its value, and return it; None if another worker has it.

        A unit that is interrupted or fails is free for others at once.
        """
        claimed = self._claim(unit)
        if claimed is None:
            return None
        ended = False
        try:
            with self._alive(claimed):
                result: dict[str, Any] = json.loads(json.dumps(dict(do())))
            self._end(claimed, result, value=float(result.get(score) or 0.0))
            ended = True
        finally:
            if not ended:
                with suppress(Exception):  # the storage may be what failed
                    self._fail(claimed.number)
        return result

    def in_turn(
        self, units: Sequence[Unit], do: Callable[[Unit], Mapping[str, Any]], *, score: str = "",
        late: Callable[[], bool] = lambda: False,
    ) -> dict[Unit, dict[str, Any]]:  # fmt: skip
        """Work until all `units` are finished, by this worker or others, and return their results in order.

        Nothing is begun, nor waited for, once it is `late`: the finished ones alone are returned then.
        """
        told = False
        while True:
            found = self.results()
            left = [unit for unit in units if unit not in found]
            if not left or late():
                return {unit: found[unit] for unit in units if unit in found}
            if any(self.work(unit, lambda unit=unit: do(unit), score=score) is not None for unit in left):  # type: ignore[misc]
                continue
            if not told:
                self._waiting.say(f"Waiting for another worker, which has {len(left)} of {len(units)} parts in hand")
                told = True
            self._waiting.pause(_POLL_SECONDS)

    def _claim(self, unit: Unit) -> "optuna.Trial | None":
        """Return a new trial for the unit, or None if a live worker has it: of several claims the first one counts."""
        if self._holder(unit) is not None:
            return None
        trial = self._patiently(self._study.ask)
        self._patiently(lambda: trial.set_user_attr(_WORKER, self._worker))
        self._patiently(lambda: trial.set_user_attr(_UNIT, list(unit)))
        if self._holder(unit) == trial.number:
            return trial
        self._fail(trial.number)
        return None

    def _holder(self, unit: Unit) -> int | None:
        """Return the number of the trial that finished the unit, else of the first that a live worker runs."""
        mine = [trial for trial in self._trials() if _unit(trial) == unit]
        for trial in mine:
            if _finished(trial):
                return int(trial.number)
        for trial in mine:
            if not trial.state.is_finished():
                if not self._is_dead(trial):
                    return int(trial.number)
                self._fail(trial.number)
        return None

    def _is_dead(self, trial: "optuna.trial.FrozenTrial") -> bool:
        """Return whether the worker of a running trial has ended.

        The lock of a worker at the same file tells. Others give signs of life, timed by this process's clock alone: the
        clocks of two machines differ.
        """
        if (worker := trial.user_attrs[_WORKER]).startswith(_LOCK):
            lock = Path(self._where).with_name(worker)
            return not (lock.exists() and in_use(lock))  # asking for it would make it
        now, beat = self._waiting.clock(), int(trial.user_attrs.get(_BEAT, 0))
        seen = self._seen.get(trial.number)
        if seen is None or seen.beat != beat:
            self._seen[trial.number] = _Silence(beat=beat, since=now)
            return False
        return now - seen.since > self._waiting.silent_seconds

    @contextmanager
    def _alive(self, trial: "optuna.Trial") -> Iterator[None]:
        """Give signs of life while the body runs."""
        done = threading.Event()

        def beat() -> None:
            number = 0
            while not done.wait(self._waiting.beat_seconds):
                number += 1
                with suppress(Exception):  # the worker itself meets the failure at its next step
                    trial.set_user_attr(_BEAT, number)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _end(self, trial: "optuna.Trial", result: Mapping[str, Any], *, value: float) -> None:
        self._patiently(lambda: trial.set_user_attr(_RESULT, json.dumps(result)))
        self._patiently(lambda: self._study.tell(trial.number, value, skip_if_finished=True))

    def _fail(self, number: int) -> None:
        import optuna

        failed = optuna.trial.TrialState.FAIL
        self._patiently(lambda: self._study.tell(number, state=failed, skip_if_finished=True))

    def _trials(self) -> "list[optuna.trial.FrozenTrial]":
        """Return the trials that name their unit and worker, in order."""
        found = self._patiently(lambda: self._study.get_trials(deepcopy=False))
        return [trial for trial in found if {_UNIT, _WORKER} <= trial.user_attrs.keys()]

    def _patiently(self, act: Callable[[], T]) -> T:
        """Return the result of an operation on the storage; wait and try again while a database does not answer."""
        return patiently(act, waiting=self._waiting, where=self._where)


@contextmanager
def open_study(storage: str, *, waiting: Waiting, options: Mapping[str, Any], key: str) -> Iterator[Study]:
    """Open the search in `storage`, a file's path or a database's URL, or begin one there; be a worker of it.

    `options` with the `key` of the data are what all its workers share. Raises InputError if the search there has
    others, or if the storage cannot be opened.
    """
    where = without_password(storage)
    with ExitStack() as stack:
        try:
            found, close = patiently(lambda: load_study(storage), waiting=waiting, where=where)
            stack.callback(close)
            worker = f"{_LOCK}{uuid.uuid4().hex}" if "://" not in storage else uuid.uuid4().hex
            if worker.startswith(_LOCK):
                lock = Path(storage).with_name(worker)
                _sweep(lock.parent)
                stack.callback(lock.unlink, missing_ok=True)
                stack.enter_context(alone(lock))
            study = Study(_study=found, _waiting=waiting, _where=where, _worker=worker)
            _check_same(study, {**json.loads(json.dumps(options, default=str)), "data": key})
        except EffnetError:
            raise
        except Exception as error:  # optuna raises whatever a damaged line leads to
            raise InputError(
                f"{where} must hold a search; it cannot be read ({reason_of(error)}): name another storage"
            ) from error
        yield study


def _sweep(folder: Path) -> None:
    """Remove the locks of workers that were killed."""
    for lock in folder.glob(f"{_LOCK}*"):
        if not in_use(lock):
            lock.unlink(missing_ok=True)


def _check_same(study: Study, options: Mapping[str, Any]) -> None:
    """Write what all workers share into a new search; raise InputError if that of an older one differs."""
    known = study._patiently(lambda: study._study.user_attrs).get("options")
    if known is None:
        study._patiently(lambda: study._study.set_user_attr("options", json.dumps(options)))
        return
    before = json.loads(known)
    other = [
        f"{name} was {before.get(name)!r}, now {options.get(name)!r}"
        for name in dict.fromkeys([*before, *options])
        if before.get(name) != options.get(name)
    ]
    if other:
        raise InputError(
            f"workers of one search must have the same options and images; the search in {study._where} has others: "
            f"{'; '.join(other)}. Repeat its options, or name another storage"
        )


def forget_log(log: Path, out: Path) -> None:
    """Remove the file of a search that could not begin, and the folders that it was in, up to `out`, if empty."""
    log.unlink(missing_ok=True)
    with suppress(OSError):
        log.parent.rmdir()
        out.rmdir()


def _unit(trial: "optuna.trial.FrozenTrial") -> Unit:
    return Unit(*trial.user_attrs[_UNIT])


def _finished(trial: "optuna.trial.FrozenTrial") -> bool:
    import optuna

    return bool(trial.state == optuna.trial.TrialState.COMPLETE and _RESULT in trial.user_attrs)
