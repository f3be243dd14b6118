"""The routes of a view: the latest answers as JSON, events and answers as server-sent events, and a small page."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from effnet.watching.outputs.latest import Latest

# Clients are few, and a frame budget is a few frames a second: looking so often is nearly nothing.
_LOOK_SECONDS, _QUIET_SECONDS, _MOST_CLIENTS = 0.2, 15.0, 20
_QUALITY = 80
_POLICY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_PARTS = {"app.js": "text/javascript", "style.css": "text/css"}


def watch_routes(latest: Latest, *, prefix: str = "/watch", page: bool = True) -> list[Route]:
    """Return the routes of a view, below `prefix`; `page` adds its own page there, with its script and style.

    PREFIX/events is text/event-stream: `note` events are those of `effnet watch`, `answers` the latest of each source;
    PREFIX/answers is the latter as JSON, PREFIX/image?source=NAME the newest answered frame as JPEG.
    """
    clients = [0]

    async def answers(request: Request) -> Response:
        return JSONResponse(latest.answers()[1], headers=_POLICY)

    async def image(request: Request) -> Response:
        found = latest.image(request.query_params.get("source", ""))
        if found is None:
            message = f"the source must be one of {', '.join(latest.answers()[1]) or 'none yet'}"
            return JSONResponse({"error": message}, status_code=404, headers=_POLICY)
        file = io.BytesIO()
        Image.fromarray(found).save(file, format="JPEG", quality=_QUALITY)
        return Response(file.getvalue(), media_type="image/jpeg", headers=_POLICY)

    async def events(request: Request) -> Response:
        if clients[0] >= _MOST_CLIENTS:
            message = f"at most {_MOST_CLIENTS} clients can follow the events; close another page"
            return JSONResponse({"error": message}, status_code=503, headers=_POLICY | {"retry-after": "10"})
        last = request.headers.get("last-event-id", "0")
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 19 else 0
        return StreamingResponse(_stream(latest, after, clients), media_type="text/event-stream", headers=_POLICY)

    def part(name: str, media_type: str) -> Any:
        async def send(request: Request) -> Response:
            return Response(_file(name), media_type=media_type, headers=_POLICY)

        return send

    routes = [
        Route(f"{prefix}/answers", answers),
        Route(f"{prefix}/image", image),
        Route(f"{prefix}/events", events),
    ]
    if page:
        routes.append(Route(prefix, part("watch.html", "text/html")))
        routes += [Route(f"{prefix}/{name}", part(name, media_type)) for name, media_type in _PARTS.items()]
    return routes


def _file(name: str) -> bytes:
    return (files("effnet.watching") / "page" / name).read_bytes()


async def _stream(latest: Latest, after: int, clients: list[int]) -> AsyncIterator[str]:
    """Yield what is new, until the watch ends or the client leaves; count the client meanwhile."""
    clients[0] += 1
    try:
        seen, quiet = 0, time.monotonic()
        if latest.events() and latest.events()[-1][0] < after:
            after = 0  # the number is of an earlier watch
        while True:
            closing = latest.closed
            parts = []
            for number, event in latest.events(after):
                after = number
                parts.append(f"id: {number}\nevent: note\ndata: {json.dumps(event)}\n\n")
            changes, answers = latest.answers()
            if changes != seen:
                seen = changes
                parts.append(f"event: answers\ndata: {json.dumps(answers)}\n\n")
            if parts:
                quiet = time.monotonic()
                yield "".join(parts)
            elif time.monotonic() - quiet > _QUIET_SECONDS:
                quiet = time.monotonic()
                yield ":\n\n"  # keeps proxies from closing the connection
            if closing:
                return
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        clients[0] -= 1
