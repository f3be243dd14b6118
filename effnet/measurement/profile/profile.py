"""A device's profile: the latency and memory of networks on it, as one JSON file with a checksum."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.spec import ArchSpec
from effnet.bundle.formats import Precision
from effnet.errors import InputError, SpecError
from effnet.runtimes.registry import RUNTIMES
from effnet.system.bounds import is_number
from effnet.system.files import read_json, written_whole
from effnet.system.text import brief, reason_of

FORMAT = 1
# If the median network took this much longer in its median visit than in its quietest, the times are too noisy.
MOST_NOISE = 0.15
# The reference network may be this much slower at the end than at the start: more means throttling.
MOST_DRIFT = 0.10
# No time, size, frequency or error of a real device lies outside; squares of larger values overflow.
_LEAST, _MOST = 1e-9, 1e12
# The largest errors of predictions for networks of the profile that were held out of the fit.
MOST_ERROR = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The measurement of one network: milliseconds of a quiet run, spread of median over quietest visit, memory.

    `spread` is relative. `memory_mb` is the peak beyond the idle runtime in 10^6 bytes, None if it was not measured.
    """

    spec: ArchSpec
    precision: Precision
    latency_ms: float
    spread: float
    memory_mb: float | None = None

    def __post_init__(self) -> None:
        _must_be_positive("latency_ms", self.latency_ms)
        _must_be_number("spread", self.spread)
        if self.memory_mb is not None:
            _must_be_positive("memory_mb", self.memory_mb)
        if self.precision not in get_args(Precision):
            raise InputError(f"precision must be one of {', '.join(get_args(Precision))}; got {self.precision!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The stability of the machine: its frequency in MHz at start and end (None if the system does not report it), and
    the times of the reference network through the run, in ms and in order."""

    start_mhz: float | None = None
    end_mhz: float | None = None
    reference_ms: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for what, value in (("start_mhz", self.start_mhz), ("end_mhz", self.end_mhz)):
            if value is not None:
                _must_be_positive(what, value)
        for value in self.reference_ms:
            _must_be_positive("reference_ms", value)

    @property
    def drift(self) -> float:
        """The relative slowdown of the quietest visit in the last quarter over that in the first; below 0: faster."""
        quarter = len(self.reference_ms) // 4
        if not quarter:
            return 0.0
        return min(self.reference_ms[-quarter:]) / min(self.reference_ms[:quarter]) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """Measurements of networks on a device, in one runtime with one number of threads.

    `errors` are median errors of predictions within the profile, each of networks that were held out of the fit:
    latency and memory by precision, such as "fp32 latency".
    """

    runtime: str
    threads: int
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    measured: tuple[Measured, ...]
    clock: Clock
    errors: Mapping[str, float]
    seconds: float
    created: str

    def __post_init__(self) -> None:
        if not isinstance(self.runtime, str):
            raise InputError(f"runtime must be a runtime's name; got {brief(self.runtime)}")
        if not self.measured:
            raise InputError("a profile must hold at least one measured network; it holds none: measure it again")
        if type(self.threads) is not int or self.threads < 1:
            raise InputError(f"threads must be a whole number of at least 1; got {self.threads!r}")
        for what, values in (("machine", self.machine), ("versions", self.versions), ("errors", self.errors)):
            if not isinstance(values, Mapping):
                raise InputError(f"{what} must be names with their values; got {brief(values)}")
        for name, version in self.versions.items():
            if not isinstance(version, str):
                raise InputError(f"the version of {name} must be text; got {brief(version)}")
        for name, error in self.errors.items():
            _must_be_number(f"the error of {name}", error)
        _must_be_number("seconds", self.seconds)

    @property
    def package(self) -> str:
        """The package whose version determines the speed: the runtime's, or its name if effnet does not know it."""
        found = RUNTIMES.get(self.runtime)
        return found.need.package if found else self.runtime

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Its precisions, in order of appearance."""
        return tuple(dict.fromkeys(row.precision for row in self.measured))

    @property
    def noise(self) -> float:
        """The median over all networks of the relative difference of the median visit to the quietest."""
        spreads = sorted(row.spread for row in self.measured)
        return spreads[len(spreads) // 2]

    @property
    def doubts(self) -> tuple[str, ...]:
        """The reasons not to trust the profile, a sentence each; none if it can be trusted."""
        found = []
        if self.noise > MOST_NOISE:
            found.append(
                f"the machine was too noisy: the median network took {self.noise:.0%} more in its median visit than in "
                f"its quietest (at most {MOST_NOISE:.0%}); end other processes and measure again"
            )
        if self.clock.drift > MOST_DRIFT:
            found.append(
                f"the machine became slower: the reference network took {self.clock.drift:.0%} more at the end than at "
                f"the start (at most {MOST_DRIFT:.0%}); cool it, or fix its clock, and measure again"
            )
        for name, error in self.errors.items():
            most = MOST_ERROR if name.endswith("latency") else 0.10
            if error > most:
                found.append(f"predictions of {name} missed by {error:.1%} in the median (at most {most:.0%})")
        return tuple(found)


def check_profile(
    profile: DeviceProfile, *, runtime: str, threads: int, precision: Precision = "fp32", version: str = ""
) -> tuple[str, ...]:
    """Return warnings about using `profile` for this runtime, `threads` threads and precision.

    `version` is that of the runtime that will run the network, empty if it is unknown. Raises InputError if the
    profile cannot match: times of another runtime, number of threads or precision do not apply.
    """
    if profile.runtime != runtime:
        raise InputError(f"the profile must be of {runtime}; it is of {profile.runtime}: profile {runtime}")
    if profile.threads != threads:
        raise InputError(
            f"the profile must be of {threads} thread(s); it was measured with {profile.threads}: give threads="
            f"{profile.threads}, or profile with {threads}"
        )
    if precision not in profile.precisions:
        raise InputError(
            f"the profile must have been measured in {precision}; it was in {', '.join(profile.precisions)}: profile "
            f"with --precision {precision}"
        )
    measured_with = profile.versions.get(profile.package, "")
    found = []
    if version and version.split(".")[:2] != measured_with.split(".")[:2]:
        found.append(f"the profile was measured with {runtime} {measured_with}; {version} may be faster or slower")
    return (*found, *profile.doubts)


def _must_be_positive(what: str, value: object) -> None:
    if type(value) not in (int, float) or not 0 < value < math.inf:  # type: ignore[operator]
        raise InputError(f"{what} must be a finite number above 0; got {brief(value)}")
    if not _LEAST <= value <= _MOST:  # type: ignore[operator]
        raise InputError(f"{what} must lie in {_LEAST:g}..{_MOST:g}; got {brief(value)}")


def _must_be_number(what: str, value: object) -> None:
    if not is_number(value):
        raise InputError(f"{what} must be a finite number; got {brief(value)}")
    if not -_MOST <= value <= _MOST:  # type: ignore[operator]
        raise InputError(f"{what} must be at most {_MOST:g}; got {brief(value)}")


def write_profile(profile: DeviceProfile, path: Path) -> None:
    """Write `profile` as JSON with a checksum, whole or not at all."""
    data: dict[str, Any] = {
        "format": FORMAT,
        "runtime": profile.runtime,
        "threads": profile.threads,
        "created": profile.created,
        "seconds": profile.seconds,
        "machine": dict(profile.machine),
        "versions": dict(profile.versions),
        "clock": asdict(profile.clock),
        "errors": dict(profile.errors),
        "measured": [measured_to_dict(row) for row in profile.measured],
    }
    write_whole(path, json.dumps({**data, "checksum": checksum(data)}, separators=(",", ":"), allow_nan=False) + "\n")


def read_profile(path: str | os.PathLike[str]) -> DeviceProfile:
    """Return the profile at `path`.

    Raises InputError if it is missing, truncated, changed since it was written, or of another format.
    """
    data = read_checked(Path(path), "a device profile")
    try:
        clock = data["clock"] | {"reference_ms": tuple(data["clock"]["reference_ms"])}
        return DeviceProfile(
            runtime=data["runtime"],
            threads=data["threads"],
            machine=data["machine"],
            versions=data["versions"],
            measured=tuple(measured_from_dict(row) for row in data["measured"]),
            clock=Clock(**clock),
            errors=data["errors"],
            seconds=data["seconds"],
            created=data["created"],
        )
    except (KeyError, TypeError, AttributeError, SpecError) as error:
        raise InputError(f"{path} lacks a part of a device profile ({brief(error)}): measure it again") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def measured_to_dict(row: Measured) -> dict[str, Any]:
    """Return JSON-able data that `measured_from_dict` reads."""
    return {
        "precision": row.precision,
        "latency_ms": row.latency_ms,
        "spread": row.spread,
        "memory_mb": row.memory_mb,
        "spec": spec_to_dict(row.spec),
    }


def measured_from_dict(data: Mapping[str, Any]) -> Measured:
    """Return the measurement that `measured_to_dict` wrote; KeyError if a part is missing, InputError if invalid."""
    parts = {key: data[key] for key in ("precision", "latency_ms", "spread", "memory_mb")}
    return Measured(spec=spec_from_dict(data["spec"]), **parts)


def checksum(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON-able data, independent of its formatting."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def read_checked(path: Path, what: str) -> dict[str, Any]:
    """Return the JSON object at `path` without its checksum; raise InputError if either is invalid."""
    try:
        data = read_json(path)
    except FileNotFoundError as error:
        raise InputError(f"there must be {what} at {path}; there is none: `effnet profile --out` writes it") from error
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise InputError(f"{path} must hold {what} as JSON; it is truncated or not JSON: {reason}") from error
    if not isinstance(data, dict) or "checksum" not in data:
        raise InputError(f"{path} must hold {what} with its checksum; it does not: `effnet profile --out` writes one")
    if data.get("format") != FORMAT:
        raise InputError(f"this effnet reads {what} of format {FORMAT}; {path} has {brief(data.get('format'))}")
    said = data.pop("checksum")
    if said != checksum(data):
        raise InputError(f"{path} was changed since it was written: its checksum does not match; measure it again")
    return data


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` whole or not at all."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")
