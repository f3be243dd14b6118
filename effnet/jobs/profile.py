"""`effnet profile`: measure a device and write its profile."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import Precision
from effnet.errors import InputError
from effnet.measurement.profile.networks import is_mixture, profile_networks
from effnet.measurement.profile.profile import (
    FORMAT,
    Clock,
    DeviceProfile,
    Measured,
    checksum,
    read_checked,
    read_profile,
    write_profile,
    write_whole,
)
from effnet.measurement.profile.table import fit_latency, fit_memory, left_out_error
from effnet.measurement.profile.visits import Opened, Visits, reference_spec, visit_all
from effnet.measurement.speed.timing import time_model
from effnet.runtimes.installed import runtime_version
from effnet.runtimes.registry import DEFAULT, RUNTIMES
from effnet.runtimes.untrained import precisions_of, write_graph
from effnet.system.bounds import MAX_THREADS, check_whole
from effnet.system.lock import alone_in
from effnet.system.machine import clock_mhz, machine, usable_cores, versions

# The quantile, from the least on, at which the ratio of median to fastest run is taken.
_CALM_SHARE = 0.25
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The extent of a profile: random networks, mixtures, networks whose memory is measured, and the time.

    Of `networks` and `mixtures`, the first `least` are measured however slow the device is. `seconds` are for all
    precisions together.
    """

    networks: int = 64
    mixtures: int = 72
    memory_networks: int = 20
    least: int = 40
    least_memory: int = 8
    seconds: float = 240.0
    memory_share: float = 0.2
    seed: int = 0


PLAN = Plan()


@dataclass(slots=True, kw_only=True)
class _State:
    """The measurements so far, kept in a file beside the profile to resume after an interruption."""

    path: Path
    settings: dict[str, Any]
    visits: dict[Precision, Visits] = field(default_factory=dict)
    memory: dict[str, dict[int, float]] = field(default_factory=dict)
    references: list[float] = field(default_factory=list)
    start_mhz: float | None = None
    before: float = 0.0
    begun: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """The seconds of measuring, without interruptions."""
        return self.before + time.perf_counter() - self.begun

    def save(self) -> None:
        """Write all of it, whole or not at all."""
        data = {
            "format": FORMAT,
            "settings": self.settings,
            "visits": {precision: list(found.items()) for precision, found in self.visits.items()},
            "memory": {precision: list(found.items()) for precision, found in self.memory.items()},
            "references": self.references,
            "start_mhz": self.start_mhz,
            "seconds": self.seconds,
        }
        data = json.loads(json.dumps(data))
        write_whole(self.path, json.dumps({**data, "checksum": checksum(data)}))

    def load(self) -> None:
        """Resume from the saved measurements; raise InputError if they were made with other settings."""
        data = read_checked(self.path, "an unfinished profile")
        for name, value in data["settings"].items():
            if self.settings.get(name) != value:
                raise InputError(
                    f"{self.path} was begun with {name} {value!r}; got {self.settings.get(name)!r}: resume with the "
                    "same, or measure again without --resume"
                )
        self.visits = {
            precision: {number: [tuple(visit) for visit in visits] for number, visits in found}
            for precision, found in data["visits"].items()
        }
        self.memory = {precision: dict(map(tuple, found)) for precision, found in data["memory"].items()}
        self.references, self.start_mhz, self.before = data["references"], data["start_mhz"], data["seconds"]


def unfinished_path(out: Path) -> Path:
    """Return the path of an unfinished profile beside `out`."""
    return out.with_name(out.name + ".unfinished")


def profile(
    out: Path,
    *,
    runtime: str = DEFAULT,
    threads: int = 1,
    precisions: Sequence[Precision] | None = None,
    resume: bool = False,
    plan: Plan | None = None,
    progress: Progress | None = None,
) -> DeviceProfile:
    """Measure this machine in one runtime with `threads` threads (0: one per core) and write the profile to `out`.

    `precisions` are by default all that the runtime can be profiled in. Measurements are kept beside `out` until the
    profile is complete; `resume` continues from them. `progress` receives the seconds done and their total. Raises
    InputError for invalid settings, MissingExtraError if a package is not installed.
    """
    plan = plan or PLAN
    state = _prepare(out, runtime=runtime, threads=threads, precisions=precisions, plan=plan)
    with alone_in(out):
        return _profile(out, state, plan, resume=resume, progress=progress)


def _profile(out: Path, state: _State, plan: Plan, *, resume: bool, progress: Progress | None) -> DeviceProfile:
    if resume and not state.path.is_file() and out.is_file():
        return _whole(out, state.settings)
    if resume and state.path.is_file():
        state.load()
    elif state.start_mhz is None:
        state.start_mhz = clock_mhz()
    tell = partial(_tell, progress, state, plan)
    specs = profile_networks(networks=plan.networks, mixtures=plan.mixtures, seed=plan.seed)
    wanted = state.settings["precisions"]
    for number, precision in enumerate(wanted):
        share = (plan.seconds - state.seconds) / (len(wanted) - number)
        _measure_latency(specs, precision, state, plan, seconds=(1 - plan.memory_share) * share, tell=tell)
        _measure_memory(specs, precision, state, plan, seconds=plan.memory_share * share, tell=tell)
    profile = _finish(specs, state)
    write_profile(profile, out)
    state.path.unlink(missing_ok=True)
    return profile


def _whole(out: Path, settings: dict[str, Any]) -> DeviceProfile:
    """Return the finished profile at `out`; raise InputError if it was made with other settings."""
    found = read_profile(out)
    has = (found.runtime, found.threads, sorted(found.precisions))
    asked = (settings["runtime"], settings["threads"], sorted(settings["precisions"]))
    if has != asked:
        raise InputError(f"{out} is complete, and of {has}; got {asked}: measure it again without --resume")
    return found


