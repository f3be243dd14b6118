"""An index of a folder's images: their embeddings, with the digests of their files, in one file."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from effnet.bundle.model_file import sha256
from effnet.data.view.evaluation import prepare_image
from effnet.errors import ImageError
from effnet.runtimes.pipeline import run_images
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.registry import features_beside
from effnet.runtimes.results import unit_rows
from effnet.system.cache import file_digest
from effnet.system.files import open_regular, parse_json, written_whole
from effnet.system.machine import usable_cores

FORMAT = 1
_DIGEST_BYTES = 16
_ARRAYS = ("paths", "stats", "digests", "vectors")
# A million vectors of 1,280 numbers.
_MOST_BYTES = 6 * 10**9
# Images per write: an interrupted call resumes after the last.
_SAVED_TOGETHER = 4096

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Index:
    """Images and their embeddings: `vectors` float32 [images, width] of length 1 belong to `paths`.

    `stats` are int64 [images, 2], the size of a file in bytes and its time of change in ns; `digests` are uint8
    [images, 16], BLAKE2b of its bytes.
    """

    paths: tuple[str, ...]
    stats: np.ndarray
    digests: np.ndarray
    vectors: np.ndarray


def empty_index(width: int) -> Index:
    """Return an index of no image."""
    return Index(
        paths=(),
        stats=np.empty((0, 2), np.int64),
        digests=np.empty((0, _DIGEST_BYTES), np.uint8),
        vectors=np.empty((0, width), np.float32),
    )


def key_of(predictor: Predictor) -> str:
    """Return what the embeddings of a bundle depend on: its file, its preprocessing and how images are read."""
    from importlib import metadata

    target = predictor.format if predictor.aligned else features_beside(predictor.format)
    digest = hashlib.sha256(repr((FORMAT, predictor.config.preprocess.to_dict())).encode())
    for name in target.files:
        path = predictor.folder / name
        if path.is_file():
            digest.update(file_digest(path, "sha256").encode())
    digest.update(metadata.version("pillow").encode())
    return digest.hexdigest()[:32]


def read_index(path: Path, *, key: str, width: int) -> tuple[Index, str]:
    """Return the index in a file, and the reason why it is empty: the file is damaged, or of another model."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > _MOST_BYTES:
                return empty_index(width), "is too large"
            with zipfile.ZipFile(file) as members:
                if any(member.compress_type != zipfile.ZIP_STORED for member in members.infolist()):
                    return empty_index(width), "is damaged"  # effnet writes none that would grow in memory
            file.seek(0)
            with np.load(file, allow_pickle=False) as held:
                if str(held["key"]) != key:
                    return empty_index(width), "is of another model"
                found = {name: held[name] for name in _ARRAYS}
                paths = parse_json(found.pop("paths").tobytes())
    except FileNotFoundError:
        return empty_index(width), ""
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError, MemoryError):
        return empty_index(width), "is damaged"
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        return empty_index(width), "is damaged"
    shapes = {"stats": (len(paths), 2), "digests": (len(paths), _DIGEST_BYTES), "vectors": (len(paths), width)}
    kinds = {"stats": "i", "digests": "u", "vectors": "f"}
    if any(array.shape != shapes[name] or array.dtype.kind != kinds[name] for name, array in found.items()):
        return empty_index(width), "is damaged"
    vectors = found["vectors"].astype(np.float32, copy=False)
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.all((np.abs(lengths - 1) < 1e-2) | (lengths == 0)):
        return empty_index(width), "is damaged"
    return Index(paths=tuple(paths), stats=found["stats"], digests=found["digests"], vectors=vectors), ""


