"""Open HEIC files, the format of many phones, with pi-heif: an optional package, imported only here.

pillow-heif, the same with a GPL-licensed encoder, is used if only that is installed.
"""

from typing import Any, BinaryIO

from PIL import ImageFile

from effnet.data.images.bmff import Fields, areas_of, boxes_in, version_of
from effnet.data.images.limits import MAX_PIXELS
from effnet.errors import ImageError, MissingExtraError

# The first bytes name the kinds of file.
START_BYTES = 64
_HEVC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_ANY_CODEC, _AV1 = frozenset({b"mif1", b"msf1"}), frozenset({b"avif", b"avis"})
# Of boxes and references. Decoding a tile, however small, takes as long as a few thousand pixels.
_MOST_PARTS, _LEAST_AREA = 100_000, 4096
# An image may be composed of others, of which only a part is shown: together at most this multiple of MAX_PIXELS.
_MOST_DECODED = 3
# Bytes per pixel that libheif needs besides two copies of its planes: the 8-bit pixels, and Pillow's.
_OUTPUT_BYTES = 5
_PLANES = {0: 1.0, 420: 1.5, 422: 2.0, 444: 3.0}


def is_heic(start: bytes) -> bool:
    """Return whether a file with these first bytes is HEIC, and not AVIF, which is similar."""
    if start[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(start[:4], "big"), len(start))
    brands = {start[8:12], *(start[place : place + 4] for place in range(16, end - 3, 4))}
    return start[8:12] in _HEVC or (bool(brands & (_HEVC | _ANY_CODEC)) and not brands & _AV1)


def open_heic(stream: BinaryIO, *, header: Any) -> ImageFile.ImageFile:
    """Open a HEIC file without decoding it; `header` is the stream that Pillow's plugin reads.

    Decoding applies its orientation. Raises ImageError if decoding would take too long, or the package is missing.
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
    """Return the bytes needed to decode an opened HEIC file: libde265's planes, libheif's planes, and the pixels."""
    width, height = image.size
    planes = _PLANES.get(int(image.info.get("chroma") or 444), 3.0) + image.mode.endswith(("A", "a"))
    deep = int(image.info.get("bit_depth") or 8) > 8
    return width * height * (2 * planes * (1 + deep) + _OUTPUT_BYTES)


def check_items(data: bytes) -> None:
    """Raise ImageError if the shown image is composed of tiles and layers with far more pixels than an image has."""
    budget = [_MOST_PARTS]
    try:
        for kind, body in boxes_in(memoryview(data), budget):
            if kind == b"meta":
                _check_meta(body[4:], budget)
    except ValueError as error:
        raise ImageError(f"the boxes of a HEIC file must be complete; {error}: save it again") from error


def _check_meta(meta: memoryview, budget: list[int]) -> None:
    areas: dict[int, int] = {}
    made_of: dict[int, list[int]] = {}
    for kind, body in boxes_in(meta, budget):
        if kind == b"iprp":
            areas |= areas_of(list(boxes_in(body, budget)), budget)
        elif kind == b"iref":
            _read_references(body, made_of, budget)
    costs: dict[int, int] = {}
    for item in made_of:
        if _cost(item, areas, made_of, costs, depth=0) > _MOST_DECODED * MAX_PIXELS:
            raise ImageError("a HEIC image must not be composed of parts with far more pixels; it is: save it again")


def _read_references(body: memoryview, made_of: dict[int, list[int]], budget: list[int]) -> None:
    """Add the items of which each derived item is composed."""
    size = 2 if version_of(body) == 0 else 4
    for kind, entry in boxes_in(body[4:], budget):
        field = Fields(entry)
        item, number = field(size), field(2)
        budget[0] -= number
        if budget[0] < 0:
            raise ValueError("it has more parts than any real image")
        if kind == b"dimg":
            made_of.setdefault(item, []).extend(field(size) for _ in range(number))


def _cost(item: int, areas: dict[int, int], made_of: dict[int, list[int]], costs: dict[int, int], *, depth: int) -> int:
    """Return the number of pixels that are decoded for an item and copied into the items it is part of."""
    if depth > 8:  # also circular references, which libheif refuses
        raise ImageError("a HEIC image must not be nested more than 8 levels deep; it is: save it again")
    if item not in costs:
        parts = [_cost(part, areas, made_of, costs, depth=depth + 1) for part in made_of.get(item, ())]
        costs[item] = max(_LEAST_AREA, areas.get(item, 0)) + sum(parts)
    return costs[item]
