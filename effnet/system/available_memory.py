"""The memory available to this process."""

import os
from collections.abc import Iterator
from pathlib import Path

# If the system does not report free memory, this share of all memory counts as free.
_SHARE = 0.5


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the bytes that this process can still allocate without swapping, None if the system does not report it.

    It is the minimum of Linux's MemAvailable and of the memory left in the control groups (version 1 and 2) above the
    process; their file caches count as free. `root` is the root of the file system.
    """
    found = [*_meminfo(root), *_groups(root)]
    if found:
        return max(0, min(found))
    try:
        return int(_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return None


def _meminfo(root: Path) -> Iterator[int]:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield 1024 * int(line.split()[1])


def _groups(root: Path) -> Iterator[int]:
    """Yield the memory left in each control group above this process that has a limit."""
    base = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names = (base, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = (base / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        yield from _left(path, *names)


def _left(path: str, base: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    parts = [part for part in path.split("/") if part]
    for depth in range(len(parts) + 1):
        folder = base.joinpath(*parts[:depth])
        most, used = _text(folder / limit).strip(), _text(folder / usage).strip()
        if most.isdigit() and used.isdigit():
            words = dict(line.split() for line in _text(folder / "memory.stat").splitlines() if line.count(" ") == 1)
            yield int(most) - int(used) + int(words.get(cache, 0))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
