"""Send events to an address, in a thread of its own: the watch never waits for it."""

import http.client
import json
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from effnet.errors import InputError
from effnet.system.text import brief

_WAITING, _TIMEOUT_SECONDS, _FIRST_SECONDS, _MOST_SECONDS = 100, 10.0, 0.5, 30.0

Outcome = Literal["sent", "failed", "dropped"]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET elsewhere."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        """Follow none: the answer is then an error."""


class Webhook:
    """Posts events as JSON, at most `tries` times each, after waits that double; `told` gets the outcome of each.

    Events that come while 100 wait are dropped. Answers of 4xx, but for 408 and 429, are final. `pause(seconds)`
    waits, and returns whether to stop.
    """

    def __init__(
        self,
        address: str,
        *,
        tries: int,
        told: Callable[[Outcome], None],
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise InputError(f"--webhook must be an address as http://HOST/PATH; got {brief(address)}")
        self._address, self._tries, self._told = address, tries, told
        self._stop = threading.Event()
        self._pause = pause or self._stop.wait
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_WAITING)
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._thread = threading.Thread(target=self._loop, name="effnet-webhook", daemon=True)
        self._thread.start()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Send an event later."""
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self._told("dropped")

    def close(self, *, seconds: float = 5.0) -> None:
        """Send what waits, for at most `seconds`."""
        try:
            self._waiting.put(None, timeout=seconds)
            self._thread.join(seconds)
        except queue.Full:
            pass
        self._stop.set()

    def _loop(self) -> None:
        while (event := self._waiting.get()) is not None:
            self._told("sent" if self._sent(event) else "failed")

    def _sent(self, event: Mapping[str, Any]) -> bool:
        data, wait = json.dumps(event).encode(), _FIRST_SECONDS
        for left in reversed(range(self._tries)):
            if (again := self._post(data)) is None:
                return True
            if not again or not left or self._pause(wait):
                return False
            wait = min(2 * wait, _MOST_SECONDS)
        return False

    def _post(self, data: bytes) -> bool | None:
        """Return None if the event was taken, else whether trying again can help."""
        request = urllib.request.Request(self._address, data=data, headers={"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS):
                return None
        except urllib.error.HTTPError as error:
            error.close()
            return error.code >= 500 or error.code in (408, 429)
        except (OSError, http.client.HTTPException, ValueError):
            return True
