"""embed: turn images into vectors that can be compared."""

import os
from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.answer.images import chunks, end_with, expand
from effnet.cli.console import counter, print_text
from effnet.cli.options import Bundle, Threads
from effnet.errors import InputError

_SUFFIX = ".npz"


def embed(
    bundle: Bundle,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="Files, folders, globs; - reads a list of paths.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE.npz", help="Where to write `paths` [images] and `vectors` [images, channels].")
    ],
    raw: Annotated[
        bool, typer.Option("--raw", help="Keep the vectors unnormalised; by default each has length 1.")
    ] = False,
    use: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Export to run, such as openvino; by default the bundle's own."),
    ] = None,
    threads: Threads = 1,
) -> None:
    """Write the embeddings of images; run `effnet export BUNDLE --features` first, unless `effnet align` made it.

    Images that look alike to the network have similar vectors. Exit code 2 if any image could not be read.
    """
    import numpy as np

    from effnet.runtimes.predictor import load
    from effnet.runtimes.results import unit_rows
    from effnet.system.files import written_whole

    _check_place(out)
    model = load(bundle, threads=threads, format=use)
    _ = model.embedding_engine  # fail for a bundle without embeddings before any image is prepared
    files = list(expand(images))
    bad: list[str] = []
    paths: list[str] = []
    rows: list[np.ndarray] = []
    with counter("embedding") as progress:
        for names, pixels in chunks(files, model.prepare, bad=bad):
            paths += names
            rows.append(model.embeddings(pixels))
            if progress:
                progress(len(paths) + len(bad), len(files))
    if rows:
        vectors = np.concatenate(rows)
        # A stream: given a name, numpy would add its suffix to it.
        with written_whole(out) as beside, open(beside, "wb") as file:
            np.savez(file, paths=np.array(paths), vectors=vectors if raw else unit_rows(vectors))
        print_text(f"wrote {out}: {len(vectors)} embeddings of {vectors.shape[1]} numbers")
    elif not bad:
        raise InputError("embed needs at least one image; got none")
    end_with(bad)


def _check_place(out: Path) -> None:
    """Raise InputError if the file cannot be written, before anything is computed for it."""
    if out.suffix != _SUFFIX:
        raise InputError(f"--out must be a file name that ends in {_SUFFIX}; got {out}")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(f"{out} must be a file in a writable folder; it is not: name another --out")
