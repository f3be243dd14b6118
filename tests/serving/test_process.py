"""A server as a process: signals, slow and broken clients, and several requests on one connection."""

import http.client
import json
import re
import shutil
import signal
import socket
import threading
import time
import urllib.request

import pytest
from served import photo

LIMITS = ("--set", "serve.body_seconds=0.7", "--set", "serve.max_body_mb=0.2")
REQUEST = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


def get(server, path):
    """Return the status and the data of a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def predict(server):
    request = urllib.request.Request(f"{server.address}/predict", data=photo())
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.loads(response.read())


def raw(server, *parts, seconds=60.0):
    """Send bytes, and return all that comes until the server closes the connection or says nothing for a while."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        found = b""
        try:
            for part in parts:
                connection.sendall(part)
            while piece := connection.recv(65536):
                found += piece
        except TimeoutError:
            return found, False
        except (ConnectionResetError, BrokenPipeError):  # closed, with bytes on their way
            return found, True
        return found, True


def test_a_server_reloads_and_drains(serve_process, bundles, tmp_path):
    """SIGHUP with a bad version, a link that is set to a good one, SIGTERM while a body is on its way."""
    place, link = tmp_path / "first", tmp_path / "m"
    shutil.copytree(bundles / "tiny", place)
    link.symlink_to(place)
    server = serve_process(str(link), "--drain-seconds", "1.5", "--workers", "2", "--watch")
    before = predict(server)
    good = (place / "model.onnx").read_bytes()
    (place / "model.onnx").write_bytes(good[:5000])
    server.send(signal.SIGHUP)
    assert "model.onnx" in server.wait_for("load_failed")["error"]
    assert predict(server)["version"] == before["version"]
    shutil.copytree(place, tmp_path / "second")
    (tmp_path / "second" / "model.onnx").write_bytes(good)
    (tmp_path / "next").symlink_to(tmp_path / "second")
    (tmp_path / "next").rename(link)
    server.wait_for("loaded", count=2)
    assert predict(server)["predictions"] == before["predictions"]
    with socket.create_connection(("127.0.0.1", server.port), timeout=300) as slow:
        data = photo()
        slow.sendall(REQUEST % len(data) + data[:10])
        server.send(signal.SIGTERM)
        server.wait_for("draining")
        assert get(server, "/v2/health/ready")[0] == 503, "at once"
        assert get(server, "/v2/health/live")[0] == 200
        assert predict(server)["predictions"] == before["predictions"], "it serves on"
        time.sleep(1.7)
        slow.sendall(data[10:])
        answer = slow.recv(65536)
        assert b"200 OK" in answer, "what was begun is finished"
        assert b"connection: close" in answer
    assert server.popen.wait(60) == 0
    assert server.logged("ended")


def answer_of(connection):
    """Return one whole answer: its header and its body may come apart."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += connection.recv(65536)
    header, _, body = found.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", header.lower())[1])
    while len(body) < length:
        body += connection.recv(65536)
    return header + body


def test_bad_clients_do_not_harm_others(serve_process, bundles):
    server = serve_process(str(bundles / "tiny"), "--workers", "2", *LIMITS)
    data = photo()
    whole = REQUEST % len(data) + data
    found, closed = raw(server, REQUEST % len(data) + data[:10])
    assert b"408 Request Timeout" in found, "a slow body"
    assert closed
    found, closed = raw(server, b"POST /predict HTTP/1.1\r\nhost:")
    assert (found, closed) == (b"", True), "a slow header"
    assert raw(server) == (b"", True), "a connection that says nothing"
    found, closed = raw(server, b"GET / HTTP/1.1\r\n" + b"x-y: " + b"z" * 200_000)
    assert closed, "a header without end"
    found, closed = raw(server, b"\x16\x03\x01 not HTTP")
    assert b"400 Bad Request" in found
    found, closed = raw(server, REQUEST % 10**12 + b"x")
    assert b"413 " in found, "by its header, before a body is sent"
    assert closed
    early = REQUEST.replace(b"/predict", b"/nowhere") % len(data)
    with socket.create_connection(("127.0.0.1", server.port), timeout=300) as connection:
        connection.sendall(early)
        assert b"404 Not Found" in answer_of(connection), "answered before its body comes"
        connection.sendall(data + whole)
        assert b"200 OK" in answer_of(connection), "the rest is dropped, and the connection can be used"
    old = b"POST /predict HTTP/1.0\r\nexpect: 100-continue\r\n\r\n"
    assert raw(server, old)[0].startswith(b"HTTP/1.1 400 "), "a client of 1.0 gets no interim answer"
    pieces = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + b"3\r\nabc\r\nzz\r\n"
    assert raw(server, pieces)[1], "a broken chunk"
    found, _ = raw(server, whole * 3, seconds=3)
    assert found.count(b"200 OK") == 3, "pipelined requests are answered in order"
    for cut in (1, 20, len(REQUEST), len(whole) - 1, len(whole)):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(whole[:cut])
    threads = [threading.Thread(target=raw, args=(server, whole[:-5])) for _ in range(20)]
    for thread in threads:
        thread.start()
    assert predict(server)["predictions"]
    for thread in threads:
        thread.join()
    assert predict(server)["predictions"]
    assert server.popen.poll() is None
    assert not server.logged("failed")


def test_what_prevents_the_start_is_said_in_one_line(serve_process, bundles, tmp_path):
    import os
    import subprocess
    import sys

    def run(*words):
        command = [sys.executable, "-m", "effnet", "serve", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ, check=False)
        lines = [line for line in done.stderr.splitlines() if line.startswith("effnet:")]
        return done.returncode, lines

    code, lines = run(tmp_path, "--port", "0")
    assert (code, len(lines)) == (2, 1)
    assert "cannot be served" in lines[0]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, lines = run(bundles / "tiny", "--port", str(taken.getsockname()[1]))
    assert (code, len(lines)) == (2, 1)
    assert "free address" in lines[0]


@pytest.mark.parametrize("host, warned", [("0.0.0.0", True), ("127.0.0.1", False)])
def test_an_open_address_without_keys_is_a_warning(bundles, monkeypatch, host, warned):
    from effnet.serving import run
    from effnet.serving.settings import Settings
    from effnet.serving.versions.version import read_sources

    async def end(self):
        return None

    monkeypatch.setattr(run._Life, "run", end)
    said, warnings = [], []
    settings = Settings(host=host, port=0, workers=1)
    run.serve(read_sources([str(bundles / "tiny")]), settings, say=said.append, warn=warnings.append)
    assert "serving tiny on http://" in said[0]
    assert bool(warnings) == warned
