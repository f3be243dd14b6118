"""Hostile requests for a server: the bytes of a connection, by kind, the same for the same seed."""

import functools
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from benchmarks.attacks.mutants import mutant

_PATHS = (b"/predict", b"/embed", b"/v2/models/lite0/infer", b"/nowhere", b"/admin/reload", b"/predict?top=-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """What a client sends before it waits for an answer; with `leaves` it disconnects at once instead.

    `good` says whether an answer of 200 is right, as the data may be a valid image all the same.
    """

    parts: tuple[bytes, ...]
    leaves: bool = False
    good: bool = False


def attack(kind: str, files: Sequence[bytes], *, seed: int) -> Attack:
    """Return the attack number `seed` of a kind; `files` are good images."""
    return KINDS[kind](random.Random(f"{kind} {seed}"), files)


def post(body: bytes, *, path: bytes = b"/predict", headers: bytes = b"", length: int | None = None) -> bytes:
    """Return a request that closes its connection."""
    size = len(body) if length is None else length
    return (
        b"POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n%s\r\n" % (path, size, headers)
        + body
    )


def _mutated(rng: random.Random, files: Sequence[bytes]) -> Attack:
    data = rng.choice(files)
    form = rng.choice(("JPEG", "PNG", "WEBP"))
    if form != "JPEG":
        file = io.BytesIO()
        Image.open(io.BytesIO(data)).resize((160, 120)).save(file, format=form)
        data = file.getvalue()
    return Attack(parts=(post(mutant(data, seed=rng.randrange(2**31))),), good=True)


def png(width: int, height: int, *, bits: int = 8, color: int = 2, data: bytes = b"", more: bytes = b"") -> bytes:
    """Return a PNG file with the header of an image that its data do not hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    body = chunk(b"IDAT", data or zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + header + more + body + chunk(b"IEND", b"")


@functools.cache
def _zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 1)


def _long_text(size: int) -> bytes:
    text = b"note\0\0" + _zeros(size)
    return struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))


def _jpeg_claiming(data: bytes, side: int) -> bytes:
    changed = bytearray(data)
    place = next((at for mark in (b"\xff\xc0", b"\xff\xc2") if (at := data.find(mark)) >= 0), 0)
    changed[place + 5 : place + 9] = struct.pack(">HH", side % 65_536, side % 65_536)
    return bytes(changed)


def _bomb(rng: random.Random, files: Sequence[bytes]) -> Attack:
    side = rng.choice((5_001, 20_000, 65_000, 100_000))
    makers: tuple[Callable[[], bytes], ...] = (
        lambda: png(side, side),
        lambda: png(side, 1),
        lambda: png(2**31 - 1, 2**31 - 1),
        lambda: png(100, 100, more=_long_text(rng.choice((10**6, 8 * 10**7)))),
        lambda: _jpeg_claiming(files[0], side),
        # Of as many pixels as are allowed, in the modes that take the most memory, with an end that is missing.
        lambda: png(5_000, 5_000, color=6, data=_zeros(10**7)[:-4]),
        lambda: png(5_000, 5_000, bits=16, color=6, data=_zeros(10**7)[:-4]),
        # The same, whole: an image of one colour.
        lambda: png(5_000, 5_000, color=6, data=_zeros(5_000 * 20_001)),
        lambda: png(5_000, 5_000, color=3, data=_zeros(5_000 * 5_001)),
        lambda: b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xff" * 6,
    )
    return Attack(parts=(post(rng.choice(makers)()),), good=True)


def _slow(rng: random.Random, files: Sequence[bytes]) -> Attack:
    whole = post(rng.choice(files))
    place = rng.randrange(1, len(whole) - 1)
    return Attack(parts=(whole[:place],))


