"""The models that are served now: which versions answer, and how a new one replaces an old one."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from effnet.errors import EffnetError, InputError
from effnet.serving.http.errors import HttpError, unknown
from effnet.serving.versions.version import Source, Version

Load = Callable[[Source], Version]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """The result of loading one source: the version that answers now, None if there is none, and why a load failed."""

    source: Source
    version: Version | None
    error: str = ""
    changed: bool = False


class Models:
    """The served versions by source. Readers see a whole state; one thread at a time changes it.

    `load` returns a version that can serve. `began` is called with a new version before it gets requests, `ended` with
    an old one after; `failed` with a source and the reason why it could not be loaded.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        load: Load,
        *,
        began: Callable[[Version], None],
        ended: Callable[[Version], None],
        failed: Callable[[Source, str], None],
    ) -> None:
        self.sources = tuple(sources)
        self._load, self._began, self._ended, self._failed = load, began, ended, failed
        self._loaded: Mapping[Source, Version] = MappingProxyType({})
        self._changing = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether every source has a version that answers."""
        return len(self._loaded) == len(self.sources)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models, in the order given."""
        return tuple(dict.fromkeys(source.name for source in self.sources))

    def versions(self, name: str) -> tuple[Version, ...]:
        """Return the versions of a model that answer now; the last answers by default."""
        loaded = self._loaded
        return tuple(loaded[source] for source in self.sources if source.name == name and source in loaded)

    def all(self) -> tuple[Version, ...]:
        """Return all versions that answer now."""
        loaded = self._loaded
        return tuple(loaded[source] for source in self.sources if source in loaded)

    def find(self, name: str | None = None, version: str | None = None) -> Version:
        """Return a version, by default of the first model and its last one; raise HttpError if there is none."""
        name = self.names[0] if name is None else name
        if name not in self.names:
            raise unknown("the model", name, self.names)
        found = self.versions(name)
        if not found:
            raise HttpError(
                503,
                f"the model {name} must be loaded; it is not yet: send the request again in 1 s",
                headers={"retry-after": "1"},
            )
        if version is None:
            return found[-1]
        for candidate in found:
            if candidate.version == version:
                return candidate
        raise unknown(f"the version of {name}", version, (candidate.version for candidate in found))

    def load(self, *, again: bool = False) -> tuple[Reloaded, ...]:
        """Load every source that has no version yet, or with `again` all of them; an old version serves meanwhile.

        A source whose new version cannot be loaded keeps the old one.
        """
        with self._changing:
            return tuple(self._one(source) for source in self.sources if again or source not in self._loaded)

    def reload(self, sources: Sequence[Source]) -> tuple[Reloaded, ...]:
        """Load these sources again."""
        with self._changing:
            return tuple(self._one(source) for source in sources)

    def _one(self, source: Source) -> Reloaded:
        old = self._loaded.get(source)
        try:
            new = self._load(source)
            self._check(source, new)
        except (EffnetError, OSError, MemoryError) as error:
            reason = str(error) or type(error).__name__
            self._failed(source, reason)
            return Reloaded(source=source, version=old, error=reason)
        self._began(new)
        self._loaded = MappingProxyType({**self._loaded, source: new})
        if old is not None:
            # Requests that it has begun hold it; it is closed with the last of them.
            self._ended(old)
        return Reloaded(source=source, version=new, changed=True)

    def _check(self, source: Source, new: Version) -> None:
        """Raise InputError if another source serves the same version of the same model."""
        for other, version in self._loaded.items():
            if other != source and (version.name, version.version) == (new.name, new.version):
                raise InputError(
                    f"two versions of {new.name} must differ; {source.folder} and {other.folder} are both {new.version}"
                )
