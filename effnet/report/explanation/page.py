"""The page of `effnet explain`: images under their activation maps, written with the standard library and Pillow."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import IO, Any

import numpy as np

from effnet.errors import ImageError
from effnet.report.explanation.overlay import as_rgb, data_url, overlay
from effnet.report.pages.frame import check_place
from effnet.report.text import printable
from effnet.system.files import written_whole
from effnet.system.lock import alone_in

MOST_IMAGES = 500
"""The most images of one page, which has 20 to 100 kB of each."""

# Small images are shown larger, with their pixels visible.
_SIDE, _SMALL = 224, 128
_THUMBNAIL = 112

_STYLE = """
figure { margin: 0; width: 224px; }
figure img { display: block; width: 224px; height: auto; border-radius: 6px; }
figure img.small { image-rendering: pixelated; }
figcaption { font-size: .875rem; margin-top: 6px; }
.row { display: flex; flex-wrap: wrap; gap: 18px 14px; margin-bottom: 8px; }
.near figure, .near img { width: 112px; } .near img { height: 112px; object-fit: cover; border-radius: 6px; }
.near figcaption { font-size: .75rem; color: var(--muted); }
.key { display: inline-block; width: 1em; height: 1em; border-radius: 3px; vertical-align: -2px; }
.for { background: #d55e00; } .against { background: #0072b2; }
"""


@dataclass(slots=True, kw_only=True)
class Page:
    """A page while it is written: `add` writes an image at once, so that many need no memory."""

    file: IO[str]
    count: int = field(default=0)

    def add(self, name: str, found: Any) -> None:
        """Add an image with its maps; images beyond MOST_IMAGES are left out."""
        self.count += 1
        if self.count > MOST_IMAGES:
            return
        first = _figure(as_rgb(found.image), "<strong>the image as the network sees it</strong>")
        maps = [
            _figure(_drawn(found.image, shown), f"<strong>{_text(shown.title)}</strong><br>{_text(_under(shown))}")
            for shown in found.shown
        ]
        self.file.write(f'<section>\n<h2>{_text(name)}</h2>\n<div class="row">{first}{"".join(maps)}</div>\n')
        if not maps:
            self.file.write('<p class="quiet">No object is found in it.</p>\n')
        if found.neighbours:
            near = "".join(map(_neighbour, found.neighbours))
            self.file.write(f'<h3>The most similar images of the index</h3>\n<div class="row near">{near}</div>\n')
        self.file.write("</section>\n")


def _drawn(image: np.ndarray, shown: Any) -> np.ndarray:
    """Return an image under its map, uint8 [height, width, 3], with the box that it explains."""
    from PIL import Image, ImageDraw

    found = overlay(image, shown.map)
    if shown.box is None:
        return found
    canvas = Image.fromarray(found)
    ImageDraw.Draw(canvas).rectangle(shown.box, outline=(0, 0, 0), width=max(1, max(found.shape) // 160))
    return np.asarray(canvas)


def _under(shown: Any) -> str:
    return f"{shown.output}: {shown.value}" if shown.output and shown.output != shown.title else shown.value


def _text(text: str) -> str:
    return escape(printable(text))


def _figure(image: np.ndarray, caption: str) -> str:
    small = ' class="small"' if image.shape[0] < _SMALL else ""
    return f'<figure><img{small} alt="" src="{data_url(image)}"><figcaption>{caption}</figcaption></figure>\n'


def _neighbour(near: Any) -> str:
    """Return a similar image as a figure; without its image if that cannot be read here."""
    image = _thumbnail(near.path)
    shown = f'<img alt="" src="{image}">' if image else ""
    path = Path(near.path)
    words = f"{_text(f'{path.parent.name}/{path.name}' if path.parent.name else path.name)}<br>cosine {near.cosine:.3f}"
    return f"<figure>{shown}<figcaption>{words}</figcaption></figure>\n"


def _thumbnail(path: str) -> str | None:
    from effnet.data.preprocess import Preprocess
    from effnet.data.view.evaluation import eval_view

    try:
        pixels = eval_view(path, Preprocess(resolution=_THUMBNAIL), warn=lambda _: None)
    except (ImageError, OSError, ValueError):
        return None
    return data_url(pixels)


@contextmanager
def page_of(path: Path, *, model: str, places: tuple[int, int], boxes: bool = False) -> Iterator[Page]:
    """Yield a page that appears at `path`, whole or not at all, when the block ends.

    `places` are the height and width of the maps, which are those of a detector's `boxes` or of classes. Raises
    InputError if another process is writing it, or it cannot be written.
    """
    check_place(path)
    look = (Path(__file__).parent.parent / "templates" / "look.css.j2").read_text(encoding="utf-8")
    with alone_in(path), written_whole(path) as beside, open(beside, "w", encoding="utf-8", newline="\n") as file:
        file.write(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>Where {_text(model)} looked</title>\n<style>\n{look}{_STYLE}</style>\n</head>\n<body>\n<main>\n"
            f"<h1>Where {_text(model)} looked</h1>\n"
            + _KEY
            + (_OF_BOXES if boxes else _OF_CLASSES).format(height=places[0], width=places[1])
            + _SHARED
        )
        page = Page(file=file)
        yield page
        if page.count > MOST_IMAGES:
            file.write(f'<p class="quiet">The first {MOST_IMAGES} of {page.count:,} images.</p>\n')
        file.write("</main>\n</body>\n</html>\n")


_KEY = """<p><span class="key for"></span> speaks for the answer, <span class="key against"></span> against it;
the deeper the colour, the more. The colours of an image are relative to its own strongest place: do not compare them
between images.</p>
"""
_OF_CLASSES = """<p class="quiet">The maps are exact: the mean of a map and the bias of its class are the class's
value before softmax or sigmoid. But a map is coarse, {height} x {width} values enlarged to the image, and each of
these places has seen much of the image around it. A map is no probability, and shows what the network used, not what
it should have used. One of several classes is shown relative to the mean of all classes, and to the second class.</p>
"""
_OF_BOXES = """<p class="quiet">Of each image the most certain box is explained, or that of the class requested. The
map has {height} x {width} places: at each, how much the box's score falls, on average, while squares of two by two
places with it are covered by the image's mean colour. Covering an object changes its score in any case; what is
coloured beside it is what the network takes for a sign of it. The map shows what it used, not what it should have
used.</p>
"""
_SHARED = """<p class="quiet"><strong>This page holds your images and the names of their files.</strong> Share it only
if you may share them.</p>
"""
