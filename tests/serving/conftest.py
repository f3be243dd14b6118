"""Servers for tests: in this process, and as a process of their own."""

import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from served import Process, Served

Write = Callable[[Path], None]


def _bundles(root: Path) -> None:
    from bundles import make_bundle
    from dense_bundles import write_detector, write_segmenter
    from several_outputs import write_several

    for name in ("tiny", "parts", "det", "seg"):
        (root / name).mkdir(parents=True)
    make_bundle(root / "tiny")
    write_several(root / "parts", ["onnx"])
    write_detector(root / "det")
    write_segmenter(root / "seg")


@pytest.fixture(scope="session")
def bundles(made_once: Callable[[str, Write], Path]) -> Path:
    """A folder of bundles: tiny (digits), parts (several outputs), det and seg; not to change."""
    return made_once("served_bundles", _bundles)


@pytest.fixture
def serve_here() -> Iterator[Callable[..., Served]]:
    """Return what serves bundles in this process: `serve_here("name=folder", ..., page=True, ...)`."""
    pytest.importorskip("starlette", reason="the extra serve is not installed")
    from starlette.testclient import TestClient

    from effnet.serving.http.app import make_app
    from effnet.serving.http.state import State
    from effnet.serving.logs import Log
    from effnet.serving.settings import Settings
    from effnet.serving.versions.version import read_sources

    with ExitStack() as stack:

        def start(*words: str, load: bool = True, **options: Any) -> Served:
            lines = io.StringIO()
            state = State(read_sources(words), Settings(**({"workers": 2, "max_batch": 2} | options)), log=Log(lines))
            stack.callback(state.close)
            if load:
                assert not [each.error for each in state.models.load() if each.error]
            more = {}
            if options.get("page"):
                from effnet.serving.page.page import Page

                page = Page(state)
                stack.callback(page.close)
                more = {"more": page.routes, "keyless": page.keyless}
            app = make_app(state, **more)
            client = TestClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1")
            client = stack.enter_context(client)
            return Served(client, state, lines)

        yield start


@pytest.fixture
def serve_socket() -> Iterator[Callable[[Any], tuple[str, int]]]:
    """Return what answers for a state on a socket of this process, from a thread: its address."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    import uvicorn

    from effnet.serving.http.app import make_app
    from effnet.serving.http.connection import connection_class

    begun: list[tuple[Any, threading.Thread]] = []

    def start(state: Any) -> tuple[str, int]:
        app = make_app(state)
        connection = connection_class(state.settings.body_seconds, app.refusal)
        config = uvicorn.Config(app, port=0, http=connection, ws="none", lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        begun.append((server, thread))
        thread.start()
        while not server.started:
            time.sleep(0.02)
        return server.servers[0].sockets[0].getsockname()

    yield start
    for server, thread in begun:
        server.should_exit = True
        thread.join(300)


@pytest.fixture
def serve_process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Return what starts `effnet serve WORDS...` on a free port, and waits until it is ready."""
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    begun: list[subprocess.Popen[str]] = []

    def start(*words: str, ready: bool = True) -> Process:
        log = tmp_path / f"log-{len(begun)}"
        command = [sys.executable, "-m", "effnet", "serve", *words, "--port", "0"]
        with open(log, "w") as file:
            popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=os.environ)
        begun.append(popen)
        line = popen.stdout.readline()
        found = re.search(r"http://[^ ]*:(\d+)", line)
        assert found, line + log.read_text()
        process = Process(popen, int(found[1]), log)
        if ready:
            process.wait_for("ready")
        return process

    yield start
    for popen in begun:
        popen.kill()
        popen.wait()
        popen.stdout.close()
