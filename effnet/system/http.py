"""One GET request to an untrusted server: allowed redirects, time limits and error messages."""

import http.client
import io
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

# Allowance for everything but the content of a response: status, headers, redirects, chunk sizes.
_OVERHEAD_BYTES = 1 << 20
_LONGEST_REASON = 200
_SCHEMES = ("http", "https")


class Dropped(Exception):
    """The connection could not be made or ended too soon; the argument is the reason."""


class Unreachable(Dropped):
    """The server cannot be reached."""


class Refused(Exception):
    """The response, or the URL itself, must not be used; the argument is the reason."""


class TooLarge(Refused):
    """The file is larger than allowed."""


class StatusError(Exception):
    """The server returned an error status; the text is the code and its reason on one line."""

    def __init__(self, error: urllib.error.HTTPError) -> None:
        super().__init__(one_line(f"{error.code} {error.reason}"))
        self.code = error.code
        self.headers = error.headers


class Pace:
    """Monitor of one response's transfer rate: raises Dropped if it is too slow, Refused if it is endless."""

    def __init__(
        self, *, silence_s: float, min_bytes_per_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.silence_s = silence_s
        self.min_bytes_per_s = min_bytes_per_s
        self.clock = clock
        self._waited_s = 0.0
        self._recent = self._received = self._stored = 0

    def received(self, count: int, *, waited_s: float) -> None:
        """Count bytes received from the network, and the time waited for them."""
        self._received += count
        self._waited_s += waited_s
        if self._received > 4 * self._stored + _OVERHEAD_BYTES:
            raise Refused("the server's response is endless")
        if self._waited_s >= self.silence_s:
            if self._recent + count < self.min_bytes_per_s * self._waited_s:
                raise Dropped(f"fewer than {self.min_bytes_per_s:,.0f} bytes a second arrived")
            self._waited_s, self._recent = 0.0, 0

    def stored(self, count: int) -> None:
        """Count bytes of content."""
        self._stored += count
        self._recent += count

    def guard(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Return the result of a network call; raise Dropped for a failure that is not a response."""
        try:
            return call(*arguments, **options)
        except urllib.error.HTTPError as error:
            error.close()
            raise StatusError(error) from None
        except urllib.error.URLError as error:
            raise Unreachable(one_line(str(error.reason)) or "no connection") from error
        except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
            raise Dropped(one_line(str(error)) or type(error).__name__) from error


def request(url: str, headers: Mapping[str, str], *, pace: Pace) -> Any:
    """Return the response to a GET request, an http.client response that the caller closes.

    Redirects to http and https are followed, but never from https to http. Raises StatusError, Refused and Dropped.
    """
    asked = urllib.request.Request(
        checked_url(url), headers={"User-Agent": "effnet", "Accept-Encoding": "identity", **headers}
    )
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Http(pace),
        _Https(pace),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return pace.guard(opener.open, asked, timeout=pace.silence_s)


def checked_url(url: str) -> str:
    """Return a URL in ASCII; raise Refused if it is invalid, is not http or https, or contains a password."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a port that is no number is a ValueError
    except ValueError as error:
        raise Refused("the address is not valid") from error
    if parts.scheme not in _SCHEMES or not host:
        raise Refused("the address must begin with http:// or https:// and a server")
    if "@" in parts.netloc:
        raise Refused("the address must not contain a user name or a password")
    if re.search(r"[\x00-\x20\x7f]", url):
        raise Refused("the address must not contain spaces or control characters; write a space as %20")
    return quote(url, safe="%/:=&?~#+!$,;'@()*[]")


def shown_url(url: str) -> str:
    """Return a URL as messages may show it: on one line, without parts that may be a password or a key."""
    start, question, _ = url.partition("?")
    scheme, slashes, rest = start.partition("://")
    server, slash, path = rest.partition("/")
    return one_line(f"{scheme}{slashes}{server.rpartition('@')[2]}{slash}{path}{question and '?...'}", longest=2000)


def one_line(text: str, *, longest: int = _LONGEST_REASON) -> str:
    """Return a server's text on one line, cut to a length; terminal control characters become spaces."""
    safe = "".join(c if c.isprintable() else " " for c in text[: 2 * longest])
    safe = " ".join(safe.split())
    return safe if len(safe) <= longest else f"{safe[:longest]}..."


class _Paced(io.RawIOBase):
    """The bytes of a connection, counted as they arrive."""

    def __init__(self, raw: Any, pace: Pace) -> None:
        self._raw = raw
        self._pace = pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        before = self._pace.clock()
        count = self._raw.readinto(buffer)
        self._pace.received(count or 0, waited_s=self._pace.clock() - before)
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *arguments: Any, pace: Pace, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_Paced(self.fp.detach(), pace))  # type: ignore[assignment]


class _PacedOpen:
    """A mixin that counts all bytes of the responses of a handler's connections."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def do_open(self, http_class: Any, req: Any, **options: Any) -> Any:
        def connect(host: str, **more: Any) -> Any:
            connection = http_class(host, **more)
            connection.response_class = partial(_Response, pace=self._pace)
            return connection

        return super().do_open(connect, req, **options)  # type: ignore[misc]


class _Http(_PacedOpen, urllib.request.HTTPHandler):
    pass


class _Https(_PacedOpen, urllib.request.HTTPSHandler):
    pass


class _Redirects(urllib.request.HTTPRedirectHandler):
    def http_error_302(self, req: Any, fp: Any, *arguments: Any) -> Any:
        try:
            return super().http_error_302(req, fp, *arguments)
        except BaseException:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302  # type: ignore[assignment]

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            checked_url(newurl)
        except Refused as error:
            raise Refused(f"the server redirects to an unusable address: {error}") from error
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise Refused(f"the server redirects from https to {shown_url(newurl)}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
