"""The files that belong to images: one name for each, in folders like those of the images, and none twice."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

# What some file system cannot hold in a name, and control characters.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\ud800-\udfff]')
_MOST_BYTES = 200


def output_names(paths: Sequence[str]) -> list[str]:
    """Return a relative name without a suffix for each image, such as "a/1" of "/data/a/1.jpg" beside "/data/b/1.jpg".

    The folders that all have in common are left out, and no name leaves its folder. Of images that differ in suffix or
    case alone, the suffix is kept ("1.jpg", "1.png"), or a number is added ("1_2").
    """
    split = [_parts(path) for path in paths]
    common = _common([parts[:-1] for parts in split])
    whole = ["/".join(parts[common:]) for parts in split]
    stems = [_stem(name) for name in whole]
    counts = Counter(stem.casefold() for stem in stems)
    names: list[str] = []
    taken: set[str] = set()
    for stem, name in zip(stems, whole, strict=True):
        base = stem if counts[stem.casefold()] == 1 else name
        found, number = base, 1
        while found.casefold() in taken:
            number += 1
            found = f"{base}_{number}"
        taken.add(found.casefold())
        names.append(found)
    return names


def _parts(path: str) -> list[str]:
    parts = [_safe(part) for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return [part for part in parts if part] or ["image"]


def _safe(part: str) -> str:
    """Return a part of a path that every file system can hold."""
    safe = _UNSAFE.sub("_", part).strip().rstrip(".")
    while len(safe.encode()) > _MOST_BYTES:
        safe = safe[:-20] + safe[-19:]  # the suffix stays
    return safe


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _common(folders: Sequence[Sequence[str]]) -> int:
    """Return the number of folders that all paths begin with."""
    if not folders:
        return 0
    first = folders[0]
    shared = min(map(len, folders))
    return next((i for i in range(shared) if any(each[i] != first[i] for each in folders)), shared)
