"""The process of a server: it listens, loads, reloads and drains."""

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from effnet.errors import BundleError
from effnet.serving.batches.threads import in_thread
from effnet.serving.http.address import address_of, listen
from effnet.serving.http.app import make_app
from effnet.serving.http.connection import connection_class
from effnet.serving.http.state import State
from effnet.serving.page.page import Page
from effnet.serving.settings import Settings
from effnet.serving.versions.reloading import Changes
from effnet.serving.versions.version import Source
from effnet.system.heap import set_aside, use_one_heap

# Longer than the 60 s that balancers keep a connection: the side that sends requests must be the one that closes.
_KEEP_ALIVE_SECONDS = 75
_WATCH_SECONDS = 1.0
# How long a thread may hold the interpreter while others wait for it; Python's default is 5 ms.
_SWITCH_SECONDS = 0.001


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `_Life`."""
        yield


def serve(
    sources: tuple[Source, ...], settings: Settings, *, say: Callable[[str], None], warn: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT; `say` gets the address, `warn` what is unsafe.

    Raises InputError if the address cannot be used, BundleError if a bundle cannot be served at the start.
    """
    begun = time.perf_counter()
    sys.setswitchinterval(_SWITCH_SECONDS)
    use_one_heap()
    listening = listen(settings.host, settings.port)
    address = address_of(listening)
    if not settings.keys and not settings.local:
        warn(f"anyone who reaches {address} can use it: give --keys FILE, or keep --host 127.0.0.1")
    state = State(sources, settings)
    state.life.loaded = set_aside
    page = Page(state) if settings.page else None
    say(f"serving {', '.join(state.models.names)} on {address}; {settings.engines} engines")
    if page is not None and page.note:
        say(page.note)
    try:
        asyncio.run(_Life(state, listening, begun=begun, page=page).run())
    finally:
        listening.close()
        if page is not None:
            page.close()
        state.close()


class _Life:
    """One run of a server."""

    def __init__(self, state: State, listening: socket.socket, *, begun: float, page: Page | None) -> None:
        self._state, self._listening, self._begun = state, listening, begun
        settings = state.settings
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        app = make_app(state) if page is None else make_app(state, more=page.routes, keyless=page.keyless)
        config = uvicorn.Config(
            app, http=connection_class(settings.body_seconds, app.refusal), ws="none", lifespan="off", log_config=None,
            access_log=False, server_header=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(settings.finish_seconds)), backlog=1024,
        )  # fmt: skip
        self._server = _Server(config)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Serve until the end; raise what prevented the start."""
        loop = asyncio.get_running_loop()
        handlers = {"SIGTERM": self._drain, "SIGINT": self._drain, "SIGHUP": self._reload_all}
        for name, handler in handlers.items():
            with contextlib.suppress(AttributeError, NotImplementedError, RuntimeError):
                loop.add_signal_handler(getattr(signal, name), handler)
        self._begin(self._load())
        await self._server.serve(sockets=[self._listening])
        for task in self._tasks:
            task.cancel()
        self._state.log("ended")
        if self._failure is not None:
            raise self._failure

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self) -> None:
        try:
            found = await in_thread(self._state.models.load)
            failed = next((each for each in found if each.error), None)
            if failed is not None:
                raise BundleError(f"{failed.source.folder} cannot be served: {failed.error}")
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failure = error
            self._server.should_exit = True
            return
        self._state.log("ready", seconds=round(time.perf_counter() - self._begun, 3))
        if self._state.settings.watch:
            await self._watch()

    async def _watch(self) -> None:
        changes = Changes(self._state.models.sources)
        while not self._state.life.draining:
            await asyncio.sleep(_WATCH_SECONDS)
            if changed := await in_thread(changes.look):
                await in_thread(functools.partial(self._state.models.reload, changed))

    def _reload_all(self) -> None:
        self._state.log("reload", signal="SIGHUP")
        self._begin(in_thread(lambda: self._state.models.load(again=True)))

    def _drain(self) -> None:
        if self._state.life.draining:  # insisted: at once
            self._server.force_exit = self._server.should_exit
            self._server.should_exit = True
            return
        self._state.life.draining = True
        self._state.log("draining", seconds=self._state.settings.drain_seconds)
        self._begin(self._stop_later())

    async def _stop_later(self) -> None:
        await asyncio.sleep(self._state.settings.drain_seconds)
        self._server.should_exit = True
