"""Shards from untrusted servers: unusable files are never kept, and no limit is exceeded."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from file_server import serving
from PIL import Image
from raw_server import endless, head, serving_raw, whole

from effnet.data.datasets import read_dataset
from effnet.data.shards.cache import shard_path
from effnet.data.shards.file import Shard
from effnet.errors import DataError
from effnet.system.download import Patience

LIMIT = 200_000
SPLITS = ("train", "val", "test")


def make_tar(*, count=8, label="cls"):
    """Return the bytes of a shard of noise, about 1,500 bytes per image."""
    buffer, rng = io.BytesIO(), np.random.default_rng(0)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for i in range(count):
            png = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(png, "PNG")
            for suffix, data in (("png", png.getvalue()), (label, str(i % 2).encode())):
                info = tarfile.TarInfo(f"{i:04d}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


SHARD = make_tar()
PAGE = b"<!DOCTYPE html><title>Please log in</title>"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("effnet.system.download.PATIENCE", Patience(sleep=lambda _: None))
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EFFNET_SHARD_CACHE_GB", str(LIMIT / 1e9))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def served(cache):
    with serving() as server:
        server.files["x.tar"] = SHARD
        yield server


def kept(cache):
    """Return the names of the files in the cache, without locks."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


def count(dataset):
    return sum(len(getattr(dataset, name)) for name in SPLITS)


def refused(url, message):
    with pytest.raises(DataError, match=message) as raised:
        read_dataset(url)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    "content, message",
    [
        (PAGE, r"x\.tar cannot be used as a shard: the server sends a web page instead; nothing was kept in .*/cache/"),
        (b"moved", r"^http.*x\.tar must be a whole, .* tar file, but .* \(it was not kept in .*/cache/shards/"),
        (SHARD[:6000], r"^http.*x\.tar must be a whole, .* tar file, but"),
        (make_tar(label="txt"), r"must have a label.*\(it was not kept in"),
    ],
)
def test_what_is_no_shard_is_not_kept(content, message, served, cache):
    served.files["x.tar"] = content
    refused(f"{served.url}/x.tar", message)
    assert kept(cache) == []
    served.files["x.tar"] = SHARD
    assert count(read_dataset(f"{served.url}/x.tar")) == 8


@pytest.mark.parametrize("content", [PAGE, SHARD[:6000], b""])
def test_what_is_no_shard_and_was_kept_before_is_downloaded_again(content, served, cache, monkeypatch):
    place = shard_path(Shard(location=f"{served.url}/x.tar", name="x.tar"))
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert str(place) in refused(f"{served.url}/x.tar", "it is in .*, and HF_HUB_OFFLINE forbids the network")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert count(read_dataset(f"{served.url}/x.tar")) == 8
    assert place.read_bytes() == SHARD


def test_a_kept_shard_that_was_cut_off_later_is_downloaded_again(served):
    dataset = read_dataset(f"{served.url}/x.tar")
    place = shard_path(dataset.train.sources[0].store.shards[0])
    place.write_bytes(SHARD[:1000])
    source = pickle.loads(pickle.dumps(dataset.train.sources[0]))  # in a process that has not opened it
    assert len(source.read()) > 100
    assert place.read_bytes() == SHARD


@pytest.mark.parametrize(
    "row", [["a.png", 0, 10**9, 1], ["a.png", -9, 5, 1], ["a.png", 1.5, 5, 1], ["a.png", 0, 5, []], 7]
)
def test_a_kept_list_that_cannot_be_right_is_made_anew(row, served, cache):
    read_dataset(f"{served.url}/x.tar")
    (path,) = cache.rglob("*.json")
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"members": [row, *data["members"]]}))
    assert count(read_dataset(f"{served.url}/x.tar")) == 8
    assert json.loads(path.read_text()) == data


CHUNK = b"8000\r\n" + bytes(0x8000) + b"\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        head("Content-Length: 6600000000"),
        endless(head("Transfer-Encoding: chunked"), CHUNK),
        endless(head(), bytes(30_000)),
    ],
)
@pytest.mark.parametrize("name", ["x.tar", "{0..5}.tar"])
def test_the_limit_holds_while_shards_arrive(answer, name, cache, monkeypatch):
    most = []

    def sizes(done, *_):
        most.append(sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()))

    with serving_raw() as server:
        server.answers = [head(status="404 Not Found"), answer]
        monkeypatch.setattr("effnet.system.http.Pace.stored", sizes)
        message = refused(f"{server.url}/{name}", r"must have at most .* bytes, but .*; nothing was kept in .*/cache/")
    assert "raise EFFNET_SHARD_CACHE_GB" in message
    assert max(most, default=0) <= LIMIT
    assert kept(cache) == []


