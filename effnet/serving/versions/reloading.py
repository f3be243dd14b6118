"""Watch bundles for new versions: a change counts once it has rested."""

import os
from collections.abc import Sequence

from effnet.bundle.names import CONFIG
from effnet.serving.versions.version import Source

Mark = tuple[str, int, int, int] | None


class Changes:
    """Which sources have changed since they were loaded.

    The mark of a bundle is that of its config.json, which is written last, and of the folder that a link names. A
    change counts at the second look that finds it: the first may have seen a half-written bundle.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)
        self._known = {source: mark_of(source) for source in self._sources}
        self._seen = dict(self._known)

    def look(self) -> tuple[Source, ...]:
        """Return the sources to load again; each change is returned once."""
        changed = []
        for source in self._sources:
            mark, before = mark_of(source), self._seen[source]
            self._seen[source] = mark
            if mark is not None and mark == before and mark != self._known[source]:
                self._known[source] = mark
                changed.append(source)
        return tuple(changed)


def mark_of(source: Source) -> Mark:
    """Return what tells one state of a bundle from another; None if there is none that can be read."""
    try:
        folder = os.path.realpath(source.folder)
        found = os.stat(os.path.join(folder, CONFIG))
    except OSError:
        return None
    return folder, found.st_ino, found.st_size, found.st_mtime_ns
