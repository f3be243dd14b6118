"""The frame of a page: title, style, and tables; and the check of the place that it is written to."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from effnet.errors import InputError
from effnet.report.text import printable
from effnet.system.files import written_whole
from effnet.system.lock import alone_in


def write_page(path: Path, *, title: str, body: str) -> None:
    """Write a page with this title and HTML body to `path`, whole or not at all; raise InputError as `check_place`."""
    check_place(path)
    look = (Path(__file__).parent.parent / "templates" / "look.css.j2").read_text(encoding="utf-8")
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>\n{look}</style>\n</head>\n<body>\n<main>\n<h1>{text(title)}</h1>\n"
        f"{body}</main>\n</body>\n</html>\n"
    )
    with alone_in(path), written_whole(path) as beside:
        beside.write_text(page, encoding="utf-8", newline="\n")


def text(words: str) -> str:
    """Return text as HTML, on one line."""
    return escape(printable(words))


def paragraphs(lines: Iterable[str]) -> str:
    """Return each line as a paragraph."""
    return "".join(f"<p>{text(line)}</p>\n" for line in lines)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[str]) -> str:
    """Return a table; cells are texts, the columns in `left` are left-aligned."""

    def cells(row: Sequence[str], tag: str) -> str:
        kinds = ["" if column in left else ' class="num"' for column in columns]
        return "".join(f"<{tag}{kind}>{text(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    body = "".join(f"<tr>{cells(row, 'td')}</tr>\n" for row in rows)
    return (
        f'<div class="scroll"><table>\n<thead><tr>{cells(columns, "th")}</tr></thead>\n<tbody>\n{body}</tbody></table>'
        "</div>\n"
    )


def section(title: str, body: str) -> str:
    """Return a section with a title and an HTML body."""
    return f"<section>\n<h2>{text(title)}</h2>\n{body}</section>\n"


def check_place(path: Path) -> None:
    """Raise InputError if a page cannot be written to `path`, before anything is computed for it."""
    if path.suffix != ".html":
        raise InputError(f"--out must be a file name that ends in .html; got {path}")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path} must be a file in a folder that exists; it is not: name another --out")
