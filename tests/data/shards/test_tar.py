"""Damaged and malicious tar files: each is read, or refused on one line, in limited time and memory."""

import io
import os
import random
import tarfile

import numpy as np
import pytest
from PIL import Image

from effnet.data.datasets import read_dataset
from effnet.data.shards.tar import list_members
from effnet.errors import DataError

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def header(name, size, *, kind=b"0", raw_size=None, more=b""):
    """Return a header with a valid checksum, whatever its fields."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return signed(bytearray(info.tobuf(tarfile.GNU_FORMAT)), raw_size, more)


def signed(block, raw_size=None, more=b""):
    if raw_size is not None:
        block[124:136] = raw_size
    block[482 : 482 + len(more)] = more
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data):
    return data + bytes(-len(data) % tarfile.BLOCKSIZE)


def record(key, value):
    """Return a record of a pax header, shorter than 1,000 or of five digits."""
    body = b" %s=%s\n" % (key, value)
    digits = 1 if len(body) < 9 else 2 if len(body) < 98 else 5
    return b"%0*d" % (digits, len(body) + digits) + body


def pax(*records, kind=b"x"):
    body = b"".join(records)
    return header("pax", len(body), kind=kind) + padded(body)


IMAGE = header("a.png", 3) + padded(b"png")
LABEL = header("a.cls", 1) + padded(b"1")
END = bytes(1024)
BACKWARDS = b"\xff" * 10 + b"\xfe\x00"  # -512

HARMFUL = {
    "a size that leads back": header("d.x", 0, raw_size=BACKWARDS) + END,
    "a pax size that leads back": pax(record(b"size", b"-1024")) + header("d.x", 0) + END,
    "a size of 2^80": header("d.x", 0, raw_size=b"\x80" + b"\xff" * 11) + END,
    "a long name of negative size": header("x", 0, kind=b"L", raw_size=BACKWARDS) + IMAGE + END,
    "a size beyond the end": LABEL + header("a.png", 5000) + bytes(512),
    "five thousand long names": (header("x", 6, kind=b"L") + padded(b"a.png\0")) * 5000 + IMAGE + END,
    "a name of 2,000 characters": header("x", 2000, kind=b"L") + padded(b"n" * 1996 + b".png") + IMAGE + LABEL + END,
    "many shared headers": b"".join(
        pax(record(b"k%d" % n, b"v" * 20_000), kind=b"g") + header(f"d{n}", 0, kind=b"5") for n in range(99)
    ) + END,
    "digits that take a pattern quadratic time": b"".join(
        header("x", 60_000, kind=b"x") + padded(b"9" * 60_000) + header(f"d{n}", 0, kind=b"5") for n in range(99)
    ) + END,
    "a map of a sparse file that is none": pax(record(b"GNU.sparse.map", b"0,a,3")) + IMAGE + END,
    "a sparse file of version 1.0 without a map": (
        pax(record(b"GNU.sparse.major", b"1"), record(b"GNU.sparse.minor", b"0")) + IMAGE + END
    ),
    "sparse headers without end": header("a.png", 512, kind=b"S", more=b"\1")
    + ((b"%011o\0" % 0) * 42 + b"\1" + bytes(7)) * 4000,
}  # fmt: skip


@pytest.mark.parametrize("what", HARMFUL)
def test_a_tar_that_would_do_harm_is_refused(what):
    with pytest.raises(DataError, match=r"^x\.tar must be a whole, uncompressed tar file") as raised:
        list_members(io.BytesIO(HARMFUL[what]), "x.tar")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 400


def label(text, suffix="cls"):
    return IMAGE + header(f"a.{suffix}", len(text)) + padded(text) + END


@pytest.mark.parametrize(
    "text, suffix, message",
    [
        (b"[" * 100_000, "json", "nested too deeply"),
        (b'{"label": NaN}', "json", "finite numbers; got NaN"),
        (b'{"label": 1e999}', "json", "finite numbers"),
        (b'{"label": ' + b"9" * 5000 + b"}", "json", "64 bits"),
        (b'{"label": "\\ud800"}', "json", r"the name of a class, received '\\ud800'"),
        (b'{"label": "a\\u001b[31mb"}', "json", r"received 'a\\x1b\[31mb'"),
        (b'{"label": [[[[[1]]]]]}', "json", "received list"),
        (b"x" * 5000, "cls", r"the name of a class, received 'xxx.*\.\.\."),
        (b"two\nlines", "cls", r"received 'two\\nlines'"),
        (b"x" * 2**21, "cls", "must hold a label, but has 2,097,152 bytes"),
    ],
)
def test_a_label_that_is_no_class_is_refused_on_one_short_line(text, suffix, message):
    with pytest.raises(DataError, match=message) as raised:
        list_members(io.BytesIO(label(text, suffix)), "x.tar")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


def test_large_numbers_and_odd_names_are_only_names():
    (member,) = list_members(io.BytesIO(label(b"1000000000000")), "x.tar")
    assert member.label == 10**12
    name = header("x", 11, kind=b"L") + padded(b"\xff\x1b[31m.png\0")
    (member,) = list_members(io.BytesIO(name + IMAGE + name.replace(b"png", b"cls") + LABEL + END), "x.tar")
    assert member.name.isprintable()


def test_a_sparse_image_is_refused():
    content = header("a.png", 0, kind=b"S") + LABEL + END
    with pytest.raises(DataError, match=r"must store files in one piece, but a\.png is a sparse file"):
        list_members(io.BytesIO(content), "x.tar")


_BOMBS = """
import resource, sys, tarfile
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from effnet.data.datasets import read_dataset
from effnet.errors import DataError
for path in sys.argv[1:]:
    try:
        read_dataset(path)
    except DataError as error:
        print(error)
