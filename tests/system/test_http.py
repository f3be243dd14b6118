"""Downloads from servers that lie, loop, stall and fail: limited, never mixed up, reported on one line."""

import itertools
import os
import socket
import time

import pytest
from raw_server import endless, head, serving_raw, whole

from effnet.system.download import Patience, complete
from effnet.system.http import Dropped, Refused, StatusError, TooLarge, checked_url, shown_url

CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)
TAG = 'ETag: "one"'


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving_raw() as found:
        yield found


@pytest.fixture
def part(tmp_path):
    return tmp_path / "file.part"


class Waits:
    """A Patience whose clock advances one step per call, and that only counts the time it would have slept."""

    def __init__(self, step_s=0.0, **options):
        self.slept, self.ticks = [], itertools.count()
        self.patience = Patience(clock=lambda: step_s * next(self.ticks), sleep=self.slept.append, **options)


def fetch(server, part, *, limit_bytes=10**6, waits=None, path="/file", **options):
    patience = (waits or Waits()).patience
    return complete(f"{server.url}{path}", part, limit_bytes=limit_bytes, patience=patience, **options)


def nothing_left(part):
    return os.listdir(part.parent) == []


def short(length, *lines):
    """A response that breaks off after `length` bytes."""
    return head(f"Content-Length: {SIZE}", *lines) + CONTENT[:length]


def rest(start, *lines, total=SIZE, content=CONTENT):
    line = f"Content-Range: bytes {start}-{len(content) - 1}/{total}"
    length = f"Content-Length: {len(content) - start}"
    return head(length, line, *lines, status="206 Partial Content") + content[start:]


def test_a_file_comes_whole_and_nothing_lies_beside_it(server, part):
    server.answers = [whole(CONTENT, TAG)]
    seen = []
    assert fetch(server, part, progress=lambda *now: seen.append(now)) == ""
    assert part.read_bytes() == CONTENT
    assert os.listdir(part.parent) == [part.name]
    assert seen[-1] == (SIZE, SIZE)
    assert "accept-encoding: identity" in server.asked[0].lower()


@pytest.mark.parametrize(
    "answer, options, message",
    [
        (head("Content-Length: 6600000000"), {}, "must have at most 1,000,000 bytes, but has 6,600,000,000"),
        (whole(CONTENT), {"size_bytes": SIZE + 1}, "must have 10,241 bytes, but the server announces 10,240"),
        (head("Content-Length: -5") + CONTENT, {}, "the Content-Length must be a number of bytes"),
        (head("Content-Length: 1e9") + CONTENT, {}, "the Content-Length must be a number of bytes"),
        (head("Content-Encoding: gzip", "Content-Length: 3") + b"abc", {}, "its Content-Encoding is 'gzip'"),
        (whole(b" \n<!DOCTYPE HTML><p>log in"), {}, "sends a web page instead"),
        (whole(b"\xef\xbb\xbf<html>"), {}, "sends a web page instead"),
        (rest(5), {}, "returned status 206 to a request for a file"),
        (head(status="204 No Content"), {}, "returned status 204"),
        (head("Location: http://u:secret@127.0.0.1/", status="302 Found"), {}, "must not contain a user name"),
    ],
)
def test_what_may_not_be_stored_is_refused_at_once(answer, options, message, server, part):
    server.answers = [answer]
    with pytest.raises(Refused, match=message) as raised:
        fetch(server, part, **options)
    assert nothing_left(part)
    assert len(server.asked) == 1
    assert "secret" not in str(raised.value)


CHUNK = b"8000\r\n" + bytes(0x8000) + b"\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        endless(head("Transfer-Encoding: chunked"), CHUNK),
        endless(head(), bytes(30_000)),
        endless(head("Transfer-Encoding: chunked", "Content-Length: 10"), CHUNK),
    ],
)
@pytest.mark.parametrize("options", [{}, {"size_bytes": 50_000}, {"admit": lambda size: 70_000}])
def test_a_body_without_end_is_cut_off_at_the_limit_and_removed(answer, options, server, part):
    server.answers = [answer]
    stored = []
    with pytest.raises(TooLarge, match=r"must have at most .* bytes, but the server sends more"):
        fetch(server, part, limit_bytes=200_000, progress=lambda done, _: stored.append(done), **options)
    most = options.get("size_bytes") or (70_000 if options else 200_000)
    assert max(stored, default=0) <= most
    assert nothing_left(part)


@pytest.mark.parametrize(
    "answer",
    [
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        endless(head("Transfer-Encoding: chunked") + b"1;", b"x" * 60_000 + b"\r\nx\r\n1;"),
        endless(head("Transfer-Encoding: chunked") + b"0\r\n", b"more: of it\r\n" * 1000),
        endless(head("Location: /again", status="302 Found"), bytes(60_000)),
    ],
)
def test_an_answer_without_content_has_an_end(answer, server, part):
    server.answers = [answer]
    with pytest.raises((Refused, Dropped), match=r"is endless|more than 65536 bytes"):
        fetch(server, part)


@pytest.mark.parametrize(
    "answer",
    [
        b"no http at all \x1b[31m" + b"x" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 \xff 200\r\n\r\n",
        b"",
        head("x: " + "y" * 70_000),
        head(*[f"x{i}: y" for i in range(300)]),
        head("Transfer-Encoding: chunked") + b"-5\r\nhello\r\n0\r\n",
        head("Transfer-Encoding: chunked") + b"zz\r\nhello\r\n0\r\n",
    ],
)
def test_damaged_http_ends_in_one_short_line(answer, server, part):
    server.answers, waits = [answer], Waits()
    with pytest.raises(Dropped) as raised:
        fetch(server, part, size_bytes=SIZE, waits=waits)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300
    assert waits.slept == [0.5, 1, 2, 4]


