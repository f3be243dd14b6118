"""Downloads from a real server: resumed, checked, never half-written; the hub's own client against a hub of ours."""

import base64
import dataclasses
import hashlib
import io
import os
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from effnet.errors import WeightsError
from effnet.system.download import Patience
from effnet.weights.catalog import find
from effnet.weights.download import cached, fetch, verify_hash

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Site:
    """Contents and failures of the server, and its requests; one for each test."""

    def __init__(self, url):
        self.url = url
        self.content = CONTENT
        self.status = 200
        self.ranges = True
        self.drop_after = []  # bytes after which each connection ends, in turn
        self.headers = {}
        self.asked = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        site = self.server.site
        site.asked.append((self.command, self.path, self.headers.get("Range")))
        start, status = 0, site.status
        content = site.content if status == 200 else b"no"
        if site.ranges and status == 200 and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            status = 206 if start < len(content) else 416
        if status == 416:
            content = b""
        self.send_response(status)
        if "Content-Length" not in site.headers:
            self.send_header("Content-Length", str(max(len(content) - start, 0)))
        if status in (206, 416):
            part = f"{start}-{len(content) - 1}" if status == 206 else "*"
            self.send_header("Content-Range", f"bytes {part}/{len(site.content)}")
        for name, value in site.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            part = content[start:]
            if site.drop_after and status < 400:
                part = part[: site.drop_after.pop(0)]
            self.wfile.write(part)
        if body and len(part) < len(content) - start:
            self.close_connection = True


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def site(server):
    server.site = Site(f"http://127.0.0.1:{server.server_port}")
    return server.site


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("effnet.system.download.PATIENCE", Patience(sleep=lambda _: None))
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def entry(site, cache):
    """torchvision's B0, as if it were on the server."""
    real = find("torchvision/efficientnet_b0.IMAGENET1K_V1")
    hashes = ("sha256:00000000", f"sha256:{SHA256[:8]}")
    return dataclasses.replace(real, url=f"{site.url}/{real.file}", hashes=hashes)