"""


def test_sizes_of_gigabytes_are_not_allocated(tmp_path, run_python):
    size = 10 << 30
    starts = {
        "name": header("x", size, kind=b"L"),
        "pax": header("x", size, kind=b"x"),
        "image": LABEL + header("a.png", size),
    }
    for name, start in starts.items():
        with open(tmp_path / f"{name}.tar", "wb") as file:  # sparse: it takes no space on the disk
            file.write(start)
            file.truncate(size + 8192)
    ran = run_python("-c", _BOMBS, *(tmp_path / f"{name}.tar" for name in starts), timeout=300)
    assert (ran.code, ran.err) == (0, "")
    long_name, long_header, image = ran.out.splitlines()
    assert "(a header is too long)" in long_name
    assert "(a header is too long)" in long_header
    assert "must hold images of at most 536,870,912 bytes, but a.png has 10,737,418,240" in image


def whole_tar(rng):
    png, buffer = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(png, "PNG")
    form = rng.choice(FORMATS)
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for i in range(4):
            folder = "d" * (1 if form == tarfile.USTAR_FORMAT else rng.choice([1, 90, 300]))
            for suffix, data in (("png", png.getvalue()), ("json", b'{"label": %d}' % i)):
                info = tarfile.TarInfo(f"{folder}/{i}.{suffix}")
                info.size = len(data)
                if form == tarfile.PAX_FORMAT:
                    info.pax_headers = {"comment": "ä" * rng.randint(1, 50)}
                archive.addfile(info, io.BytesIO(data))
    return bytearray(buffer.getvalue())


def mutate_(content, rng):
    """Damage headers, whose checksums are then corrected, and the bytes between them."""
    headers = [at for at in range(0, len(content) - 511, 512) if content[at + 257 : at + 262] == b"ustar"]
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.choice(headers), rng.randrange(6)
        if kind == 0:
            content[rng.randrange(len(content))] = rng.randrange(256)
        elif kind == 1:
            content[at + 156] = rng.choice(b"LKxgSXDV0517\0N\xff")
        elif kind == 2:
            sizes = (b"77777777777\0", b"\x80" + b"\xff" * 11, BACKWARDS, b"-0000000001\0", b"zzzz" + bytes(8))
            content[at + 124 : at + 136] = rng.choice(sizes)
        elif kind == 3:
            start = at + rng.choice([0, 100, 116, 136, 157, 257, 265, 297, 345, 386, 482])
            content[start : start + 8] = rng.randbytes(8)
        elif kind == 4:
            content[at:at] = pax(
                rng.choice([record(b"size", b"1e99"), record(b"path", b"\xff\0"), b"1 a=b\n", b"5 a=\n" * 50]),
                rng.choice([record(b"GNU.sparse.size", b"x"), record(b"GNU.sparse.map", b"1,2,x"), b""]),
                kind=rng.choice([b"x", b"g"]),
            )
            continue
        else:
            start = rng.randrange(0, len(content) // 512) * 512
            content[start:start] = content[at : at + 1024]
            continue
        content[at : at + 512] = signed(content[at : at + 512])


def test_damage_anywhere_ends_in_a_list_or_on_one_line():
    refused, rng = [], random.Random(0)
    for _ in range(400):
        content = whole_tar(rng)
        mutate_(content, rng)
        try:
            for member in list_members(io.BytesIO(content), "x.tar"):
                assert 0 <= member.offset <= member.offset + member.size <= len(content)
        except DataError as error:
            refused.append(str(error))
    assert 200 < len(refused) < 400
    assert all(text.isprintable() and len(text) < 1000 for text in refused)


def test_a_pipe_is_no_shard(tmp_path):
    os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(DataError, match="must be readable, but it is not"):
        read_dataset(tmp_path)
