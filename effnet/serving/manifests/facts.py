"""What every manifest states: the command, the resources and the times of one replica, from its settings."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from effnet.bundle.config import read_config
from effnet.data.images.limits import BYTES_PER_PIXEL
from effnet.errors import InputError
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import RUNTIMES
from effnet.serving.settings import Settings
from effnet.serving.versions.version import Source
from effnet.system.options import options_of

PORT, USER, NAME = 8000, 10_001, "effnet-serve"
MODELS, KEYS = "/models", "/etc/effnet/keys"
# The interpreter with all that a server imports; and the working memory of a session, in sizes of its file.
_PROCESS_MB, _SESSION = 180, 3
_STEP_MB = 64
# What the container decides, not the settings.
_OWN = {"host", "port", "keys", "workers"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One replica: its image, its models (name, version, folder in the image), and what it needs.

    `arguments` follow `effnet serve MODELS`; `grace_seconds` is the time from SIGTERM to the end.
    """

    image: str
    models: tuple[tuple[Source, str], ...]
    arguments: tuple[str, ...]
    cores: int
    memory_mb: int
    grace_seconds: int
    keys: bool

    @property
    def command(self) -> list[str]:
        """The arguments of the container."""
        words = [
            f"{source.name}{f':{source.version}' if source.version else ''}={place}" for source, place in self.models
        ]
        return ["serve", *words, *self.arguments]


def facts_of(sources: Sequence[Source], settings: Settings) -> Facts:
    """Return what a replica needs; raise InputError for names that images and clusters cannot hold."""
    for source in sources:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", source.name + source.version):
            raise InputError(
                f"in manifests a model's name must have only letters, digits and . _ -; got {source.name!r}: write "
                "NAME=FOLDER"
            )
    models = tuple(
        (source, f"{MODELS}/{source.name}{f'-{source.version}' * bool(source.version)}") for source in sources
    )
    return Facts(
        image=f"{NAME}:latest", models=models, arguments=tuple(_arguments(settings)), cores=settings.engines,
        memory_mb=_memory_mb(sources, settings), keys=settings.keys is not None,
        grace_seconds=math.ceil(settings.drain_seconds + settings.finish_seconds) + 5,
    )  # fmt: skip


def _arguments(settings: Settings) -> list[str]:
    """Return the options of the container: its address, keys, and the settings that are not the defaults."""
    words = ["--host", "0.0.0.0", "--port", str(PORT)]
    if settings.keys is not None:
        words += ["--keys", KEYS]
    known = options_of(Settings)
    for field in fields(Settings):
        value = getattr(settings, field.name)
        if field.name in known and field.name not in _OWN and value != field.default:
            words += known[field.name].words(value)
    return words


def _memory_mb(sources: Sequence[Source], settings: Settings) -> int:
    """Return the memory of a replica: two versions of each model while it reloads, the bodies, and a large image."""
    needed = _PROCESS_MB + (settings.body_room + BYTES_PER_PIXEL * settings.max_pixels) / 1e6
    for source in sources:
        read_config(source.folder)  # raises if it is no bundle
        predictor = Predictor(source.folder, threads=1, format=settings.use)
        sessions = 1 if RUNTIMES[predictor.format.runtime].parallel else settings.engines
        needed += 2 * sessions * _SESSION * predictor.format.size_bytes(source.folder) / 1e6
    return _STEP_MB * math.ceil(needed / _STEP_MB)
