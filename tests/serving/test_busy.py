"""A busy server: a request is refused before its body comes, and its client gets the answer whole."""

import json
import socket

import pytest
from served import photo

from effnet.serving.batches.batcher import Refused

HEAD = b"POST /predict%s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%s\r\n"


@pytest.fixture
def busy(serve_here, serve_socket, bundles):
    """A server whose queue is full, and its address."""
    served = serve_here(str(bundles / "tiny"))

    def check():
        raise Refused("queue", retry_s=1.4)

    served.state.workers.check = check
    return served, serve_socket(served.state)


def answer(connection):
    """Return one answer: its header, and its data."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += connection.recv(65536)
    head, _, body = found.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    return lines, json.loads(body)


def test_a_refusal_comes_before_the_body_and_the_connection_can_be_used(busy):
    served, address = busy
    with socket.create_connection(address, timeout=300) as connection:
        for query in (b"", b"?top=2", b"?model=tiny"):
            connection.sendall(HEAD % (query, 100_000, b""))
            lines, data = answer(connection)
            assert lines[0] == "http/1.1 503 service unavailable"
            assert "retry-after: 2" in lines
            assert "in 2 s" in data["error"]
            connection.sendall(b"x" * 100_000)
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert answer(connection)[0][0] == "http/1.1 200 ok"
    page = served.client.get("/metrics").text
    assert 'effnet_rejected_total{reason="queue"} 3.0' in page
    version = served.state.models.find().version
    assert f'effnet_requests_total{{code="503",model="tiny",route="/predict",version="{version}"}} 3.0' in page
    assert [line["code"] for line in served.logged("request") if line["path"] == "/predict"] == [503] * 3


def test_a_connection_that_closes_waits_for_the_body(busy):
    """Otherwise the system answers the rest of the body with a reset, and the client may not get the refusal."""
    _, address = busy
    for _ in range(5):
        with socket.create_connection(address, timeout=300) as connection:
            connection.sendall(HEAD % (b"", 300_000, b"connection: close\r\n") + b"x" * 150_000)
            lines, _ = answer(connection)
            assert "503" in lines[0]
            assert "connection: close" in lines
            connection.sendall(b"x" * 150_000)
            assert connection.recv(10) == b""


def test_what_is_not_refused_is_routed(busy):
    served, address = busy
    with socket.create_connection(address, timeout=300) as connection:
        connection.sendall(b"POST /predikt HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        assert "404" in answer(connection)[0][0]
        del served.state.workers.check
        data = photo()
        connection.sendall(HEAD % (b"", len(data), b"") + data)
        assert "200" in answer(connection)[0][0]


def test_an_offer_of_another_protocol_is_ignored(serve_here, serve_socket, bundles):
    """Java's client offers HTTP/2 with every request."""
    data, offer = photo(), b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    with socket.create_connection(serve_socket(serve_here(str(bundles / "tiny")).state), timeout=300) as connection:
        for _ in range(2):
            connection.sendall(HEAD % (b"", len(data), offer) + data)
            lines, found = answer(connection)
            assert lines[0] == "http/1.1 200 ok"
            assert found["predictions"]


@pytest.mark.parametrize("keys", [None, (b"k" * 20,)])
def test_a_key_comes_before_a_refusal(serve_here, bundles, keys):
    served = serve_here(str(bundles / "tiny"), keys=keys)
    served.state.workers.check = lambda: (_ for _ in ()).throw(Refused("deadline", retry_s=1))
    app = served.client.app
    scope = {"method": "POST", "path": "/predict", "query_string": b"", "headers": [], "client": ("x", 1)}
    refused = app.refusal(scope)
    assert (refused is None) == bool(keys)
    key = [(b"authorization", b"Bearer " + b"k" * 20)]
    assert app.refusal({**scope, "headers": key}).status == 503