def write_index(index: Index, path: Path, *, key: str) -> None:
    """Write an index, whole or not at all."""
    with written_whole(path) as beside, open(beside, "wb") as file:
        np.savez(
            file,
            key=np.array(key),
            paths=np.frombuffer(json.dumps(index.paths).encode(), np.uint8),  # an array of texts would be padded
            stats=index.stats,
            digests=index.digests,
            vectors=index.vectors,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Updated:
    """An index that is up to date; `computed` embeddings are new, `unreadable` are the paths left out and why."""

    index: Index
    computed: int
    unreadable: tuple[tuple[str, str], ...]
    saved: bool


@dataclass(slots=True, kw_only=True, eq=False)
class _Work:
    """An update in progress: the vectors and digests of the old index and of what was computed since, row by row.

    `rows` are the row of each image by its relative path, `stats` its size and time, `waiting` the paths that wait for
    a digest to be computed, `todo` one file for each of these.
    """

    vectors: list[np.ndarray]
    digests: list[np.ndarray]
    rows: dict[str, int] = field(default_factory=dict)
    stats: dict[str, tuple[int, int]] = field(default_factory=dict)
    waiting: dict[bytes, list[str]] = field(default_factory=dict)
    todo: list[tuple[str, bytes]] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    computed: int = 0

    def made(self) -> Index:
        """Return the index of all images whose vectors are known."""
        names = sorted(self.rows)
        chosen = np.array([self.rows[name] for name in names], dtype=np.int64)
        return Index(
            paths=tuple(names),
            stats=np.array([self.stats[name] for name in names], dtype=np.int64).reshape(-1, 2),
            digests=np.concatenate(self.digests)[chosen],
            vectors=np.concatenate(self.vectors)[chosen],
        )


def update(
    index: Index,
    paths: Sequence[str],
    predictor: Predictor,
    *,
    root: Path,
    save: Callable[[Index], None],
    progress: Progress | None = None,
) -> Updated:
    """Return the index of the images at `paths`; only those whose files have changed are embedded.

    The index has paths relative to `root`. A file of the same size and time is taken as unchanged; one of the same
    bytes under another name is not embedded again. `save` keeps the index, also of the part that is done.
    """
    work = _compare(index, paths, root)
    for start in range(0, len(work.todo), _SAVED_TOGETHER):
        part = work.todo[start : start + _SAVED_TOGETHER]
        total = len(work.todo)
        done = progress and (lambda count, _, start=start, total=total: progress(start + count, total))  # type: ignore[misc]
        _compute_(work, part, predictor, progress=done)
        if start + _SAVED_TOGETHER < total:
            with suppress(OSError):
                save(work.made())
    made, saved = work.made(), True
    if work.computed or made.paths != index.paths or not np.array_equal(made.stats, index.stats):
        try:
            save(made)
        except OSError:
            saved = False
    return Updated(index=made, computed=work.computed, unreadable=tuple(work.bad), saved=saved)


def _compare(index: Index, paths: Sequence[str], root: Path) -> _Work:
    """Return which images the index already has, and which must be computed."""
    work = _Work(vectors=[index.vectors], digests=[index.digests])
    old = {name: row for row, name in enumerate(index.paths)}
    known = list(map(tuple, index.stats.tolist()))
    by_digest = {digest.tobytes(): row for row, digest in enumerate(index.digests)}
    for path in paths:
        name = os.path.relpath(path, root).replace(os.sep, "/")
        try:
            status = os.stat(path)
            work.stats[name] = status.st_size, status.st_mtime_ns
            if name in old and known[old[name]] == work.stats[name]:
                work.rows[name] = old[name]
                continue
            digest = _digest(path)
        except OSError as error:
            work.bad.append((path, error.strerror or type(error).__name__))
            continue
        if digest in by_digest:
            work.rows[name] = by_digest[digest]
            continue
        if digest not in work.waiting:
            work.todo.append((path, digest))
        work.waiting.setdefault(digest, []).append(name)
    return work


def _compute_(
    work: _Work, part: Sequence[tuple[str, bytes]], predictor: Predictor, *, progress: Progress | None
) -> None:
    """Embed some images and add their rows to the work."""
    vectors, failed = _embed([path for path, _ in part], predictor, progress=progress)
    work.bad += [(part[place][0], reason) for place, reason in failed.items()]
    first = sum(map(len, work.vectors))
    for row, place in enumerate(vectors):
        work.rows |= dict.fromkeys(work.waiting[part[place][1]], first + row)
    if vectors:
        work.vectors.append(np.stack(list(vectors.values())))
        work.digests.append(np.stack([np.frombuffer(part[place][1], np.uint8) for place in vectors]))
    work.computed += len(vectors)


def _digest(path: str) -> bytes:
    with open_regular(path) as file:
        return hashlib.blake2b(file.read(), digest_size=_DIGEST_BYTES).digest()


def _embed(
    paths: Sequence[str], predictor: Predictor, *, progress: Progress | None
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """Return the embeddings of the readable images, by place, and the reasons of the others."""
    failed: dict[int, str] = {}

    def prepare(place: int) -> np.ndarray:
        try:
            return prepare_image(paths[place], predictor.config.preprocess, warn=predictor.warn_once)
        except ImageError as error:
            failed[place] = str(error)
            raise

    vectors, places = run_images(
        range(len(paths)), prepare=prepare, compute=predictor.embeddings, workers=usable_cores(), progress=progress
    )
    return dict(zip(places, unit_rows(np.stack(vectors)) if vectors else [], strict=True)), failed


def default_place(folder: Path, key: str) -> Path:
    """Return where the index of a folder lies if no file is named: in it, under a hidden name of the model."""
    return folder / f".effnet-index-{sha256(key.encode())[:8]}.npz"
