"""The parts of the page that hold no data: its static files, its templates, and the headers of every answer."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from effnet.serving.http.errors import HttpError
from effnet.serving.settings import Settings
from effnet.system.text import printable

STATIC = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The static files, and their media types."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    # No text ever becomes HTML or code in the browser, whatever a script does with it.
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Static:
    """A static file: its path, which changes with its content, its media type and its content."""

    path: str
    media_type: str
    content: bytes


@lru_cache
def statics() -> Mapping[str, Static]:
    """Return the static files by name."""
    found = {}
    for name, media_type in STATIC.items():
        content = files("effnet.serving.page").joinpath("static", name).read_bytes()
        if name == "page.css":
            content = _colours() + content
        path = f"/page/{hashlib.sha256(content).hexdigest()[:10]}/{name}"
        found[name] = Static(path, media_type, content)
    return found


def _colours() -> bytes:
    """Return the colours of reports, light and dark: the first rules of their style sheet."""
    look = files("effnet.report").joinpath("templates", "look.css.j2").read_bytes()
    return look[: look.index(b"* { box-sizing")]


def static_response(found: Static) -> Response:
    """Return a static file, to keep for a year: another content has another path."""
    headers = _HEADERS | {"cache-control": "public, max-age=31536000, immutable"}
    return Response(found.content, media_type=found.media_type, headers=headers)


def html(
    template: str, values: Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a rendered template of the page; browsers do not keep it."""
    text = _environment().get_template(template).render(values)
    return HTMLResponse(text, status_code=status, headers={**_HEADERS, "cache-control": "no-store", **(headers or {})})


def image(content: bytes, media_type: str) -> Response:
    """Return an image of the gallery, which only the browser of the one who asked keeps, and not for long."""
    headers = _HEADERS | {"cache-control": "private, max-age=600", "vary": "authorization"}
    return Response(content, media_type=media_type, headers=headers)


@lru_cache
def _environment() -> Environment:
    def shown(value: Any) -> Any:
        """Make every text that a template prints printable, so that no place can forget to."""
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("effnet.serving.page"), autoescape=True, finalize=shown, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["percent"] = _percent
    environment.filters["number"] = lambda count: f"{count:,}"
    environment.filters["data"] = lambda value: json.dumps(value)
    return environment


def _percent(share: float) -> str:
    """Return a share in percent, with a decimal near 0 and near 1, as page.js writes it."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if share < 0.0995 or 0.995 <= share < 0.9995 else f"{100 * share:.0f} %"


def check_host(request: Request, settings: Settings) -> None:
    """Raise HttpError for a request that a page elsewhere may have sent through a name that leads here (DNS rebinding).

    A server that only its own machine reaches, and that has no keys, answers to the names of that machine alone.
    """
    host = request.headers.get("host", "").lower()
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    if settings.local and not settings.keys and name not in (*_LOCAL_NAMES, settings.host.lower()):
        raise HttpError(
            403,
            f"the page of a server on {settings.host} must be opened as http://localhost:PORT; got another name: "
            "give --keys FILE to reach it through a proxy",
        )


def check_origin(request: Request) -> None:
    """Raise HttpError unless a request that changes something is JSON, and comes from the page itself."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpError(415, f"a decision must be application/json; got {kind or 'no content-type'}")
    origin = request.headers.get("origin", "")
    if not origin or origin.partition("://")[2].lower() != request.headers.get("host", "").lower():
        raise HttpError(403, "a decision must come from the page itself; its Origin is another, or it has none")