def files(cache):
    """Return the names of all files in the cache but the locks."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


def part_of(cache, entry):
    return cache / "weights" / entry.id / f"{entry.file}.part"


def lay(path, content):
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


def test_a_file_is_downloaded_once(entry, site, cache):
    assert cached(entry) is None
    calls = []
    path = fetch(entry, progress=lambda done, total: calls.append((done, total)))
    assert path == cached(entry) == cache / "weights" / entry.id / entry.file
    assert path.read_bytes() == CONTENT
    assert fetch(entry) == fetch(entry, offline=True) == path
    assert len(site.asked) == 1
    assert files(cache) == [entry.file]
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_a_connection_that_drops_is_taken_up_again(entry, site, cache):
    site.drop_after = [100_000, 50_000]
    assert fetch(entry).read_bytes() == CONTENT
    assert [asked for *_, asked in site.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert files(cache) == [entry.file]


def test_connections_that_bring_nothing_end_with_what_there_is(entry, site, cache):
    site.drop_after = [100_000] + [0] * 9
    with pytest.raises(
        WeightsError,
        match=r"ended after 100,000 of 300,000 bytes; gave up after 6 connections\); .*100,000 bytes are kept in",
    ):
        fetch(entry)
    site.drop_after = []
    assert files(cache) == [f"{entry.file}.part", f"{entry.file}.part.tag"]
    assert cached(entry) is None
    site.asked.clear()
    assert fetch(entry).read_bytes() == CONTENT
    assert [asked for *_, asked in site.asked] == ["bytes=100000-"]
    assert files(cache) == [entry.file]


def test_a_file_far_larger_than_its_network_is_refused(entry, site, cache):
    site.headers = {"Content-Length": str(10**10)}
    with pytest.raises(WeightsError, match=r"must have at most 2\d\d,.* bytes, but has 10,000,000,000; looked in"):
        fetch(entry)
    assert files(cache) == []


def test_a_server_that_knows_no_ranges_sends_it_all_again(entry, site, cache):
    lay(part_of(cache, entry), b"x" * 1000)
    site.ranges = False
    assert fetch(entry).read_bytes() == CONTENT


def test_a_part_that_is_whole_already_is_checked_and_kept(entry, site, cache):
    lay(part_of(cache, entry), CONTENT)
    assert fetch(entry).read_bytes() == CONTENT
    assert [asked for *_, asked in site.asked] == ["bytes=300000-"]


def test_a_part_that_is_longer_than_the_file_is_begun_anew(entry, site, cache):
    lay(part_of(cache, entry), CONTENT + b"more")
    assert fetch(entry).read_bytes() == CONTENT
    assert [asked for *_, asked in site.asked] == ["bytes=300004-", None]


@pytest.mark.parametrize("start", [b"", b"wrong beginning"])
def test_wrong_bytes_are_removed_and_both_hashes_shown(start, entry, site, cache):
    site.content = CONTENT[:-1] + b"?" if not start else CONTENT
    if start:
        lay(part_of(cache, entry), start)
    with pytest.raises(WeightsError) as raised:
        fetch(entry)
    message = str(raised.value)
    assert f"is not the published file of {entry.id}: expected sha256:00000000 or sha256:{SHA256[:8]}, found" in message
    assert len(message.rpartition("sha256:")[2].partition(";")[0]) == 64
    assert files(cache) == []


def test_md5_is_checked_where_that_is_published(entry, cache):
    keras = dataclasses.replace(entry, hashes=(f"md5:{MD5}",))
    fetch(keras).unlink()
    with pytest.raises(WeightsError, match=f"expected md5:{MD5[::-1]}, found md5:{MD5}"):
        fetch(dataclasses.replace(entry, hashes=(f"md5:{MD5[::-1]}",)))


def test_the_servers_own_hash_is_checked_where_none_is_published(entry, site, cache):
    unhashed = dataclasses.replace(entry, hashes=())
    site.headers = {"x-goog-hash": f"crc32c=AAAAAA==,md5={base64.b64encode(bytes.fromhex(MD5)).decode()}"}
    fetch(unhashed).unlink()
    site.content = CONTENT[::-1]
    with pytest.raises(WeightsError, match=f"arrived damaged: expected md5:{MD5}, found md5:"):
        fetch(unhashed)
    assert files(cache) == []
    site.headers = {}
    assert fetch(unhashed).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("status", [404, 403, 500])
def test_a_refusal_of_the_server_is_one_line(status, entry, site, cache):
    site.status = status
    with pytest.raises(WeightsError, match=rf"{entry.url} answers {status} .*--weights FILE$") as raised:
        fetch(entry)
    assert "\n" not in str(raised.value)
    assert files(cache) == []


def test_without_a_network_it_says_where_it_looked_and_what_to_do(entry, cache):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file.pth"
    with pytest.raises(WeightsError) as raised:
        fetch(dataclasses.replace(entry, url=url))
    message = str(raised.value)
    assert "\n" not in message
    assert f"{entry.id} cannot be downloaded from {url} (" in message
    assert message.endswith(
        f"; looked in {cache / 'weights' / entry.id}; to use a file from elsewhere: "
        f"effnet models pull {entry.id} --weights FILE"
    )


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_offline_asks_nobody(how, entry, site, cache, monkeypatch):
    if how == "environment":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        WeightsError, match=r"is not downloaded yet, and the network may not be used; looked in .*FILE$"
    ):
        fetch(entry, offline=how == "argument")
    assert site.asked == []
    assert not cache.exists()


def test_weights_that_were_never_published_cannot_be_fetched(cache):
    untrained = find("efficientnet_b7.untrained")
    assert cached(untrained) is None
    with pytest.raises(WeightsError, match=r"no weights were published as timm/efficientnet_b7\.untrained"):
        fetch(untrained)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_without_permission_is_named(entry, cache):
    cache.mkdir(mode=0o555)
    with pytest.raises(
        WeightsError, match=r"the cache folder .* cannot be written to \(Permission denied\); set EFFNET_"
    ):
        fetch(entry)


def test_a_read_only_disk_is_named(entry, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        WeightsError, match=r"the cache folder .* cannot be written to \(Read-only file system\); set EFF"
    ):
        fetch(entry)


def test_a_cache_that_is_a_file_is_named(entry, cache):
    cache.write_text("no folder")
    with pytest.raises(WeightsError, match=r"the cache folder .* cannot be written to \(Not a directory\)"):
        fetch(entry)


def test_a_full_disk_is_no_fault_of_the_network(entry, cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("effnet.weights.download.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(entry)
    assert files(cache) == [f"{entry.file}.part"]


def test_two_at_once_download_once(entry, site):
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch(entry).read_bytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 4
    assert len(site.asked) == 1


def test_a_local_file_is_checked(entry, tmp_path):
    path = tmp_path / "any name.pth"
    path.write_bytes(CONTENT)
    assert verify_hash(path, entry)
    assert not verify_hash(path, dataclasses.replace(entry, hashes=()))
    path.write_bytes(CONTENT[1:])
    with pytest.raises(WeightsError, match=r"any name\.pth is not the published file of torchvision/"):
        verify_hash(path, entry)


def test_the_hashes_of_older_files_say_nothing_of_a_safetensors_file(tmp_path):
    lite0 = find("tf_efficientnet_lite0.in1k")
    assert lite0.hashes == ("sha256:0aa007d2",)
    (tmp_path / "model.safetensors").write_bytes(CONTENT)
    assert not verify_hash(tmp_path / "model.safetensors", lite0)
    (tmp_path / "old.pth").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match="expected sha256:0aa007d2, found sha256:"):
        verify_hash(tmp_path / "old.pth", lite0)


def tar(names, *, mode="w:gz"):
    """Return the bytes of an archive in which each file's content is its name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    return buffer.getvalue()


