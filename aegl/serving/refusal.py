"""A request that is not answered, and why."""

from __future__ import annotations

from collections.abc import Mapping

CLIENT_GONE = 499
"""Code, in metrics only, of a request whose client closed the connection (nginx's convention)."""
CLOSE = {"Connection": "close"}
"""For answers to a request that was not read to its end."""


class Refusal(Exception):  # noqa: N818  # not an error of the server
    """Ends a request with a status and one reason.

    Args:
        status: HTTP status, 4xx or 5xx.
        reason: one sentence for the person who sent the request.
        headers: further headers of the response.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})


def overloaded(reason: str) -> Refusal:
    """Refuse for now: the client, or what stands before the server, may try again."""
    return Refusal(503, reason, {"Retry-After": "1", **CLOSE})
