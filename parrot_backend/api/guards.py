"""ASGI guards in front of the routes: API keys and the size of bodies."""

import hmac

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parrot_backend.api.errors import error_response
from parrot_backend.wire.errors import AuthenticationError, PayloadTooLargeError


class RequireApiKey:
    """Answers 401 before a body is read, where a route under `/v1` is asked without the key."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._expected = f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it."""
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            given = Headers(scope=scope).get("authorization", "").encode()
            if not hmac.compare_digest(given, self._expected):
                error = AuthenticationError(
                    "the API key is missing or wrong: send 'Authorization: Bearer <key>'"
                )
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class LimitBody:
    """Answers 413 to a body over `limit` bytes, announced or counted as it comes in."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdigit() and int(announced) > self._limit:
            await error_response(PayloadTooLargeError(self._message))(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise HTTPException(PayloadTooLargeError.status, self._message)
            return message

        await self._app(scope, counted, send)

    @property
    def _message(self) -> str:
        return f"the request body is over this server's limit of {self._limit} bytes"
