"""The verb find: the images of a folder that are nearest to a text or to an image; no torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effnet.data.sources.folder import list_images
from effnet.data.view.evaluation import ImageLike
from effnet.errors import InputError
from effnet.jobs.find.index import Progress, Updated, default_place, key_of, read_index, update, write_index
from effnet.jobs.find.page import write_page
from effnet.jobs.find.search import nearest_rows
from effnet.runtimes.predictor import Predictor
from effnet.system.text import printable
from effnet.words.kept import open_space


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A found image, and the cosine between its embedding and the query."""

    path: str
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The nearest images, best first, of `images` in all, of which `computed` were embedded now.

    `index` is the file of the embeddings, None if it was not written. `unreadable` are paths that were left out, each
    with the reason. `notes` are sentences on the index.
    """

    hits: tuple[Hit, ...]
    images: int
    computed: int
    index: Path | None
    unreadable: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def find(
    model: str | os.PathLike[str] | Predictor,
    folder: str | os.PathLike[str],
    text: str | None = None,
    *,
    image: ImageLike | None = None,
    top: int = 10,
    out: str | os.PathLike[str] | None = None,
    index: str | os.PathLike[str] | None = None,
    words: str | os.PathLike[str] | None = None,
    format: str | None = None,  # noqa: A002
    threads: int = 1,
    progress: Progress | None = None,
) -> Found:
    """Return the images below `folder` whose embeddings are nearest to a text, or to another image.

    A text needs a bundle that `effnet align` wrote, an `image` one with embeddings: an aligned one, or one to which
    `effnet export --features` has added them. The embeddings are kept in `index`, by default a hidden file in `folder`,
    and computed again only for files that have changed. `out` is a page of thumbnails to write. The search compares
    with every image, so it is exact. `words` are as in effnet.words.kept.open_space; `format` is as in `effnet.load`.

    Raises InputError for a folder without images, or a text of which no word is known.
    """
    if (text is None) == (image is None):
        raise InputError("find takes a text or an image; give one of them")
    if top < 1:
        raise InputError(f"top must be at least 1; got {top}")
    predictor = model if isinstance(model, Predictor) else Predictor(model, threads=threads, format=format)
    _check_page(out)
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"FOLDER must be a folder of images; {printable(os.fspath(folder))} is none")
    query = _query(predictor, text, image, words)
    listed = list_images(os.fspath(folder))
    if not listed.paths and not listed.skipped:
        raise InputError(f"there must be images in {printable(os.fspath(folder))}; none were found")
    place = default_place(root, key_of(predictor)) if index is None else Path(index)
    updated, notes = _updated(predictor, listed.paths, root=root, place=place, progress=progress)
    known = updated.index
    rows, cosines = nearest_rows(known.vectors, query, top=top)
    hits = tuple(
        Hit(path=os.path.join(os.fspath(folder), *known.paths[row].split("/")), cosine=float(cosine))
        for row, cosine in zip(rows, cosines, strict=True)
    )
    if out is not None:
        title = text if text is not None else f"Images like {image if isinstance(image, str | os.PathLike) else 'one'}"
        shown = [(hit.path, known.paths[row], hit.cosine) for hit, row in zip(hits, rows, strict=True)]
        write_page(Path(out), title=os.fspath(title), hits=shown, images=len(known.paths))
    skipped = tuple((entry.path, entry.reason) for entry in listed.skipped)
    return Found(
        hits=hits,
        images=len(known.paths),
        computed=updated.computed,
        index=place if updated.saved else None,
        unreadable=(*skipped, *updated.unreadable),
        notes=notes,
    )


def _updated(
    predictor: Predictor, paths: Sequence[str], *, root: Path, place: Path, progress: Progress | None
) -> tuple[Updated, tuple[str, ...]]:
    """Return the index of these images, kept in the file `place`, and sentences on that file."""
    key = key_of(predictor)
    old, why = read_index(place, key=key, width=predictor.embedding_width)
    notes = [f"The index {place} {why}: it is made again."] if why else []
    updated = update(
        old, paths, predictor, root=root, save=lambda made: write_index(made, place, key=key), progress=progress
    )
    if not updated.saved:
        notes.append(f"The index {place} cannot be written: name a file with --index, or all is computed again.")
    return updated, tuple(notes)


def _query(
    predictor: Predictor, text: str | None, image: ImageLike | None, words: str | os.PathLike[str] | None
) -> np.ndarray:
    """Return the vector of the query, float32 [width] of length 1."""
    if text is None:
        assert image is not None
        (row,) = predictor.embed(image)
        return row
    if not predictor.aligned:
        raise InputError(
            f"a text needs a bundle that `effnet align` wrote; {predictor.folder} is a bundle of "
            f"{predictor.config.task_record.title}: give --image FILE"
        )
    if not text.strip():
        raise InputError("the text must have words; it is empty")
    space, _ = open_space(predictor.folder, words=words)
    return space.one(text)


def _check_page(out: str | os.PathLike[str] | None) -> None:
    """Raise InputError if the page cannot be written, before anything is computed for it."""
    if out is None:
        return
    path = Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out must be a file name that ends in .html; got {path}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{path} must be a file in a writable folder; it is not: name another --out")