def _prepare(out: Path, *, runtime: str, threads: int, precisions: Sequence[Precision] | None, plan: Plan) -> _State:
    possible = precisions_of(runtime)
    wanted = tuple(precisions or possible)
    for precision in wanted:
        if precision not in possible:
            raise InputError(f"--precision for {runtime} must be one of {', '.join(possible)}; got {precision!r}")
    check_whole("threads", threads, least=0, most=MAX_THREADS)
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError(f"--out must name a file in a folder that exists; got {out}")
    settings = {
        "runtime": runtime,
        "threads": threads or usable_cores(),
        "precisions": list(wanted),
        "version": runtime_version(runtime),
        "effnet": versions().get("effnet", ""),
        "cpu": machine()["cpu"],
        "plan": [plan.networks, plan.mixtures, plan.seed],
    }
    return _State(path=unfinished_path(out), settings=settings)


def _tell(progress: Progress | None, state: _State, plan: Plan) -> None:
    if progress is not None:
        progress(min(round(state.seconds), round(plan.seconds)), round(plan.seconds))


def _measure_latency(
    specs: Sequence[ArchSpec], precision: Precision, state: _State, plan: Plan, *, seconds: float,
    tell: Callable[[], None],
) -> None:  # fmt: skip
    runtime, threads = state.settings["runtime"], state.settings["threads"]

    def keep() -> None:
        state.save()
        tell()

    def open_network(spec: ArchSpec) -> Opened:
        tell()
        return Opened(spec, runtime=runtime, threads=threads, precision=precision)

    # The same for all precisions: its time must depend on the machine alone.
    reference = Opened(reference_spec(), runtime=runtime, threads=threads, precision="fp32")

    visit_all(
        specs,
        state.visits.setdefault(precision, {}),
        state.references,
        reference=reference,
        open_network=open_network,
        seconds=seconds,
        least=plan.least,
        after_pass=keep,
    )


def _measure_memory(
    specs: Sequence[ArchSpec], precision: Precision, state: _State, plan: Plan, *, seconds: float,
    tell: Callable[[], None],
) -> None:  # fmt: skip
    """Measure the memory of the first networks, each in a process of its own."""
    found = state.memory.setdefault(precision, {})
    runtime, threads = state.settings["runtime"], state.settings["threads"]
    end = time.perf_counter() + seconds
    timed = [number for number in range(len(specs)) if number in state.visits[precision]]
    # Real networks first: only they have weights in the proportions that memory depends on.
    chosen = sorted(timed, key=lambda number: is_mixture(specs[number]))[: plan.memory_networks]
    for place, number in enumerate(chosen):
        if number in found or (time.perf_counter() > end and place >= plan.least_memory):
            continue
        with TemporaryDirectory(prefix="effnet-profile-") as scratch:
            path = write_graph(specs[number], Path(scratch), runtime=runtime, precision=precision)
            found[number] = time_model(path, threads=threads, rounds=1, seconds=0.0, runtime=runtime).memory_mb
        state.save()
        tell()


def _finish(specs: Sequence[ArchSpec], state: _State) -> DeviceProfile:
    rows = [row for precision in state.visits for row in _rows(specs, precision, state)]
    runtime = state.settings["runtime"]
    found = {name: version for name, version in versions().items() if name in ("effnet", "python", "numpy", "onnx")}
    return DeviceProfile(
        runtime=runtime,
        threads=state.settings["threads"],
        machine=machine(),
        versions=found | {RUNTIMES[runtime].need.package: state.settings["version"]},
        measured=tuple(rows),
        clock=Clock(
            start_mhz=state.start_mhz, end_mhz=clock_mhz(), reference_ms=tuple(round(r, 5) for r in state.references)
        ),
        errors=_errors(rows),
        seconds=round(state.seconds, 1),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _rows(specs: Sequence[ArchSpec], precision: Precision, state: _State) -> list[Measured]:
    """Return the time of each network: its fastest run times the ratio of median to fastest run in a quiet visit.

    That ratio is one number for the device. On a busy machine most medians are too high, so it is taken from the
    quietest visits.
    """
    visits, memory = state.visits[precision], state.memory.get(precision, {})
    calmest = {number: min(median for median, _ in found) for number, found in visits.items()}
    fastest = {number: min(least for _, least in found) for number, found in visits.items()}
    ratios = sorted(calmest[number] / fastest[number] for number in visits)
    ratio = ratios[int(_CALM_SHARE * len(ratios))]
    return [
        Measured(
            spec=specs[number],
            precision=precision,
            latency_ms=round(ratio * fastest[number], 6),
            spread=round(statistics.median(median for median, _ in found) / calmest[number] - 1, 4),
            memory_mb=memory.get(number) or None,
        )
        for number, found in sorted(visits.items())
    ]


def _errors(rows: Sequence[Measured]) -> dict[str, float]:
    """Return the median errors of predictions for random networks that were held out of the fit."""
    found = {}
    for precision in dict.fromkeys(row.precision for row in rows):
        some = [row for row in rows if row.precision == precision]
        known = [row for row in some if row.memory_mb is not None]
        latency = left_out_error(
            some, fit=fit_latency, value=lambda row: row.latency_ms, counts=lambda row: not is_mixture(row.spec)
        )
        memory = left_out_error(
            known, fit=fit_memory, value=lambda row: row.memory_mb or 0.0, counts=lambda row: not is_mixture(row.spec)
        )
        for name, error in (("latency", latency), ("memory", memory)):
            if error is not None:
                found[f"{precision} {name}"] = round(error, 4)
    return found
