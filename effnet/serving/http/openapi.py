"""The description of the HTTP interface, as /openapi.json."""

from typing import Any

from effnet.serving.answers import MASKS
from effnet.serving.settings import Settings
from effnet.system.machine import versions

_ERRORS = {
    400: "The request is not as described.",
    401: "There is no key, or a wrong one.",
    404: "There is no such path, model or version.",
    405: "The path takes other methods.",
    408: "The request was not whole in time.",
    413: "The body or the image is too large.",
    415: "The body is not in an accepted format.",
    422: "The image cannot be decoded.",
    500: "The model failed.",
    503: "The server is loading, busy or shutting down; Retry-After says when to try again.",
}
_COMMON = (400, 401, 404, 405, 408, 413, 415, 422, 500, 503)


def description(settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI description of a server with these settings."""
    paths = {
        "/predict": {"post": _image_post("Answer an image", _PREDICT, "Answer")},
        "/embed": {"post": _image_post("Return the embedding of an image", [_MODEL, _VERSION], "Embedding")},
        "/health": {"get": _get("Whether the server wants requests", {"type": "object"}, also=(503,))},
        "/metrics": {"get": _text("Metrics for Prometheus")},
        "/openapi.json": {"get": _get("This description", {"type": "object"})},
        "/admin/reload": {"post": _get("Load all models again", {"type": "object"}, also=(401, 422))},
        "/v2": {"get": _get("The server", {"type": "object"})},
        "/v2/health/live": {"get": _get("Whether the server runs", {"type": "object"})},
        "/v2/health/ready": {"get": _get("Whether the server wants requests", {"type": "object"}, also=(503,))},
    }
    for place, named in (
        ("/v2/models/{model}", ["model"]),
        ("/v2/models/{model}/versions/{version}", ["model", "version"]),
    ):
        given = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in named]
        paths[place] = {"get": _get("A model", {"type": "object"}, also=(404, 503)) | {"parameters": given}}
        paths[f"{place}/ready"] = {
            "get": _get("Whether a model answers", {"type": "object"}, also=(404, 503)) | {"parameters": given}
        }
        paths[f"{place}/infer"] = {"post": _infer() | {"parameters": given}}
    schemas = {"Error": _object(error={"type": "string"}), "Answer": {"type": "object"}, "Embedding": _EMBEDDING}
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "effnet", "version": versions().get("effnet", "")},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if settings.keys:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    return found


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _query(name: str, about: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": about, "schema": schema}


_MODEL = _query("model", "The name of a model; the first by default.", type="string")
_VERSION = _query("version", "A version of the model; the last by default.", type="string")
_PREDICT = [
    _MODEL,
    _VERSION,
    _query("top", "The number of classes.", type="integer", minimum=1, maximum=10_000, default=5),
    _query("threshold", "The probability below which an answer is unknown.", type="number", minimum=0, maximum=1),
    _query("mask", "How the mask of a segmenter is answered.", enum=list(MASKS), default=MASKS[0]),
    _query("heatmap", "1: with activation maps, if the file has them.", enum=["0", "1"], default="0"),
]
_EMBEDDING = _object(
    model={"type": "string"}, version={"type": "string"}, embedding={"type": "array", "items": {"type": "number"}}
)
_FILE = {"schema": {"type": "string", "format": "binary"}}


def _answers(schema: dict[str, Any], codes: tuple[int, ...]) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    found: dict[str, Any] = {"200": {"description": "The answer.", "content": {"application/json": {"schema": schema}}}}
    return found | {str(code): {"description": _ERRORS[code], "content": error} for code in codes}


def _get(about: str, schema: dict[str, Any], *, also: tuple[int, ...] = ()) -> dict[str, Any]:
    return {"summary": about, "responses": _answers(schema, tuple(sorted({401, 405, *also})))}


def _text(about: str) -> dict[str, Any]:
    found = {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"summary": about, "responses": _answers({}, (401, 405)) | {"200": found}}


def _image_post(about: str, parameters: list[Any], schema: str) -> dict[str, Any]:
    form = {"schema": _object(image={"type": "string", "format": "binary"})}
    kinds = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
    return {
        "summary": about,
        "parameters": parameters,
        "requestBody": {
            "required": True, "content": dict.fromkeys(kinds, _FILE) | {"multipart/form-data": form}
        },
        "responses": _answers({"$ref": f"#/components/schemas/{schema}"}, _COMMON),
    }  # fmt: skip


def _infer() -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}, "application/octet-stream": _FILE}
    return {
        "summary": "Run a model, by the Open Inference Protocol",
        "requestBody": {"required": True, "content": content},
        "responses": _answers({"type": "object"}, _COMMON),
    }
