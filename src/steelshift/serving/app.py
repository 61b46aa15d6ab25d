"""The addresses of the server, and what its OpenAPI says of them."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.resources import files
from typing import Any, get_type_hints

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import TypeAdapter
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response

from steelshift import __version__
from steelshift.inspection.rows import COLUMNS, ImageRow
from steelshift.messages import language, say
from steelshift.serving import problems
from steelshift.serving.engine import Engine, not_ready
from steelshift.serving.limits import Limits
from steelshift.serving.metrics import Metrics
from steelshift.serving.problems import PROBLEM, Refusal

IMAGES = ("image/png", "image/jpeg", "image/bmp", "image/x-ms-bmp", "image/tiff", "application/octet-stream")
"""What a body may be called; what it is its content says."""
FORM = "multipart/form-data"
PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


def build(engine: Engine, limits: Limits, metrics: Metrics, ended: Callable[[], None]) -> FastAPI:
    """The application; `ended` is called where the engine cannot go on."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        engine.start(ended)
        yield
        await engine.stop()

    app = FastAPI(
        title="steelshift", version=__version__, lifespan=life, docs_url=None, redoc_url=None, redirect_slashes=False,
        description="Images of a surface to class, calibrated probability and decision.",
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )  # fmt: skip
    app.add_exception_handler(Refusal, lambda _, error: problems.answer(error))
    app.add_exception_handler(HTTPException, _no_such_place)
    app.add_exception_handler(RequestValidationError, _wrong_value)
    app.add_exception_handler(Exception, lambda _, __: problems.response(500, say("http_failed")))

    @app.post("/v1/inspect", summary="Inspect one image", **_described(one=True))
    async def inspect(
        request: Request,
        pictures: bool = Query(False, description="Also the image as the inspector saw it, and its heat map."),
    ) -> Response:
        kind = _kind(request, (*IMAGES, FORM))
        engine.admit()
        if kind == FORM:
            images = await _files(request, limits)
            if len(images) != 1:
                raise Refusal("http_images", 422, count=len(images), wanted="1")
        else:
            images = [("", await request.body())]
        ((inspector, answer),) = await engine.inspect(images, language(), pictures)
        row = answer["row"]
        request.state.facts.update(inspector=inspector, decisions=[row["decision"]], image=row["id"])
        if row["error"] is not None:
            return problems.response(422, row["error"])
        return _json({"inspector": inspector} | answer)

    @app.post("/v1/inspect:batch", summary="Inspect several images", **_described(one=False))
    async def inspect_batch(request: Request) -> Response:
        _kind(request, (FORM,))
        engine.admit()
        images = await _files(request, limits)
        if not 1 <= len(images) <= limits.images:
            raise Refusal("http_images", 422, count=len(images), wanted=f"1-{limits.images}")
        found = await engine.inspect(images, language())
        rows = [answer["row"] for _, answer in found]
        inspectors = [inspector for inspector, _ in found]
        request.state.facts.update(inspector=inspectors[-1], decisions=[row["decision"] for row in rows])
        return _json({"inspectors": inspectors, "rows": rows})

    @app.get("/v1/inspector", summary="The inspector that serves", responses=_responses("inspector", 503))
    async def inspector() -> Response:
        facts = engine.facts
        return _json({"inspector": engine.inspector, **facts, "limits": asdict(limits)})

    @app.get("/livez", summary="Whether the server runs", responses=_responses("state"))
    async def livez() -> Response:
        return _json({"state": "alive"})

    @app.get("/readyz", summary="Whether images can be inspected now", responses=_responses("state", 503))
    async def readyz() -> Response:
        if not engine.ready:
            raise not_ready()
        return _json({"state": "ready"})

    @app.get("/metrics", summary="Figures for Prometheus", responses=_responses("metrics"))
    async def figures() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    for path, (name, kind) in PAGE.items():
        app.get(path, include_in_schema=False)(_file((files(__package__) / "page" / name).read_bytes(), kind))
    return app


def _file(content: bytes, kind: str) -> Callable[[], Any]:
    async def page() -> Response:
        return Response(content, media_type=kind)

    return page


def _json(value: Any) -> Response:
    return Response(json.dumps(value, ensure_ascii=False), media_type="application/json")


