"""The HTTP server beside a watch, in a thread of its own: /metrics, /health and, if wanted, the view."""

import logging
import socket
import threading

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from effnet.watching.outputs.latest import Latest
from effnet.watching.outputs.metrics import Recorded
from effnet.watching.outputs.view import watch_routes


def make_app(recorded: Recorded, latest: Latest | None) -> Starlette:
    """Return the application: the view is there if `latest` is."""

    async def metrics(request: Request) -> Response:
        page, content_type = recorded.page(request.headers.get("accept", ""))
        return Response(page, headers={"content-type": content_type})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "watching"})

    async def root(request: Request) -> Response:
        return RedirectResponse("watch")

    routes = [Route("/metrics", metrics), Route("/health", health)]
    if latest is not None:
        routes += [Route("/", root), *watch_routes(latest)]
    return Starlette(routes=routes)


class Server:
    """Serves on a listening socket until it is closed."""

    def __init__(self, app: Starlette, listening: socket.socket) -> None:
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        config = uvicorn.Config(
            app, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._listening = listening
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="effnet-watch-http", daemon=True
        )
        self._thread.start()

    def close(self, *, seconds: float = 3.0) -> None:
        """Close the server, and wait for it at most so long."""
        self._server.should_exit = True
        self._thread.join(seconds)
        self._listening.close()
