"""Opens HEIC files, which phones make, with pi-heif: an optional package, imported here and nowhere else.

pillow-heif, the same with an encoder whose licence is the GPL, is used if it alone is installed.
"""

from typing import Any, BinaryIO

from PIL import ImageFile

from effnet.data.bmff import Fields, areas_of, boxes_in, version_of
from effnet.data.limits import MAX_PIXELS
from effnet.errors import ImageError, MissingExtraError

# The first bytes say what kinds of files it is.
START_BYTES = 64
_HEVC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_ANY_CODEC, _AV1 = frozenset({b"mif1", b"msf1"}), frozenset({b"avif", b"avis"})
# Of boxes and references. Decoding a tile takes a while however small it is, as long as some thousand pixels.
_MOST_PARTS, _LEAST_AREA = 100_000, 4096
# An image may be made of others, which show more than is seen of them: of so many times the largest image at most.
_MOST_DECODED = 3
# What libheif takes a pixel beside two copies of its planes: the pixels in 8 bits, and Pillow's.
_OUTPUT_BYTES = 5
_PLANES = {0: 1.0, 420: 1.5, 422: 2.0, 444: 3.0}


def is_heic(start: bytes) -> bool:
    """Return whether a file that begins so is HEIC, and not AVIF, which is alike."""
    if start[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(start[:4], "big"), len(start))
    brands = {start[8:12], *(start[place : place + 4] for place in range(16, end - 3, 4))}
    return start[8:12] in _HEVC or (bool(brands & (_HEVC | _ANY_CODEC)) and not brands & _AV1)


def open_heic(stream: BinaryIO, *, header: Any) -> ImageFile.ImageFile:
    """Open a HEIC file, of which nothing is decoded yet; `header` is the stream that Pillow's plugin reads.

    Its orientation is heeded in decoding. Raises ImageError where it would take too long, or the package is missing.
    """
    check_items(stream.read())
    stream.seek(0)
    return _plugin()(header)


def _plugin() -> type[ImageFile.ImageFile]:
    try:
        from pi_heif.as_plugin import HeifImageFile
    except ImportError:
        try:
            from pillow_heif.as_plugin import HeifImageFile
        except ImportError as error:
            raise ImageError(f"it is HEIC: {MissingExtraError('pi-heif', 'heic')}") from error
    return HeifImageFile


def heic_bytes(image: Any) -> float:
    """Return what decoding an opened HEIC file takes: libde265's planes, libheif's, and its pixels."""
    width, height = image.size
    planes = _PLANES.get(int(image.info.get("chroma") or 444), 3.0) + image.mode.endswith(("A", "a"))
    deep = int(image.info.get("bit_depth") or 8) > 8
    return width * height * (2 * planes * (1 + deep) + _OUTPUT_BYTES)


def check_items(data: bytes) -> None:
    """Raise ImageError where the shown image is made of tiles and layers of far more pixels than an image has."""
    view, budget = memoryview(data), [_MOST_PARTS]
    try:
        meta = next((body for kind, body in boxes_in(view, budget) if kind == b"meta"), memoryview(b""))
        areas: dict[int, int] = {}
        made_of: dict[int, list[int]] = {}
        for kind, body in boxes_in(meta[4:], budget):
            if kind == b"iprp":
                areas |= areas_of(list(boxes_in(body, budget)), budget)
            elif kind == b"iref":
                _read_references(body, made_of, budget)
    except ValueError as error:
        raise ImageError(f"the boxes of a HEIC file must be whole; {error}: save it again") from error
    costs: dict[int, int] = {}
    for item in made_of:
        if _cost(item, areas, made_of, costs, depth=0) > _MOST_DECODED * MAX_PIXELS:
            raise ImageError("a HEIC image must not be made of others of far more pixels; it is: save it again")


def _read_references(body: memoryview, made_of: dict[int, list[int]], budget: list[int]) -> None:
    """Add which items each derived one is made of."""
    size = 2 if version_of(body) == 0 else 4
    for kind, entry in boxes_in(body[4:], budget):
        field = Fields(entry)
        item, number = field(size), field(2)
        budget[0] -= number
        if budget[0] < 0:
            raise ValueError("it has more parts than any image")
        if kind == b"dimg":
            made_of.setdefault(item, []).extend(field(size) for _ in range(number))


def _cost(item: int, areas: dict[int, int], made_of: dict[int, list[int]], costs: dict[int, int], *, depth: int) -> int:
    """Return how many pixels are decoded for an item, and copied for what it is part of."""
    if depth > 8:  # references in a circle, too, which libheif refuses
        raise ImageError("a HEIC image must not be made of others, which are made of others, and so on; it is")
    if item not in costs:
        parts = [_cost(part, areas, made_of, costs, depth=depth + 1) for part in made_of.get(item, ())]
        costs[item] = max(_LEAST_AREA, areas.get(item, 0)) + sum(parts)
    return costs[item]
