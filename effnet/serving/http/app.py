"""The ASGI application of a server: routes, keys, errors, and what is recorded of each request."""

import functools
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from effnet.serving.batches.threads import in_thread
from effnet.serving.http.errors import Gone, HttpError, unknown
from effnet.serving.http.keys import given_key, has_key
from effnet.serving.http.openapi import description
from effnet.serving.http.predict import embed_route, predict_route
from effnet.serving.http.protocol import protocol_routes
from effnet.serving.http.state import Facts, State
from effnet.serving.logs import trace_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Probes have no key, and do not fill the log.
_OPEN = ("/health", "/v2/health/live", "/v2/health/ready")
_QUIET = (*_OPEN, "/metrics")
# What is refused before it has a task. A request that names a model is routed.
_BUSY, _NAMED = ("/predict", "/embed"), (b"model=", b"version=")


def make_app(state: State, *, more: Sequence[Route] = (), keyless: Collection[str] = ()) -> "App":
    """Return the application of a server; `more` are further routes, such as those of a page.

    The paths `keyless` need no key: they hold nothing that a key protects, or ask for it themselves.
    """
    routes = [
        Route("/predict", predict_route(state), methods=["POST"]),
        Route("/embed", embed_route(state), methods=["POST"]),
        *protocol_routes(state),
        Route("/health", _health(state)),
        Route("/metrics", _metrics(state)),
        Route("/openapi.json", _openapi(state)),
        Route("/admin/reload", _reload(state), methods=["POST"]),
        *more,
    ]
    return App(state, routes, keyless=keyless)


def _health(state: State) -> Any:
    async def health(request: Request) -> Response:
        models = {
            name: {"ready": bool(found := state.models.versions(name)), "versions": [each.version for each in found]}
            for name in state.models.names
        }
        status = "draining" if state.life.draining else "ready" if state.ready else "loading"
        return JSONResponse({"status": status, "models": models}, status_code=200 if state.ready else 503)

    return health


def _metrics(state: State) -> Any:
    async def metrics(request: Request) -> Response:
        page, content_type = state.page(request.headers.get("accept", ""))
        return Response(page, headers={"content-type": content_type})

    return metrics


def _openapi(state: State) -> Any:
    async def openapi(request: Request) -> Response:
        return JSONResponse(description(state.settings))

    return openapi


def _reload(state: State) -> Any:
    async def reload(request: Request) -> Response:
        if not state.settings.keys:
            raise HttpError(
                401, "a reload by HTTP must have a key; this server has none: start it with --keys, or send it SIGHUP"
            )
        found = await in_thread(functools.partial(state.models.load, again=True))
        data = [
            {
                "model": each.source.name, "version": each.version and each.version.version, "loaded": each.changed,
                **({"error": each.error} if each.error else {}),
            }
            for each in found
        ]  # fmt: skip
        failed = [each for each in found if each.error]
        if failed:
            message = f"each bundle must be one that can serve; {failed[0].error}: the version before answers still"
            return JSONResponse({"error": message, "models": data}, status_code=422)
        return JSONResponse({"models": data})

    return reload


class App:
    """The application. What it does beside the routes: it asks for a key, answers errors, counts and logs."""

    def __init__(self, state: State, routes: list[Route], *, keyless: Collection[str] = ()) -> None:
        self.state = state
        self._open = frozenset((*_OPEN, *keyless))
        self._router = Router(routes, redirect_slashes=False, default=self._not_found)
        # Those of files have their hash in them: nobody types them.
        self._paths = [route.path for route in routes if not route.path.startswith("/page/")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._router.lifespan(scope, receive, send)
            return
        facts, start, status = Facts(), time.monotonic(), 0
        # Starlette raises its errors to an application, if there is one.
        scope["effnet"], scope["app"] = facts, self

        async def recorded(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.state.life.draining:
                    message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        self.state.metrics.in_flight.inc()
        try:
            await self._routed(scope, receive, recorded)
        except Gone:
            status = 499  # as nginx logs it; nobody gets it
        except Exception as error:
            self.state.log("failed", path=scope["path"], error=repr(error))
            if not status:
                with suppress(OSError):
                    await self._error(HttpError(500, "the server must answer; it failed, and its log says why"))(
                        scope, receive, recorded
                    )
        finally:
            self.state.metrics.in_flight.dec()
            self._record(scope, facts, status, time.monotonic() - start)

    def refusal(self, scope: Scope) -> HttpError | None:
        """Return the recorded refusal of a request that the server is too busy for; None if it is to be routed.

        In an overload most requests are refused, and routing them would take the time of those that are answered.
        """
        state, query = self.state, scope["query_string"]
        if scope["path"] not in _BUSY or scope["method"] != "POST" or any(name in query for name in _NAMED):
            return None
        start = time.monotonic()
        try:
            self._check_key(scope)
            version = state.models.find()
        except HttpError:
            return None
        try:
            state.check()
        except HttpError as error:
            if error.rejection == "draining":
                return None
            state.metrics.rejected.labels(error.rejection).inc()
            facts = Facts(model=version.name, version=version.version)
            self._record(scope, facts, error.status, time.monotonic() - start, route=scope["path"])
            return error
        return None

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_key(scope)
            await self._router(scope, receive, send)
        except HttpError as error:
            if error.rejection:
                self.state.metrics.rejected.labels(error.rejection).inc()
            await self._error(error)(scope, receive, send)
        except HTTPException as error:
            allowed = dict(error.headers or {})
            message = f"{scope['path']} takes {allowed.get('Allow', 'other methods')}; got {scope['method']}"
            await self._error(HttpError(error.status_code, message, headers=allowed))(scope, receive, send)

    def _error(self, error: HttpError) -> Response:
        return JSONResponse({"error": error.message}, status_code=error.status, headers=error.headers)

    async def _not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise unknown("the path", scope["path"], self._paths)

    def _check_key(self, scope: Scope) -> None:
        if scope["path"] in self._open:
            return
        if not has_key(self.state.settings.keys, scope["headers"]):
            given = given_key(scope["headers"])
            raise HttpError(
                401,
                "a request must have the header Authorization: Bearer KEY, with a key of the server; "
                f"it has {'another key' if given else 'none'}",
                rejection="key",
                headers={"www-authenticate": "Bearer"},
            )

    def _record(self, scope: Scope, facts: Facts, status: int, seconds: float, *, route: str = "") -> None:
        metrics, path = self.state.metrics, scope["path"]
        route = route or (scope["route"].path if "route" in scope else "other")
        metrics.requests.labels(facts.model, facts.version, route, str(status)).inc()
        if facts.model:
            answered = facts.times is not None and 0 < status < 400
            queued = facts.times.queue if answered and facts.times else None
            metrics.ended_request(facts.model, seconds=seconds, queued=queued)
        if not self.state.settings.log_requests or (path in _QUIET and status < 400):
            return
        headers = dict(scope["headers"])
        trace = headers.get(b"traceparent")
        self.state.log(
            "request", method=scope["method"], path=path, code=status, ms=round(1e3 * seconds, 3),
            model=facts.model or None, version=facts.version or None, bytes=facts.size or None,
            time_ms=facts.times.in_ms() if facts.times else None,
            client=scope["client"][0] if scope.get("client") else None,
            traceparent=trace_of(trace.decode("latin-1")) if trace else None,
        )  # fmt: skip