def test_what_broken_downloads_left_makes_room(served, cache):
    old = cache / "shards" / "old" / "old.tar.part"
    old.parent.mkdir(parents=True)
    old.write_bytes(bytes(LIMIT - 1000))
    assert count(read_dataset(f"{served.url}/x.tar")) == 8
    assert not old.exists()


def test_a_byte_a_connection_ends_with_the_url_and_the_path(cache):
    with serving_raw() as server:
        answers = [head(f"Content-Length: {len(SHARD)}", 'ETag: "1"') + SHARD[:1]]
        for i in range(1, 50):
            line = f"Content-Range: bytes {i}-{len(SHARD) - 1}/{len(SHARD)}"
            answers.append(head(line, 'ETag: "1"', status="206 Partial Content") + SHARD[i : i + 1])
        server.answers = [head(status="404 Not Found"), *answers]
        message = refused(f"{server.url}/x.tar?key=secret", "cannot be downloaded .*gave up after 5 connections")
        assert len(server.asked) == 6
    (part,) = cache.rglob("*.part")
    assert f"5 bytes are kept in {part}" in message
    assert f"{server.url}/x.tar?..." in message
    assert "secret" not in message


ROW = {"file": "x.tar", "split": "train", "count": 8, "size_bytes": len(SHARD), "sha256": ""}
INDEX = {"format": 1, "class_names": ["a", "b"], "shards": [ROW]}


def index_with(**changes):
    return json.dumps(INDEX | {"shards": [ROW | changes]}).encode()


BAD_INDEXES = [
    index_with(size_bytes=-1),
    index_with(size_bytes=10**18),
    index_with(size_bytes=1.5),
    index_with(size_bytes="8"),
    index_with(count=True),
    index_with(count=float("nan")),
    index_with(sha256="../../x"),
    index_with(sha256=None),
    index_with(file="a\n.tar"),
    index_with(file="a" * 300 + ".tar"),
    index_with(file=7),
    b'{"format": 1, "class_names": [], "shards": 5}',
    b'{"format": ' + b"9" * 9999 + b"}",
    b"[" * 100_000,
    b"\xff\xfe",
    b"{}" + b" " * 17_000_000,
    PAGE,
]


@pytest.mark.parametrize("text", BAD_INDEXES)
def test_an_index_that_cannot_be_right_is_one_line_and_not_kept(text, served, cache):
    served.files["effnet-shards.json"] = index_with()
    assert count(read_dataset(f"{served.url}/")) == 8
    served.files["effnet-shards.json"] = text
    message = refused(f"{served.url}/", "effnet-shards.json (must be an index|cannot be used as an index)")
    assert len(message) < 600
    (path,) = cache.rglob("effnet-shards.json")
    assert path.read_bytes() == index_with()


def test_an_index_in_a_folder_is_as_bounded(tmp_path):
    (tmp_path / "x.tar").write_bytes(SHARD)
    for text in BAD_INDEXES[:-2]:
        (tmp_path / "effnet-shards.json").write_bytes(text)
        refused(tmp_path, "must be an index")
    with open(tmp_path / "effnet-shards.json", "wb") as file:
        file.truncate(10**11)
    refused(tmp_path, "must be readable, but it is not")


@pytest.mark.parametrize(
    "url, message",
    [
        ("http://me:secret@127.0.0.1/x.tar", "a password; received http://127.0.0.1/x.tar"),
        ("http://[/x.tar", "the address is not valid"),
        ("http://127.0.0.1/a b.tar", "must not contain spaces"),
        ("http:///x.tar", "must begin with http:// or https:// and a server"),
    ],
)
def test_urls_that_cannot_be_opened_are_one_line(url, message):
    assert "secret" not in refused(url, message)


def test_a_name_that_no_disk_takes_is_kept_under_another(served):
    for name in ("%00%2f" + "y" * 300 + ".tar", "%2e%2e.tar", "%1b[31m.tar", "%ff.tar"):
        served.files[name] = SHARD
        assert count(read_dataset(f"{served.url}/{name}")) == 8


def test_a_redirect_to_a_file_of_this_machine_is_refused(cache):
    with serving_raw() as server:
        server.answers = [head(status="404 x"), head("Location: file:///etc/passwd", status="302 Found"), whole(SHARD)]
        refused(f"{server.url}/x.tar", "the server returned 302 .*file:///etc/passwd' is not allowed; check the URL")
    assert kept(cache) == []
