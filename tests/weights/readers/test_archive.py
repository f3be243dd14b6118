"""Archives of checkpoints: only the needed files are unpacked, up to a limit of size."""

import gzip
import io
import random
import tarfile

import pytest
from hostile import refused_cheaply

from effnet.weights.readers.archive import unpack


def tar_of(*members, kind=tarfile.REGTYPE, form=tarfile.GNU_FORMAT):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), kind
            info.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def header(name, size, kind):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_checkpoint_is_unpacked_whatever_wrote_it(tmp_path, form, pack):
    data, name = random.Random(0).randbytes(2 * 10**6), "a" if form == tarfile.USTAR_FORMAT else "é" * 200
    content = tar_of((f"{name}/m.index", b"index"), ("../m.data-00000-of-00001", data), form=form)
    (tmp_path / "a.tar.gz").write_bytes(pack(content))
    folder = unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {"m.index", "m.data-00000-of-00001"}
    assert (folder / "m.data-00000-of-00001").read_bytes() == data


ZEROS = bytes(10**7)


@pytest.mark.parametrize(
    "content, words",
    [
        (gzip.compress(tar_of(("m.index", ZEROS))), "it unpacks to more than 16 times its size"),
        (gzip.compress(tar_of(("notes.txt", ZEROS), ("m.index", b"x"))), "it unpacks to more than 16 times its size"),
        (gzip.compress(header("x", len(ZEROS), tarfile.GNUTYPE_LONGNAME) + ZEROS), "a name in it is too long"),
        (gzip.compress(header("x", len(ZEROS), tarfile.XHDTYPE) + ZEROS), "a name in it is too long"),
        (header("m.index", 2**40, tarfile.REGTYPE) + bytes(1024), "is not a complete archive"),
        (
            header("m.index", 2**40, tarfile.GNUTYPE_SPARSE) + bytes(1024),
            "is not a complete archive|no file that ends with",
        ),
        (tar_of(("m.index", b""), kind=tarfile.SYMTYPE), "it has no file that ends with .index"),
        (tar_of(("m.index", b""), kind=tarfile.LNKTYPE), "it has no file that ends with .index"),
        (gzip.compress(tar_of(("m.index", b"x" * 5000)))[:-300], "is not a complete archive"),
        (b"BZh91AY&SY", "is not a complete archive"),
    ],
)
def test_what_unpacks_to_too_much_or_elsewhere_is_refused(tmp_path, content, words):
    (tmp_path / "a.tar.gz").write_bytes(content)
    with refused_cheaply(words):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]
