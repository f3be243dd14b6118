"""The page of found images: thumbnails with their cosines, in one file."""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from effnet.bundle.config import write_text
from effnet.data.images.decode import Decoding, decoded_image
from effnet.errors import ImageError
from effnet.system.text import printable

_SIDE = 176
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#1c2733;background:#fff}"
    "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:1rem}"
    "figure{margin:0}img{max-width:100%;height:176px;object-fit:contain;background:#f2f4f6}"
    "figcaption{font-size:13px;overflow-wrap:anywhere;color:#52606d}"
    "@media(prefers-color-scheme:dark){body{background:#12181f;color:#e6ebf0}img{background:#1e2731}figcaption{color:#9fb0c0}}"
)


def write_page(path: Path, *, title: str, hits: Sequence[tuple[str, str, float]], images: int) -> None:
    """Write the page of `hits`, the path of each image, its name on the page and its cosine, among `images`."""
    figures = "\n".join(_figure(file, name, cosine) for file, name, cosine in hits)
    safe = escape(printable(title))
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{safe}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body><h1>{safe}</h1>\n<p>The {len(hits)} nearest of {images:,} images, with their cosines.</p>\n"
        f"<main>\n{figures}\n</main></body></html>\n",
    )


def _figure(file: str, name: str, cosine: float) -> str:
    safe = escape(printable(name), quote=True)
    shown = thumbnail(file)
    image = f'<img src="{shown}" alt="{safe}">' if shown else "<p>The image cannot be read.</p>"
    return f"<figure>{image}<figcaption>{cosine:.3f} {safe}</figcaption></figure>"


def thumbnail(file: str) -> str:
    """Return an image of at most 176 pixels as a data URL, empty if it cannot be read."""
    try:
        with decoded_image(file, Decoding(channels=3), name=file) as pixels:
            image = Image.fromarray(np.ascontiguousarray(pixels))
    except ImageError:
        return ""
    image.thumbnail((_SIDE, _SIDE))
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
