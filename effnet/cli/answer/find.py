"""find: the images of a folder that are nearest to a text or an image."""

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.answer.images import end_with
from effnet.cli.console import counter, fail, print_json, print_table, print_text
from effnet.cli.options import Bundle, Format, Output, Threads, Use
from effnet.cli.zeroshot import Words
from effnet.errors import InputError
from effnet.system.text import printable


def find(
    model: Bundle,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The images to search, in any subfolder.")],
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help='What to find, such as "blue shirt".')] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Find images like this one, instead of a text.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of images to find.")] = 10,
    output: Format = Output.table,
    out: Annotated[Path | None, typer.Option(metavar="PAGE.html", help="Also write a page of thumbnails.")] = None,
    index: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where embeddings are kept; default: a hidden file in FOLDER."),
    ] = None,
    words: Words = None,
    use: Use = None,
    threads: Threads = 1,
) -> None:
    """Find images by words, with a bundle that `effnet align` wrote, or by an image.

    Embeddings are computed once and kept. Exit code 2 if any image could not be read.
    """
    from effnet import find as find_images

    if (text is None) == (image is None):
        raise InputError("find takes a TEXT or --image FILE; give one of them")
    with counter("embedding") as progress:
        found = find_images(
            model, folder, text, image=image, top=top, out=out, index=index, words=words, format=use, threads=threads,
            progress=progress,
        )  # fmt: skip
    for note in found.notes:
        fail(note)
    for path, reason in found.unreadable:
        fail(reason if path in reason else f"{printable(path)}: {reason}")
    if output is Output.json:
        print_json([{"path": hit.path, "cosine": round(hit.cosine, 6)} for hit in found.hits])
    elif found.hits:
        print_table(
            ("cosine", "image"), [(f"{hit.cosine:.3f}", printable(hit.path)) for hit in found.hits], left=("image",)
        )
    if out is not None and output is Output.table:
        print_text(f"wrote {out}")
    end_with([path for path, _ in found.unreadable])