def test_a_byte_a_connection_is_given_up_after_a_few(server, part):
    server.answers = [short(1, TAG), *(rest(i, TAG)[: -SIZE + i + 1] for i in range(1, 100))]
    waits = Waits()
    with pytest.raises(Dropped, match=r"ended after 5 of 10,240 bytes; gave up after 5 connections"):
        fetch(server, part, waits=waits)
    assert waits.slept == [0.5, 1, 2, 4]
    assert part.stat().st_size == 5
    server.answers = [rest(5, TAG)]
    fetch(server, part)
    assert part.read_bytes() == CONTENT


def test_connections_that_bring_enough_are_followed_by_others_at_once(server, part):
    waits = Waits()
    server.answers = [short(3000, TAG), rest(3000, TAG)[: -SIZE + 7000], rest(7000, TAG)]
    fetch(server, part, waits=waits)
    assert part.read_bytes() == CONTENT
    assert waits.slept == []
    assert ["if-range" in asked.lower() for asked in server.asked] == [False, True, True]


def test_a_server_that_dawdles_is_given_up(server, part):
    def drip(connection):
        connection.sendall(head(f"Content-Length: {SIZE}", TAG))
        for _ in range(SIZE):
            connection.sendall(b"x")

    server.answers, waits = [drip], Waits(step_s=7.0)
    with pytest.raises(Dropped, match=r"fewer than 1,000 bytes a second arrive"):
        fetch(server, part, waits=waits)
    assert len(server.asked) <= 5


def test_a_head_that_drips_is_given_up(server, part):
    def drip(connection):
        for number, character in enumerate(head("x: " + "y" * 5000)):
            connection.sendall(bytes([character]))
            time.sleep(0.01 if number < 40 else 0)  # otherwise the system delivers several bytes at once

    server.answers = [drip]
    with pytest.raises(Dropped, match=r"fewer than 1,000 bytes a second arrive"):
        fetch(server, part, waits=Waits(step_s=7.0))


def test_a_server_that_is_busy_is_asked_again_and_others_are_not(server, part):
    waits, busy = Waits(), head("Content-Length: 0", status="503 Service Unavailable")
    server.answers = [busy, busy, whole(CONTENT)]
    fetch(server, part, waits=waits)
    assert waits.slept == [0.5, 1]
    server.answers, server.asked[:] = [head(status="404 \x1b[31mNot\tFound" + "!" * 500)], []
    with pytest.raises(StatusError) as raised:
        fetch(server, part.with_name("other"))
    assert (raised.value.code, len(server.asked)) == (404, 1)
    assert str(raised.value).startswith("404 [31mNot Found!!!")
    assert len(str(raised.value)) < 250


def test_without_a_connection_nobody_waits(part):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url, waits = f"http://127.0.0.1:{free.getsockname()[1]}/file", Waits()
    with pytest.raises(Dropped, match="refused"):
        complete(url, part, limit_bytes=100, patience=waits.patience)
    assert waits.slept == []


OTHER = CONTENT[::-1]


@pytest.mark.parametrize(
    "again",
    [
        whole(OTHER, 'ETag: "two"'),  # If-Range does not hold
        rest(3000, 'ETag: "two"', content=OTHER),  # the server ignores If-Range
        rest(3000, TAG, total=SIZE + 1, content=OTHER + b"!"),
        rest(2999, TAG, content=OTHER),
        rest(0, TAG, content=OTHER),
        head("Content-Type: multipart/byteranges; boundary=x", status="206 Partial Content") + OTHER[3000:],
    ],
)
def test_parts_of_two_versions_are_never_joined(again, server, part):
    server.answers = [short(3000, TAG), again, whole(OTHER, 'ETag: "two"')]
    fetch(server, part)
    assert part.read_bytes() == OTHER


@pytest.mark.parametrize("lines", [(), ('ETag: W/"weak"',)])
def test_a_server_that_tells_no_versions_apart_sends_all_again_unless_the_hash_is_known(lines, server, part):
    server.answers = [short(3000, *lines), whole(CONTENT)]
    fetch(server, part)
    assert ["range:" in asked.lower() for asked in server.asked] == [False, False]
    assert part.read_bytes() == CONTENT
    part.unlink()
    server.answers = [short(3000, *lines), rest(3000)]
    fetch(server, part, hashed=True)
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "//", "http://[", "/again"])
def test_redirects_lead_to_the_web_alone_and_end(target, server, part):
    server.answers = [head(f"Location: {target}", "Content-Length: 0", status="302 Found")]
    with pytest.raises((StatusError, Refused, Dropped)) as raised:
        fetch(server, part)
    assert str(raised.value).isprintable()
    assert nothing_left(part)
    assert len(server.asked) <= 60


def test_a_pipe_in_the_place_of_the_part_gives_way(server, part):
    os.mkfifo(part)
    server.answers = [whole(CONTENT)]
    fetch(server, part)
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host/x", "http://", "http://h:port/", "http://[x/", "http://u:p@h/", "http://h/a b"],
)
def test_urls_that_cannot_be_opened_safely_are_refused(url, part):
    with pytest.raises(Refused) as raised:
        checked_url(url)
    assert "u:p" not in str(raised.value)


def test_urls_are_shown_without_their_secrets():
    assert shown_url("https://me:pw@host:1/a/b.tar?token=1#x\x1b") == "https://host:1/a/b.tar?..."
    assert checked_url("http://host/ä.tar?a=%20") == "http://host/%C3%A4.tar?a=%20"
