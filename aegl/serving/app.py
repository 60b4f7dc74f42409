"""The application: endpoints, errors as JSON, every request counted."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aegl.errors import AeglError
from aegl.serving.bodies import ClientGone
from aegl.serving.endpoints import Endpoints
from aegl.serving.refusal import CLIENT_GONE, Refusal
from aegl.serving.service import Service

LOGGER = logging.getLogger("aegl")


def make_app(service: Service) -> ASGIApp:
    """The ASGI application of a service, which it starts and closes with its lifespan."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.close()

    app = Starlette(
        routes=Endpoints(service).routes(),
        lifespan=lifespan,
        exception_handlers={
            Refusal: _refused,
            HTTPException: _no_such_page,
            ClientGone: _nobody_there,
            AeglError: _failed,
            Exception: _unforeseen,
        },
    )
    return _Counted(app, service)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse({"error": error.reason}, error.status, error.headers)


async def _no_such_page(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return JSONResponse({"error": reason}, error.status_code, error.headers)


async def _nobody_there(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


async def _failed(request: Request, error: Exception) -> Response:
    LOGGER.error("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"error": str(error)}, 500)


async def _unforeseen(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed; its log says why"}, 500)


class _Counted:
    """Counts and times requests, and ends connections once the server is shutting down.

    Starlette answers an unforeseen error and raises it again, on which uvicorn would close the connection; it ends
    here.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._service.draining:
                    headers = [entry for entry in message["headers"] if entry[0].lower() != b"connection"]
                    message["headers"] = [*headers, (b"connection", b"close")]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            LOGGER.exception("%s %s failed", scope["method"], scope["path"])
        finally:
            # Not the path: clients choose it, and each would become a time series.
            endpoint = getattr(scope.get("endpoint"), "__name__", "other")
            self._service.metrics.answered(endpoint, status or 500, time.perf_counter() - started)
