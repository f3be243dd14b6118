"""The files of an audit: a table for a spreadsheet, and a page of thumbnails."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from effnet.bundle.config import write_text
from effnet.jobs.audit.record import Audit, labels_sentence
from effnet.jobs.find.page import STYLE, thumbnail
from effnet.system.text import cell, percent, printable

CSV, PAGE = "audit.csv", "audit.html"
COLUMNS = ("path", "split", "given", "likely", "confidence", "reason")
# Thumbnails of this many pairs; the table has all.
_MOST_PAIRS = 100


def write_audit(audit: Audit, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write `audit.csv` and `audit.html` into `folder`, which is made if it is missing; return their paths.

    A row of the table is an image: why it is listed (label, near-duplicate, outlier), the given and the likely class,
    and the confidence: the probability of a wrong label, the cosine, or the distance.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([cell(text) for text in row] for row in _rows(audit))
    write_text(place / CSV, text.getvalue())
    write_text(place / PAGE, _page(audit))
    return place / CSV, place / PAGE


def _rows(audit: Audit) -> Iterator[tuple[str, ...]]:
    for error in audit.label_errors:
        yield error.path, error.split, error.given, error.likely, f"{error.probability:.4f}", "label"
    for pair in audit.near_duplicates:
        for own, other in ((0, 1), (1, 0)):
            yield (
                pair.paths[own], pair.splits[own], pair.labels[own], "", f"{pair.cosine:.4f}",
                f"near-duplicate of {pair.paths[other]}",
            )  # fmt: skip
    for each in audit.outliers:
        yield each.path, each.split, each.label, "", f"{each.distance:.4f}", "outlier"


def _page(audit: Audit) -> str:
    labels = "\n".join(
        _figure(error.path, [
            f"{percent(error.probability, 0)}: {error.given} → {error.likely}?", f"{error.path} ({error.split})",
        ])
        for error in audit.label_errors
    )  # fmt: skip
    pairs = "\n".join(
        _figure(path, [f"{pair.cosine:.2f} {label}", f"{path} ({split})"])
        for pair in audit.near_duplicates[:_MOST_PAIRS]
        for path, split, label in zip(pair.paths, pair.splits, pair.labels, strict=True)
    )
    far = "\n".join(
        _figure(each.path, [f"{each.distance:.2f} {each.label}", f"{each.path} ({each.split})"])
        for each in audit.outliers
    )
    across = sum(pair.across_splits for pair in audit.near_duplicates)
    title = f"Audit of {audit.images:,} images"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}{_STYLE}</style></head>\n'
        f"<body><h1>{title}</h1>\n<p>Judged by features of {escape(printable(audit.weights))}. Nothing was "
        "changed.</p>\n"
        f"<h2>Labels that are probably wrong</h2><p>{escape(labels_sentence(audit))}</p>\n<main>{labels}</main>\n"
        f"<h2>Near-duplicates</h2><p>Pairs of images, {len(audit.near_duplicates):,} in all, {across:,} across splits: "
        "of which one shows a part of the other, or both the same in grey or mirrored; with the cosine of their "
        "features.</p>\n"
        f'<main class="pairs">{pairs}</main>\n'
        "<h2>Outliers</h2><p>The images that are least like all others: with the mean cosine distance to the nearest "
        f"five.</p>\n<main>{far}</main></body></html>\n"
    )


_STYLE = (
    "h2{margin:2.5rem 0 0}figcaption b{color:#1c2733}@media(prefers-color-scheme:dark){figcaption b{color:#e6ebf0}}"
    ".pairs{grid-template-columns:repeat(auto-fill,minmax(140px,190px) minmax(140px,190px))}"
)


def _figure(path: str, lines: Sequence[str]) -> str:
    first, *others = (escape(printable(line), quote=True) for line in lines)
    shown = thumbnail(path)
    image = f'<img src="{shown}" alt="{first}" loading="lazy">' if shown else "<p>No thumbnail.</p>"
    return f"<figure>{image}<figcaption><b>{first}</b><br>{'<br>'.join(others)}</figcaption></figure>"