def _headers(rng: random.Random, files: Sequence[bytes]) -> Attack:
    lines = (
        b"content-length: -1", b"content-length: 99999999999999999999", b"content-length: 1\r\ncontent-length: 2",
        b"transfer-encoding: chunked", b"transfer-encoding: gzip, chunked", b"content-encoding: gzip", b"x" * 70_000,
        b"a: " + b"b" * 70_000, b"authorization: Bearer \xff\xfe", b"content-type: multipart/form-data",
        b"content-type: multipart/form-data; boundary=" + b"x" * 200, b"\0: \0", b"expect: 100-continue",
        b"upgrade: websocket\r\nconnection: upgrade", b"traceparent: " + b"0" * 500,
        b"inference-header-content-length: -5", b"inference-header-content-length: 1e9",
    )  # fmt: skip
    head = b"%s %s HTTP/%s\r\n" % (
        rng.choice((b"POST", b"GET", b"PUT", b"HEAD", b"BREW", b"\xff", b"")),
        rng.choice((*_PATHS, b"/%ff%fe", b"//", b"/" + b"a" * 60_000, b"http://[", b"*")),
        rng.choice((b"1.1", b"1.0", b"0.9", b"9.9")),
    )
    more = b"\r\n".join(rng.choice(lines) for _ in range(rng.randint(1, 4)))
    return Attack(
        parts=(head + b"host: x\r\n" + more + b"\r\n\r\n" + rng.randbytes(rng.choice((0, 10, 3_000))),), good=True
    )


def _noise(rng: random.Random, files: Sequence[bytes]) -> Attack:
    data = rng.randbytes(rng.choice((0, 1, 100, 10_000, 200_000)))
    start = rng.choice((b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WEBP"))
    return Attack(parts=(rng.choice((data, post(start + data), post(data, path=rng.choice(_PATHS)))),))


def _leaving(rng: random.Random, files: Sequence[bytes]) -> Attack:
    whole = post(rng.choice(files))
    return Attack(parts=(whole[: rng.choice((rng.randrange(len(whole)), len(whole)))],), leaves=True)


def _protocol(rng: random.Random, files: Sequence[bytes]) -> Attack:
    deep = b"[" * rng.choice((10, 100_000))
    tensor: dict[str, object] = {
        "name": rng.choice(("image", "x", None)),
        "shape": rng.choice(([1], [-1], [10**9, 10**9], [1, 224, 224, 3], "x", [])),
        "datatype": rng.choice(("BYTES", "UINT8", "FP32", "X", 5)),
        "data": rng.choice(([], ["x"], [1e400, "a"], [[[1]]], None, "abc")),
        "parameters": rng.choice(({}, {"binary_data_size": -1}, {"binary_data_size": 10**12}, [])),
    }
    text = json.dumps(rng.choice(({"inputs": [tensor]}, {"inputs": [tensor] * 100}, {"inputs": tensor}, [tensor], {})))
    body = rng.choice(
        (text.encode(), mutant(text.encode(), seed=rng.randrange(2**31)), deep, text.encode() + b"\0" * 99)
    )
    header = rng.choice((b"", b"inference-header-content-length: %d\r\n" % rng.choice((0, 5, len(text), 10**9))))
    return Attack(parts=(post(body, path=b"/v2/models/lite0/infer", headers=header),))


def _form(rng: random.Random, files: Sequence[bytes]) -> Attack:
    parts = [
        b'--b\r\ncontent-disposition: form-data; name="image"; filename="x.jpg"\r\n\r\n'
        + rng.choice(files)[:5_000]
        + b"\r\n"
        for _ in range(rng.choice((0, 1, 2, 40)))
    ]
    body = b"".join(parts) + rng.choice((b"--b--\r\n", b"--b--", b"", b"--c--"))
    body = mutant(body, seed=rng.randrange(2**31)) if rng.random() < 0.5 else body
    return Attack(parts=(post(body, headers=b"content-type: multipart/form-data; boundary=b\r\n"),), good=True)


KINDS: Mapping[str, Callable[[random.Random, Sequence[bytes]], Attack]] = {
    "mutated images": _mutated,
    "bombs": _bomb,
    "slow bodies": _slow,
    "broken headers": _headers,
    "random bytes": _noise,
    "disconnects": _leaving,
    "broken tensors": _protocol,
    "broken forms": _form,
}
SHARES: Mapping[str, float] = {
    "mutated images": 0.4, "bombs": 0.05, "slow bodies": 0.02, "broken headers": 0.13, "random bytes": 0.1,
    "disconnects": 0.1, "broken tensors": 0.1, "broken forms": 0.1,
}  # fmt: skip
