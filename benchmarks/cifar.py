"""The images of CIFAR-10 that benchmarks train on."""

import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

Place = Callable[[str, int], str]
"""Maps an image's part (train or test) and its number within the class, from 1, to its folder."""


def unpack(archive: Path, folder: Path, place: Place) -> Path:
    """Write the archive's PART/CLASS/*.jpg as `folder`/PLACE/CLASS/*.jpg and return `folder`.

    Images for which `place` returns an empty text are left out.
    """
    counts: Counter[tuple[str, str]] = Counter()
    with tarfile.open(archive) as file:
        for member in sorted(file.getmembers(), key=lambda m: m.name):
            if not member.isfile() or not member.name.endswith(".jpg"):
                continue
            _, part, label, name = member.name.split("/")
            counts[part, label] += 1
            where = place(part, counts[part, label])
            source = file.extractfile(member) if where else None
            if source is not None:
                path = folder / where / label / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(source.read())
    return folder
