"""POST /predict and POST /embed: an image, and its answer as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from effnet.errors import InputError, nearest, shown
from effnet.runtimes.results import unit_rows
from effnet.serving.answers import MASKS, heat_data, place_data, row_data, vector_data, written
from effnet.serving.batches.threads import in_thread
from effnet.serving.batches.work import Kind, Task, Times
from effnet.serving.http.body import image_in
from effnet.serving.http.errors import bad_request
from effnet.serving.http.state import Facts, State
from effnet.serving.images import check_format, prepared_image, upright_image
from effnet.serving.versions.version import Version

PREDICT = {"model": "", "version": "", "top": "5", "threshold": "", "mask": "none", "heatmap": "0"}
EMBED = {"model": "", "version": ""}
"""The parameters of a query, with their defaults."""

_MOST_TOP = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The parameters of a request; `threshold` None is the bundle's own."""

    top: int = 5
    threshold: float | None = None
    mask: str = "none"
    heatmap: bool = False


def predict_route(state: State) -> Any:
    """Return the handler of POST /predict."""

    async def predict(request: Request) -> Response:
        query = _query(request, PREDICT)
        version = _version(state, request, query)
        asked = _asked(query)
        kind: Kind = "whole" if version.config.task_record.whole is not None else "rows"
        if asked.heatmap:
            _check_maps(version)
            kind = "maps"
        return await _answered(state, request, version, asked, kind)

    return predict


def embed_route(state: State) -> Any:
    """Return the handler of POST /embed."""

    async def embed(request: Request) -> Response:
        version = _version(state, request, _query(request, EMBED))
        try:
            await in_thread(lambda: version.first.embedding_engine)  # the first time it opens a file
        except InputError as error:
            # The error itself names a folder of this machine.
            raise bad_request(
                f"the model must have a file of embeddings; {version.name} has none: run `effnet export BUNDLE "
                "--features` where it is served, then reload it"
            ) from error
        return await _answered(state, request, version, Asked(), "embeddings")

    return embed


async def _answered(state: State, request: Request, version: Version, asked: Asked, kind: Kind) -> Response:
    state.check()
    body = await state.body_of(request)
    try:
        data = image_in(body.data, request.headers.get("content-type", ""))
        check_format(data)
        most = state.settings.max_pixels
        kept: list[np.ndarray] = []

        def read(version: Version) -> Sequence[np.ndarray]:
            decode = upright_image if kind == "whole" else prepared_image
            image = decode(data, version.config.preprocess, max_pixels=most, warn=version.first.warn_once)
            kept.append(image)
            return (image,)

        def write(version: Version, found: Any, times: Times) -> bytes:
            if kind == "whole":
                answer = place_data(version, found, kept[0], mask=asked.mask)
            elif kind == "embeddings":
                answer = vector_data(unit_rows(found)[0])
            elif kind == "maps":
                rows, maps = found
                answer = row_data(version, rows[0], top=asked.top, threshold=asked.threshold, seen=state.saw)
                answer["heatmap"] = heat_data(version, rows[0], maps[0])
            else:
                answer = row_data(version, found[0], top=asked.top, threshold=asked.threshold, seen=state.saw)
            return written(version, answer, times)

        def make(reply: Any) -> Task:
            return Task(version=version, kind=kind, read=read, write=write, reply=reply, threshold=asked.threshold)

        return Response(await state.answer(request, make), media_type="application/json")
    finally:
        body.free()


def _version(state: State, request: Request, query: Mapping[str, str]) -> Version:
    version = state.models.find(query["model"] or None, query["version"] or None)
    facts: Facts = request.scope["effnet"]
    facts.model, facts.version = version.name, version.version
    return version


def _query(request: Request, known: Mapping[str, str]) -> dict[str, str]:
    if not request.scope["query_string"]:
        return dict(known)
    for name in request.query_params:
        if name not in known:
            raise bad_request(f"a parameter must be one of {', '.join(known)}; got {shown(name)}{nearest(name, known)}")
    return {**known, **request.query_params}


def _check_maps(version: Version) -> None:
    """Raise HttpError unless the version's file returns activation maps."""
    if not version.has_maps:
        name = version.first.format.name
        raise bad_request(
            f"a heat map must come from a file with activation maps; that of {version.name} has none: `effnet "
            f"export BUNDLE --maps --to {name}` writes it, for classifiers and several outputs"
        )


def _asked(query: Mapping[str, str]) -> Asked:
    top, threshold, mask = query["top"], query["threshold"], query["mask"]
    if query["heatmap"] not in ("0", "1"):
        raise bad_request(f"heatmap must be 0 or 1; got {shown(query['heatmap'])}")
    if not (top.isascii() and top.isdigit() and len(top) <= 6 and 1 <= int(top) <= _MOST_TOP):
        raise bad_request(f"top must be a whole number from 1 to {_MOST_TOP}; got {shown(top)}")
    if mask not in MASKS:
        raise bad_request(f"mask must be one of {', '.join(MASKS)}; got {shown(mask)}{nearest(mask, MASKS)}")
    least: float | None = None
    if threshold:
        try:
            least = float(threshold)
        except ValueError:
            least = -1.0
        if not 0 <= least <= 1:
            raise bad_request(f"threshold must be a probability from 0 to 1; got {shown(threshold)}")
    return Asked(top=int(top), threshold=least, mask=mask, heatmap=query["heatmap"] == "1")