def _kind(request: Request, known: tuple[str, ...]) -> str:
    """The content type without its parameters. Raises Refusal."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in known:
        listed = ", ".join(known)
        raise Refusal("http_media_type", 415, {"Accept-Post": listed}, found=kind or "-", known=listed)
    return kind


async def _files(request: Request, limits: Limits) -> list[tuple[str, bytes]]:
    """Name and content of every file of a form, other fields aside. The names are text that comes back in the rows.

    A charset that the client names reads them, and may read what is no text. Raises Refusal.
    """
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=limits.images, max_fields=32, max_part_size=limits.head_bytes
    )
    parser.spool_max_size = limits.body  # never to disk
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:
        raise Refusal("http_form", 422, why=getattr(error, "message", str(error))) from error
    try:
        uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        return [
            ((upload.filename or "").encode("utf-8", "backslashreplace").decode(), await upload.read())
            for upload in uploads
        ]
    finally:
        await form.close()


async def _no_such_place(_: Request, error: HTTPException) -> Response:
    """What the framework refuses: unknown addresses and methods."""
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return problems.response(405, say("http_method", method=_.method, allowed=allowed), error.headers)
    if error.status_code == 404:
        return problems.response(404, say("http_no_such_place"))
    return problems.response(error.status_code, str(error.detail), error.headers)


async def _wrong_value(_: Request, error: RequestValidationError) -> Response:
    what = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return problems.response(422, say("http_option", what=what))


# What OpenAPI says. Bodies are described here by hand, because they are read as they come and not by the framework.


def _row_schema() -> dict[str, Any]:
    hints = get_type_hints(ImageRow)
    names = {name: "class_" if name == "class" else name for name in COLUMNS}
    properties = {name: TypeAdapter(hints[key]).json_schema() for name, key in names.items()}
    about = "Of declared tasks, `TASK class`, `TASK p` and so on in place of class, p, second_class and margin."
    required = ["id", "path", "decision", "reason"]
    return {"type": "object", "description": about, "properties": properties, "required": required}


_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_ROW = {  # what is null is left out: FastAPI would take it away
    "id": _DIGEST, "path": "1.png", "class": "scratches", "p": 0.982114, "decision": "accept",
    "reason": "probability 0.982 is at least 0.700", "width": 200, "height": 200, "bit_depth": 8,
    "second_class": "inclusion", "margin": 0.970812, "strange": 0.0312,
    "nearest": "scratches: 0007.png; scratches: 0112.png; inclusion: 0031.png",
    "inspector": _DIGEST, "latency_ms": 7.3,
}  # fmt: skip
_ANSWERS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "one": (
        "The row of the image, and with `pictures` data URIs to look at.",
        {
            "type": "object",
            "properties": {
                "inspector": {
                    "type": "string",
                    "description": "sha256 of the SHA256SUMS of the inspector that answered",
                },
                "row": _row_schema(),
                "picture": {"type": "string"},
                "heat_map": {"type": ["string", "null"], "description": "to lay over the picture"},
            },
            "required": ["inspector", "row"],
        },
        {"inspector": _DIGEST, "row": _ROW},
    ),
    "several": (
        "A row an image, in their order; one that cannot be read has an `error`.",
        {
            "type": "object",
            "properties": {
                "inspectors": {"type": "array", "items": {"type": "string"}, "description": "of each row"},
                "rows": {"type": "array", "items": _row_schema()},
            },
            "required": ["inspectors", "rows"],
        },
        {"inspectors": [_DIGEST], "rows": [_ROW]},
    ),
    "inspector": (
        "Classes, calibration, threshold, limits.",
        {"type": "object", "required": ["inspector", "classes", "limits"]},
        {"inspector": _DIGEST, "classes": ["qualified", "scratches"], "threshold": 0.7, "limits": {"images": 32}},
    ),
    "state": ("Yes.", {"type": "object", "required": ["state"]}, {"state": "ready"}),
}
_REFUSED = {
    400: "No HTTP",
    401: "The token is missing or wrong",
    408: "The body came too slowly",
    413: "More bytes than allowed",
    415: "Another content type",
    422: "The image cannot be read, or the request has a wrong value",
    429: "Too many images are waiting",
    500: "A failure of the server",
    503: "Not ready",
    504: "No answer in time",
}


def _responses(answer: str, *refused: int) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {}
    if answer == "metrics":
        found[200] = {"description": "Figures", "content": {"text/plain": {"schema": {"type": "string"}}}}
    else:
        description, schema, example = _ANSWERS[answer]
        found[200] = {
            "description": description,
            "content": {"application/json": {"schema": schema, "example": example}},
        }
    for status in (400, 401, 500, *refused):
        found[status] = {
            "description": _REFUSED[status],
            "headers": {"Retry-After": {"schema": {"type": "integer"}}} if status in (429, 503) else {},
            "content": {PROBLEM: {"schema": _PROBLEM_SCHEMA, "example": _PROBLEM_EXAMPLE | {"status": status}}},
        }
    return found


_PROBLEM_SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"}},
    "required": ["title", "status", "detail"],
}
_PROBLEM_EXAMPLE = {"title": "Unprocessable Content", "status": 422, "detail": "The image is damaged or cut short."}


def _described(*, one: bool) -> dict[str, Any]:
    binary = {"contentMediaType": "application/octet-stream"}
    if one:
        content = {kind: {"schema": {}} for kind in IMAGES}
        form = {"type": "object", "properties": {"image": binary}, "required": ["image"]}
    else:
        content = {}
        form = {
            "type": "object",
            "properties": {"images": {"type": "array", "items": binary, "minItems": 1}},
            "required": ["images"],
        }
    body = {"required": True, "content": content | {FORM: {"schema": form}}}
    return {
        "responses": _responses("one" if one else "several", 408, 413, 415, 422, 429, 503, 504),
        "openapi_extra": {"requestBody": body},
    }
