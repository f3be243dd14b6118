"""The machine and the versions on which a number was measured."""

import os
import platform
import resource
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("effnet", "torch", "onnxruntime", "onnx", "numpy", "pillow", "scikit-learn", "safetensors")

_CLOCK_FILES = "cpu[0-9]*/cpufreq/scaling_cur_freq"


def machine() -> dict[str, Any]:
    """Return the processor's name, its usable cores, the memory in GB, the system and the load of the last minute."""
    return {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "memory_gb": _memory_gb(),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 2),
    }


def usable_cores() -> int:
    """Return the number of cores that this process may use: of a container's quota, the whole ones, at least 1."""
    if sys.platform.startswith("linux"):
        found = len(os.sched_getaffinity(0))
        return max(1, min([found, *map(int, core_quotas())]))
    return os.cpu_count() or 1


def core_quotas(root: Path = Path("/")) -> Iterator[float]:
    """Yield the processor time, in cores, of each control group (version 1 and 2) above this process that has a limit.

    `root` is the root of the file system.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        parts = [part for part in path.split("/") if part]
        for folder in (base.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)):
            if controllers:
                quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
            else:
                quota, _, period = _text(folder / "cpu.max").partition(" ")
            if quota.isdigit() and period.isdigit() and int(period):
                yield int(quota) / int(period)


def clock_mhz() -> float | None:
    """Return the current clock of the fastest core in MHz; None if the system does not report it."""
    found = [float(text) / 1e3 for text in map(_text, Path("/sys/devices/system/cpu").glob(_CLOCK_FILES)) if text]
    if not found:
        lines = _text(Path("/proc/cpuinfo")).splitlines()
        found = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return round(max(found), 1) if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def resident_mb() -> float:
    """Return the resident memory of this process in 10^6 bytes; on macOS its peak."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def peak_mb() -> float:
    """Return the peak resident memory of this process in 10^6 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
