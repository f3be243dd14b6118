"""One version of a served model: a bundle that is loaded, warm and proven, with an engine for each worker."""

import io
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from effnet.bundle.config import ModelConfig, read_digests
from effnet.errors import BundleError, ImageError, InputError
from effnet.runtimes.ledger import digest_of
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import RUNTIMES
from effnet.serving.settings import Settings
from effnet.serving.versions.prove import Proven, prove
from effnet.tasks.known import SCORE, SCORE_OUTPUT
from effnet.tasks.task import Output, names_in_file

# The largest batch is the smallest whose time an image is this near to the best: each doubling costs memory (24 MB for
# four images of Lite0) and waiting.
_NEAR = 1.1
_SECONDS_A_SIZE, _LEAST_RUNS = 0.06, 2
_VERSION_LENGTH = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is served as `name`: the bundle in `folder`, and its version, empty for the start of its file's SHA-256."""

    name: str
    folder: Path
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Version:
    """A bundle that can answer: `largest` is its best batch, `image_seconds` the time of an image in it.

    `group` names it in the batcher's queue; no other version ever has the same. `digest` is the SHA-256 of its file.
    """

    source: Source
    version: str
    digest: str
    predictors: tuple[Predictor, ...]
    config: ModelConfig
    largest: int
    image_seconds: float
    load_seconds: float
    proven: Proven
    group: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.source.name

    def engine(self, number: int) -> Predictor:
        """Return the predictor of a worker; all share one if the runtime runs in parallel."""
        return self.predictors[number % len(self.predictors)]

    @property
    def has_maps(self) -> bool:
        """Whether its file returns activation maps too (effnet.runtimes.maps)."""
        return self.first.engine.maps is not None

    @property
    def first(self) -> Predictor:
        """The first worker's predictor."""
        return self.predictors[0]

    @property
    def outputs(self) -> tuple[tuple[str, Output], ...]:
        """The outputs of its file, with their names there."""
        found = self.config.file_outputs
        named = tuple(zip(names_in_file(found), found, strict=True))
        return (*named, (SCORE, SCORE_OUTPUT)) if self.first.scored else named


def load_version(source: Source, settings: Settings, *, warn: Callable[[str], None]) -> Version:
    """Return a bundle that is loaded, warm and proven; raise BundleError or InputError if it cannot answer.

    `warn` gets assumptions about images of more than 8 bits.
    """
    start = time.perf_counter()
    folder = source.folder.resolve()  # a link that is set to another bundle meanwhile must not mix them
    first = Predictor(folder, threads=1, format=settings.use)
    digests = read_digests(folder)
    # One session serves all threads of a runtime that runs in parallel; the others have one each.
    count = 1 if RUNTIMES[first.format.runtime].parallel else settings.engines
    predictors = (first, *(Predictor(folder, threads=1, format=first.format.name) for _ in range(count - 1)))
    for predictor in predictors:
        predictor.say = warn
        _warm(predictor)
    _warm_decoders(first)
    proven = prove(first)
    largest, seconds = best_batch(first, most=settings.max_batch)
    first.engine.shrink_(blank(first, 1))  # batches that will never come were measured too
    digest = digests.get(first.format.file) or digest_of(folder, first.format) or ""
    if read_digests(folder) != digests:
        raise BundleError(f"{folder} must not change while it is loaded; it did: reload it once it is written")
    return Version(
        source=source,
        version=source.version or digest[:_VERSION_LENGTH] or "1",
        digest=digest,
        predictors=predictors,
        config=first.config,
        largest=largest,
        image_seconds=seconds,
        load_seconds=time.perf_counter() - start,
        proven=proven,
    )


def _warm(predictor: Predictor) -> None:
    """Open the file and run it once: the first run of most runtimes is slow."""
    predictor.outputs(blank(predictor, 1))


def _warm_decoders(predictor: Predictor) -> None:
    """Decode an image of each format: the first time, Pillow imports its plugins."""
    for name in ("JPEG", "PNG", "WEBP"):
        file = io.BytesIO()
        with suppress(OSError, KeyError, ImageError):  # a Pillow without WebP; a model of sounds
            Image.new("RGB", (16, 16)).save(file, format=name)
            predictor.prepare(file.getvalue())


def blank(predictor: Predictor, count: int) -> np.ndarray:
    """Return black images as the model takes them, uint8 [count, height, width, channels]."""
    preprocess = predictor.config.preprocess
    return np.zeros((count, *preprocess.size, preprocess.channels), np.uint8)


def best_batch(predictor: Predictor, *, most: int, clock: Callable[[], float] = time.perf_counter) -> tuple[int, float]:
    """Return the smallest batch of 1, 2, 4, ... images with about the least time an image, and that time in seconds.

    A detector or a segmenter answers one image at a time.
    """
    sizes = [1]
    while predictor.config.task_record.whole is None and 2 * sizes[-1] <= most:
        sizes.append(2 * sizes[-1])

    def fastest(size: int) -> float:
        images, runs = blank(predictor, size), list[float]()
        until = clock() + _SECONDS_A_SIZE
        while len(runs) < _LEAST_RUNS or clock() < until:
            begun = clock()
            predictor.outputs(images)
            runs.append((clock() - begun) / size)
        return min(runs)  # background load only adds

    def best() -> int:
        return next(i for i, seconds in enumerate(found) if seconds <= _NEAR * min(found))

    found: list[float] = []
    for size in sizes:
        found.append(fastest(size))
        if len(found) > 1 and found[-1] * _NEAR > found[-2]:
            break
    # A larger batch costs memory and waiting, so that a moment of background load must not choose it.
    for number in range(best()):
        found[number] = min(found[number], fastest(sizes[number]))
    return sizes[best()], found[best()]


def read_sources(words: Sequence[str]) -> tuple[Source, ...]:
    """Return the models that `effnet serve` is given: FOLDER, NAME=FOLDER or NAME:VERSION=FOLDER each.

    A folder without a name is called as itself. Raises InputError for a name that URLs or labels cannot hold, and for
    two models of one name and version.
    """
    found: list[Source] = []
    for word in words:
        label, equals, place = word.partition("=")
        if not equals or Path(word).is_dir():
            label, place = Path(word).resolve().name, word
            name, version = label, ""
        else:
            name, _, version = label.partition(":")
        for part, what in ((name, "name"), (version or "1", "version")):
            if not part or not part.isprintable() or any(c in part for c in "/?#%") or len(part) > 100:
                raise InputError(
                    f"a model's {what} must have 1 to 100 characters without / ? # %; got {part!r}: write "
                    "NAME=FOLDER or NAME:VERSION=FOLDER"
                )
        if any((old.name, old.version) == (name, version) for old in found):
            raise InputError(
                f"each model needs a name of its own; {name!r} is given twice: write NAME=FOLDER, or "
                "NAME:VERSION=FOLDER for two versions of one model"
            )
        found.append(Source(name=name, folder=Path(place), version=version))
    if not found:
        raise InputError("serve takes at least one bundle; got none")
    return tuple(found)
