"""TIFF files with bands, which Pillow does not write. Source: TIFF 6.0, and the technical note on predictor 3."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def tiff_of_bands(
    values: np.ndarray, *, order: str = "<", planar: bool = False, deflated: bool = False, predictor: int = 1,
    tile: tuple[int, int] | None = None, rows: int = 5, big: bool = False, extra: tuple[int, ...] = (),
    photometric: int = 1,
) -> bytes:  # fmt: skip
    """Return a file of bands [H, W, C] in strips of `rows`, or in tiles of this height and width."""
    height, width, channels = values.shape
    down, across = tile or (rows, width)
    pieces = []
    for band in range(channels) if planar else (slice(None),):
        plane = values[..., band].reshape(height, width, -1)
        for y in range(0, height, down):
            for x in range(0, width, across):
                piece = plane[y : y + down, x : x + across]
                if tile:
                    piece = np.pad(piece, ((0, down - piece.shape[0]), (0, across - piece.shape[1]), (0, 0)))
                data = _predicted(piece, predictor, order)
                pieces.append(zlib.compress(data) if deflated else data)
    head = 16 if big else 8
    offsets = np.cumsum([head, *map(len, pieces)]).tolist()
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = {
        256: [width], 257: [height], 258: [8 * values.itemsize] * channels, 259: [8 if deflated else 1],
        262: [photometric], 277: [channels], 284: [2 if planar else 1], 317: [predictor], 339: [kind] * channels,
    }  # fmt: skip
    place, sizes = (324, 325) if tile else (273, 279)
    tags |= {place: offsets[:-1], sizes: [len(piece) for piece in pieces]}
    tags |= {322: [across], 323: [down]} if tile else {278: [rows]}
    tags |= {338: list(extra)} if extra else {}
    return _file(b"".join(pieces), tags, order=order, big=big)


def pages(values: np.ndarray, **options: str) -> bytes:
    """Return a file with a grey page for each band [H, W, C], written by Pillow."""
    first, *others = (Image.fromarray(np.ascontiguousarray(values[..., i])) for i in range(values.shape[2]))
    stream = io.BytesIO()
    first.save(stream, "TIFF", save_all=True, append_images=others, **options)
    return stream.getvalue()


def _predicted(piece: np.ndarray, predictor: int, order: str) -> bytes:
    stored = piece.astype(piece.dtype.newbyteorder(order))
    if predictor == 1:
        return stored.tobytes()
    if predictor == 2:
        differences = np.diff(piece, axis=1, prepend=np.zeros_like(piece[:, :1]))
        return differences.astype(stored.dtype).tobytes()
    height, width, channels = piece.shape
    whole = np.ascontiguousarray(piece.astype(">f4")).view(np.uint8).reshape(height, width * channels, 4)
    planes = whole.transpose(0, 2, 1).reshape(height, -1, channels)
    return np.diff(planes, axis=1, prepend=np.zeros_like(planes[:, :1])).tobytes()


def _file(data: bytes, tags: dict[int, list[int]], *, order: str, big: bool) -> bytes:
    letter, size, kind = ("Q", 8, 16) if big else ("L", 4, 4)
    place = (16 if big else 8) + len(data)
    end = place + (8 if big else 2) + len(tags) * (4 + 2 * size) + size
    entries, behind = b"", b""
    for tag in sorted(tags):
        body = struct.pack(f"{order}{len(tags[tag])}{letter}", *tags[tag])
        entries += struct.pack(f"{order}HH{letter}", tag, kind, len(tags[tag]))
        entries += body if len(body) <= size else struct.pack(f"{order}{letter}", end + len(behind))
        behind += body if len(body) > size else b""
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    start += struct.pack(f"{order}HH", 8, 0) if big else b""
    start += struct.pack(f"{order}{letter}", place)
    counted = struct.pack(f"{order}{'Q' if big else 'H'}", len(tags))
    return start + data + counted + entries + struct.pack(f"{order}{letter}", 0) + behind
