"""What the server answers: KServe's version 2, pictures, the page, figures."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from aegl._version import __version__
from aegl.serving import kserve
from aegl.serving.bodies import file_of_form
from aegl.serving.metrics import CONTENT_TYPE
from aegl.serving.model import VERSION
from aegl.serving.page import PAGE_HEADERS, page
from aegl.serving.refusal import Refusal
from aegl.serving.service import Service

_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_KEYS = ("conf", "masks")


class Endpoints:
    """The handlers of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._page = page(service.model)

    def routes(self) -> list[BaseRoute]:
        """Every path."""
        model = "/v2/models/{model}"
        routes = [
            Route("/", self.index),
            Route("/predict", self.predict, methods=["POST"]),
            Route("/metrics", self.metrics),
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
        ]
        for prefix in (model, f"{model}/versions/{{version}}"):
            routes += [
                Route(prefix, self.model),
                Route(f"{prefix}/ready", self.model_ready),
                Route(f"{prefix}/infer", self.infer, methods=["POST"]),
            ]
        return [*routes]

    async def index(self, request: Request) -> Response:
        """The page on which a person tries the model."""
        return HTMLResponse(self._page, headers=PAGE_HEADERS)

    async def predict(self, request: Request) -> Response:
        """Detect in an image file: the body itself, or the first file of a form."""
        conf, masks = self._options(request)
        kind = request.headers.get("content-type", "")

        async def work(body: bytes) -> bytes:
            is_form = kind.lower().startswith("multipart/form-data")
            data = await file_of_form(kind, body) if is_form else body
            picture = await service.in_thread(service.model.picture, data)
            outputs = await service.infer(picture.rows)
            return await service.in_thread(_json_of_found, service, outputs, picture, conf, masks)

        service = self._service
        return Response(await service.answer(request, work), media_type="application/json")

    async def infer(self, request: Request) -> Response:
        """Run the graph on a client's tensor."""
        self._require_model(request)
        service, model = self._service, self._service.model

        async def work(body: bytes) -> tuple[bytes, dict[str, str]]:
            asked = await service.in_thread(self._parsed, body, request.headers.get(kserve.HEADER))
            rows = model.rows(asked.inputs[model.inputs[0].name], service.settings.max_batch)
            outputs = await service.infer(rows)
            return await service.in_thread(_respond, asked, outputs, model.name)

        body, headers = await service.answer(request, work)
        return Response(body, headers=headers)

    async def server(self, request: Request) -> Response:
        """Metadata of the server."""
        return JSONResponse({"name": "aegl", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def live(self, request: Request) -> Response:
        """The process answers."""
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        """Requests are taken; no longer once the server is shutting down."""
        if self._service.draining:
            raise Refusal(503, "the server is shutting down")
        return JSONResponse({"ready": True})

    async def model(self, request: Request) -> Response:
        """Metadata of the model."""
        self._require_model(request)
        return JSONResponse(self._service.model.metadata())

    async def model_ready(self, request: Request) -> Response:
        """The model answers whenever the server does."""
        self._require_model(request)
        ready = await self.ready(request)
        return JSONResponse({"name": self._service.model.name, "ready": True}, ready.status_code)

    async def metrics(self, request: Request) -> Response:
        """Figures for Prometheus."""
        return Response(self._service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    def _parsed(self, body: bytes, header_length: str | None) -> kserve.InferRequest:
        model = self._service.model
        return kserve.parse(body, header_length, inputs=model.inputs, outputs=model.outputs)

    def _require_model(self, request: Request) -> None:
        name, version = request.path_params["model"], request.path_params.get("version", VERSION)
        if name != self._service.model.name:
            raise Refusal(404, f"model {name[:100]}: not served here; the model is {self._service.model.name}")
        if version != VERSION:
            raise Refusal(404, f"version {version[:100]}: not served here; the version is {VERSION}")

    def _options(self, request: Request) -> tuple[float, bool]:
        query = request.query_params
        if unknown := [key for key in query if key not in _KEYS]:
            raise Refusal(400, f"{unknown[0][:60]}: unknown key; keys are {', '.join(_KEYS)}")
        conf = _share("conf", query.get("conf", str(self._service.settings.default_conf)))
        masks = _TRUTH.get(query.get("masks", "true").lower())
        if masks is None:
            raise Refusal(400, f"masks={query['masks'][:40]}: must be true or false")
        return conf, masks


def _share(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise Refusal(400, f"{name}={text[:40]}: must be a number from 0 to 1")
    return value


def _json_of_found(service: Service, outputs: Any, picture: Any, conf: float, masks: bool) -> bytes:
    return json.dumps(service.model.found(outputs, picture, conf=conf, masks=masks)).encode()


def _respond(asked: kserve.InferRequest, outputs: Any, name: str) -> tuple[bytes, dict[str, str]]:
    return kserve.respond(asked, outputs, model=name, version=VERSION)