CHECKPOINT = ("model.ckpt.index", "model.ckpt.data-00000-of-00001", "checkpoint")


@pytest.fixture
def checkpoint(site, cache):
    """TensorFlow's B0, as if it were on the server."""
    real = find("tensorflow/efficientnet-b0.aa")
    return dataclasses.replace(real, url=f"{site.url}/{real.file}")


def test_a_checkpoint_is_unpacked_without_what_lies_beside_it(checkpoint, site, cache):
    others = ("b0/._model.ckpt.index", "b0/model.ckpt.meta", "b0/b0-int8.tflite", "b0/events.out.1")
    site.content = tar([f"efficientnet-b0/{name}" for name in CHECKPOINT] + list(others))
    folder = fetch(checkpoint)
    assert folder == cached(checkpoint) == fetch(checkpoint, offline=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {n: f"efficientnet-b0/{n}" for n in CHECKPOINT}
    assert files(cache) == sorted(CHECKPOINT)


def test_an_archive_cannot_write_outside_its_folder(checkpoint, site, cache):
    site.content = tar(["../../../evil.index", "/evil.data-00000-of-00001", "model.ckpt.index"])
    folder = fetch(checkpoint)
    assert {path.name for path in folder.iterdir()} == {"evil.index", "evil.data-00000-of-00001", "model.ckpt.index"}
    assert len(files(cache.parent)) == 3


@pytest.mark.parametrize(
    "content, message",
    [
        (tar(CHECKPOINT)[:-30], "is not a complete archive"),
        (b"moved", "is not a complete archive"),
        (b"<html>moved</html>", "the server sends a web page instead; looked in"),
        (tar(["b0/readme.txt"]), r"must hold a TensorFlow checkpoint; it has no file that ends with \.index"),
    ],
)
def test_an_archive_that_is_none_is_removed(content, message, checkpoint, site, cache):
    site.content = content
    with pytest.raises(WeightsError, match=message):
        fetch(checkpoint)
    assert files(cache) == []
    assert cached(checkpoint) is None


@pytest.fixture
def hub(site, tmp_path, monkeypatch):
    """The hub's client, pointed at the server and at a cache of its own."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read when the client is imported
    monkeypatch.setattr(constants, "ENDPOINT", site.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", site.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    site.headers = {"ETag": f'"{SHA256}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
    return tmp_path / "hub"


@pytest.fixture
def lite0(cache):
    return find("tf_efficientnet_lite0.in1k")


def test_the_hubs_files_go_through_its_own_cache(lite0, site, hub, cache):
    assert cached(lite0) is None
    path = fetch(lite0)
    assert path == cached(lite0)
    assert path.read_bytes() == CONTENT
    assert path == hub / "models--timm--tf_efficientnet_lite0.in1k" / "snapshots" / COMMIT / "model.safetensors"
    url = "/timm/tf_efficientnet_lite0.in1k/resolve/main/model.safetensors"
    assert {asked[1] for asked in site.asked if not asked[1].startswith("/api/")} == {url}
    site.asked.clear()
    assert fetch(lite0) == path
    assert fetch(lite0, offline=True) == path
    assert site.asked == []
    assert not cache.exists()
    assert verify_hash(path, lite0)


def test_a_damaged_file_of_the_hub_is_removed(lite0, site, hub):
    site.content = CONTENT[::-1]
    with pytest.raises(WeightsError, match=rf"is not the published file of timm/.*: expected sha256:{SHA256}, found"):
        fetch(lite0)
    assert cached(lite0) is None
    assert not any(path.name == SHA256 for path in hub.rglob("*"))
    site.content = CONTENT
    assert fetch(lite0).read_bytes() == CONTENT


def test_a_file_that_the_hub_has_not_is_one_line(lite0, site, hub):
    site.status, site.headers = 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
    with pytest.raises(
        WeightsError, match=r"lite0\.in1k cannot be downloaded \(.*404.*\); looked in .*FILE$"
    ) as raised:
        fetch(lite0)
    assert "\n" not in str(raised.value)
    assert str(hub) in str(raised.value)
    assert cached(lite0) is None


def test_a_hub_that_cannot_be_reached_is_one_line_at_once(lite0, hub, monkeypatch, capfd):
    from huggingface_hub import constants

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "ENDPOINT", url)
    with pytest.raises(
        WeightsError, match=r"cannot be downloaded \(.*refused.*\); looked in .*hub; to use a file"
    ) as raised:
        fetch(lite0)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_offline_the_hub_is_not_asked(lite0, site, hub):
    with pytest.raises(
        WeightsError, match=r"the network may not be used; looked in .*hub; to use a file from elsewhere"
    ):
        fetch(lite0, offline=True)
    assert site.asked == []


def test_looking_into_the_caches_loads_no_torch(run_python):
    code = (
        "import sys; from effnet.weights.catalog import entries; from effnet.weights.download import cached;"
        "[cached(entry) for entry in entries()]; print('torch' in sys.modules)"
    )
    assert run_python("-c", code).out == "False\n"
