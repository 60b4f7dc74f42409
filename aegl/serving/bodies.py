"""Bodies of requests, read within limits of length and time; and the file in a form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message

from aegl.serving.refusal import CLOSE, Refusal
from aegl.serving.settings import MEGABYTE

STALLED_AFTER = 5.0
"""Seconds without a byte of the body after which a client is given up."""
_SWALLOWED_WITHIN = 1.0


class ClientGone(Exception):  # noqa: N818  # nobody is left to be told
    """The client closed the connection."""


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body.

    Raises:
        Refusal: 413 above ``limit`` bytes, 408 for a client that stalls, 415 for a compressed body, 400 for none.
        ClientGone: if the connection ends first.
    """
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        await swallow(request, limit)
        raise Refusal(415, f"Content-Encoding: {encoding[:40]}: compressed bodies are not taken", CLOSE)
    announced = request.headers.get("content-length", "0")
    if not announced.isdigit() or len(announced) > 15 or int(announced) > limit:
        await swallow(request, limit)
        raise _too_long(limit)
    body = bytearray()
    while True:
        message = await _next(request)
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_long(limit)
        if not message.get("more_body", False):
            break
    if not body:
        raise Refusal(400, "the body is empty")
    return bytes(body)


async def swallow(request: Request, limit: int) -> None:
    """Read, for a moment, what a client sends that is about to be refused.

    Many clients read an answer only when they have sent everything; closed on before, they would see a broken
    connection and no reason. A client that waits for `100 Continue` sends nothing before it is told to.
    """
    if "expect" in request.headers:
        return
    left = limit
    try:
        async with asyncio.timeout(_SWALLOWED_WITHIN):
            while left > 0:
                message = await request.receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def file_of_form(content_type: str, body: bytes) -> bytes:
    """The first file of a ``multipart/form-data`` body.

    Raises:
        Refusal: 400 for a broken form, or one without a file.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        Headers({"content-type": content_type}), stream(), max_files=1, max_fields=16, max_part_size=len(body)
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = getattr(error, "message", "") or "its boundary is missing or wrong"
        raise Refusal(400, f"the form cannot be read: {reason}") from None
    try:
        for value in form.values():
            if isinstance(value, UploadFile):
                return await value.read()
    finally:
        await form.close()
    raise Refusal(400, "the form holds no file; send the image as a file field, e.g. curl -F image=@photo.jpg")


async def _next(request: Request) -> Message:
    try:
        async with asyncio.timeout(STALLED_AFTER):
            message = await request.receive()
    except TimeoutError:
        raise Refusal(408, f"no byte of the body came for {STALLED_AFTER:g} s", CLOSE) from None
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message


def _too_long(limit: int) -> Refusal:
    return Refusal(413, f"the body is longer than {limit / MEGABYTE:g} MiB (max_body_mb)", CLOSE)
