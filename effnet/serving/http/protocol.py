"""The routes of the Open Inference Protocol, version 2, under /v2."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from effnet.errors import shown
from effnet.serving.batches.work import Task, Times
from effnet.serving.http.errors import HttpError, bad_request
from effnet.serving.http.state import Facts, State
from effnet.serving.http.tensors import IMAGE, InferRequest, Wanted, read_request, write_response
from effnet.serving.images import prepared_image
from effnet.serving.versions.version import Version
from effnet.system.machine import versions
from effnet.tasks.known import SCORE
from effnet.tasks.task import parted

_EXTENSIONS = ("binary_tensor_data", "classification")
_HEADER = "inference-header-content-length"
# More would keep an engine from all others.
_MOST_IMAGES = 64


def protocol_routes(state: State) -> list[Route]:
    """Return the routes under /v2."""
    about = {"name": "effnet", "version": versions().get("effnet", ""), "extensions": list(_EXTENSIONS)}

    async def server(request: Request) -> Response:
        return JSONResponse(about)

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        return JSONResponse({"ready": state.ready}, status_code=200 if state.ready else 503)

    async def model(request: Request) -> Response:
        return JSONResponse(_metadata(state, _version(state, request)))

    async def model_ready(request: Request) -> Response:
        name = request.path_params["model"]
        try:
            _version(state, request)
            found = not state.life.draining
        except HttpError as error:
            if error.status != 503:
                raise
            found = False
        return JSONResponse({"name": name, "ready": found}, status_code=200 if found else 503)

    async def infer(request: Request) -> Response:
        return await _infer(state, request)

    routes = [
        Route("/v2", server), Route("/v2/", server), Route("/v2/health/live", live), Route("/v2/health/ready", ready)
    ]  # fmt: skip
    for place in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            Route(place, model), Route(f"{place}/ready", model_ready), Route(f"{place}/infer", infer, methods=["POST"])
        ]  # fmt: skip
    return routes


def _version(state: State, request: Request) -> Version:
    version = state.models.find(request.path_params["model"], request.path_params.get("version"))
    facts: Facts = request.scope["effnet"]
    facts.model, facts.version = version.name, version.version
    return version


def _metadata(state: State, version: Version) -> dict[str, Any]:
    preprocess, target = version.config.preprocess, version.first.format
    shape = [-1, *preprocess.size, preprocess.channels]
    return {
        "name": version.name,
        "versions": [found.version for found in state.models.versions(version.name)],
        "platform": f"{target.runtime}_{target.name}".replace("-", "_"),
        "inputs": [{"name": IMAGE, "datatype": "UINT8", "shape": shape}],
        "outputs": [
            {"name": name, "datatype": "FP32", "shape": [-1, *output.sides]} for name, output in version.outputs
        ],
    }


async def _infer(state: State, request: Request) -> Response:
    version = _version(state, request)
    state.check()
    header_bytes = _header_bytes(request.headers)
    body = await state.body_of(request)
    try:
        data, parsed = body.data, list[InferRequest]()

        def read(version: Version) -> Sequence[np.ndarray]:
            found = read_request(data, header_bytes=header_bytes, known=[name for name, _ in version.outputs])
            parsed.append(found)
            return _images(state, version, found)

        def write(version: Version, rows: np.ndarray, times: Times) -> tuple[bytes, int | None]:
            return _response(version, parsed[0], rows)

        def make(reply: Any) -> Task:
            return Task(version=version, kind="rows", read=read, write=write, reply=reply)

        content, length = await state.answer(request, make)
    finally:
        body.free()
    if length is None:
        return Response(content, media_type="application/json")
    return Response(content, media_type="application/octet-stream", headers={_HEADER: str(length)})


def _header_bytes(headers: Mapping[str, str]) -> int | None:
    text = headers.get(_HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise bad_request(f"Inference-Header-Content-Length must be a number of bytes; got {shown(text)}")
    return int(text)


def _images(state: State, version: Version, found: InferRequest) -> Sequence[np.ndarray]:
    """Return the prepared images of a request."""
    preprocess = version.config.preprocess
    count = len(found.images) if found.tensor is None else len(found.tensor) if found.tensor.ndim else 0
    if not 1 <= count <= _MOST_IMAGES:
        raise HttpError(413, f"a request must have 1 to {_MOST_IMAGES} images; got {count}: send several requests")
    if found.tensor is None:
        most, warn = state.settings.max_pixels, version.first.warn_once
        return [prepared_image(image, preprocess, max_pixels=most, warn=warn) for image in found.images]
    wanted = (*preprocess.size, preprocess.channels)
    if found.tensor.shape[1:] != wanted:
        sides = ", ".join(map(str, wanted))
        raise bad_request(f"{IMAGE} must be of shape [images, {sides}]; got {list(found.tensor.shape)}")
    return list(found.tensor)


def _response(version: Version, found: InferRequest, rows: np.ndarray) -> tuple[bytes, int | None]:
    """Return the response's body from the rows [images, columns]."""
    names = dict(version.outputs)
    parts = parted(rows, list(names.values()))
    wanted = found.wanted or tuple(Wanted(name=name, binary=found.binary) for name in names)
    labels = _labels(version)
    head: dict[str, Any] = {"model_name": version.name, "model_version": version.version}
    if found.identity is not None:
        head["id"] = found.identity
    return write_response(head, [(each, parts[names[each.name].name], labels.get(each.name, ())) for each in wanted])


def _labels(version: Version) -> dict[str, Sequence[str]]:
    """Return the names of the columns of each output whose columns have names."""
    config = version.config
    if config.specs:
        return {
            name: spec.classes for (name, _), spec in zip(version.outputs, config.specs, strict=True) if spec.classes
        }
    return {name: config.class_names for name, output in version.outputs if not output.shape and name != SCORE}
