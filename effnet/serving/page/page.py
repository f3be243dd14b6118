"""The page of a server: its routes, and the work in the background that its views show."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from effnet.errors import ImageError, shown
from effnet.serving.batches.threads import in_thread
from effnet.serving.http.errors import HttpError, bad_request
from effnet.serving.http.keys import has_key
from effnet.serving.http.state import State
from effnet.serving.page.decisions import Decisions
from effnet.serving.page.gallery import SIDES, read_gallery, shown_image
from effnet.serving.page.review import read_decision, read_number
from effnet.serving.page.scores import Scores
from effnet.serving.page.site import check_host, check_origin, html, image, static_response, statics
from effnet.serving.page.views import VIEWS, Shown, View
from effnet.system.files import parse_json

_MOST_DECISION = 4096


class Page:
    """The page of one server; `note` says, if it has images to review, how many and where corrections go.

    Raises DataError or InputError if --review has no images, or the file of corrections is damaged.
    """

    def __init__(self, state: State) -> None:
        self._state, settings = state, state.settings
        self._gallery = read_gallery(settings.review) if settings.review else None
        self._scores: Scores | None = None
        self._decisions: Decisions | None = None
        self.note = ""
        if self._gallery is not None:
            self._decisions = Decisions(Path(settings.corrections), self._gallery)
            self._scores = Scores(state, self._gallery)
            self._scores.start()
            self.note = f"{len(self._gallery):,} images to review; corrections go to {settings.corrections}"
        self.routes = [
            *(Route(view.path, self._view(view)) for view in VIEWS),
            Route("/review/decide", self._decide, methods=["POST"]),
            Route("/review/images/{number}", self._image),
            *(Route(found.path, self._static(name)) for name, found in statics().items()),
        ]
        self.keyless = (*(view.path for view in VIEWS), *(found.path for found in statics().values()))

    def close(self) -> None:
        """End the work in the background."""
        if self._scores is not None:
            self._scores.close()

    def _shown(self, query: Mapping[str, str]) -> Shown:
        return Shown(
            state=self._state, gallery=self._gallery, decisions=self._decisions,
            current=self._scores.round if self._scores else None, query=query,
        )  # fmt: skip

    def _frame(self, view: View) -> dict[str, Any]:
        """Return what every page shows; its data are those of a server whose key the request has."""
        paths = {name.replace(".", "_"): found.path for name, found in statics().items()}
        return {"view": view, "views": VIEWS, "keyed": bool(self._state.settings.keys), **paths}

    def _view(self, view: View) -> Any:
        async def show(request: Request) -> Response:
            frame = self._frame(view)
            if not has_key(self._state.settings.keys, request.scope["headers"]):
                return html("key.html.j2", frame | {"given": "authorization" in request.headers}, status=401)
            try:
                check_host(request, self._state.settings)
                values = await in_thread(functools.partial(view.values, self._shown(request.query_params)))
            except HttpError as error:
                again = {"refresh": "2"} if error.status == 503 else {}
                return html("error.html.j2", frame | {"error": error}, status=error.status, headers=again)
            return html(view.template, frame | values)

        return show

    def _static(self, name: str) -> Any:
        async def static(request: Request) -> Response:
            return static_response(statics()[name])

        return static

    async def _image(self, request: Request) -> Response:
        check_host(request, self._state.settings)
        gallery = self._gallery
        if gallery is None:
            raise HttpError(404, "images are shown of --review DATA; this server has none")
        number = read_number(request.path_params["number"], len(gallery), "image")
        size = request.query_params.get("size", str(SIDES[0]))
        if size not in map(str, SIDES):
            raise bad_request(f"size must be one of {', '.join(map(str, SIDES))}; got {shown(size)}")
        preprocess = self._state.models.find().config.preprocess
        try:
            found = await in_thread(functools.partial(shown_image, gallery, number, preprocess, side=int(size)))
        except ImageError as error:
            raise HttpError(422, f"an image must be whole and readable; {error}") from error
        return image(*found)

    async def _decide(self, request: Request) -> Response:
        check_host(request, self._state.settings)
        check_origin(request)
        current = self._scores.round if self._scores else None
        if self._gallery is None or self._decisions is None or current is None or not current.reviewable:
            raise HttpError(404, "a decision is on an image of --review that a classifier has scored; there is none")
        body = await self._state.body_of(request)
        try:
            data = parse_json(body.data[:_MOST_DECISION])
        except ValueError as error:
            raise bad_request(f"a decision must be JSON; {error}") from error
        finally:
            body.free()
        try:
            if data == {"undo": True}:
                number = await in_thread(self._decisions.undo)
                return JSONResponse({"image": number})
            config = current.version.config
            number, decision = read_decision(
                data, images=len(self._gallery), names=config.class_names, label=current.known.labels
            )
            scored = current.scored.get(number)
            await in_thread(
                functools.partial(
                    self._decisions.add, number, decision, digest=scored.digest if scored else "",
                    model=current.version.name, version=current.version.version,
                )
            )  # fmt: skip
        except OSError as error:
            raise HttpError(
                500, f"{self._decisions.path} must be a file that can be written; it is not: {error.strerror}"
            ) from error
        return JSONResponse({"image": number, "decided": len(self._decisions.made)})
