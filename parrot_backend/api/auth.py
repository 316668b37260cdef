"""API keys: every route under `/v1` wants one when the server has one."""

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from parrot_backend.api.errors import error_response
from parrot_backend.errors import AuthenticationError


class RequireApiKey:
    """ASGI middleware that answers 401 before a body is read."""

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
