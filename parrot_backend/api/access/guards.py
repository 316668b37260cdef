"""ASGI guards in front of the routes: who asks, and from where."""

import ipaddress
import re
from collections.abc import Collection
from typing import ClassVar

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from parrot_backend.api.access.keys import Keys
from parrot_backend.api.errors import error_response
from parrot_backend.serving.tenants import NOBODY
from parrot_backend.wire.errors import AuthenticationError, InvalidRequestError, ParrotError

OPEN_ROUTES = frozenset({"/health", "/ready"})
"""What needs no key: what a load balancer asks. All else does, the documentation of the routes too."""

_HOST = re.compile(r"(?:(?P<name>[\w.-]+)|\[(?P<address>[\w:.]+)\])(?::[0-9]{0,5})?", re.ASCII)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class ForbiddenError(ParrotError):
    """The caller is known or near, and may not do this."""

    status: ClassVar[int] = 403
    type = "permission_error"
    default_code = "forbidden"


class MisdirectedError(InvalidRequestError):
    """The request names a host that this server is not."""

    status = 421
    default_code = "unknown_host"


class RequireApiKey:
    """Answers 401 before a body is read, where anything but `OPEN_ROUTES` is asked without a key.

    Whose key it is, the routes read from the request's state; nobody's where an open one is asked.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it."""
        if scope["type"] == "http":
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            tenant = self._keys.tenant(key.strip())
            if scheme.lower() != "bearer":
                tenant = None
            if tenant is None and scope["path"] in OPEN_ROUTES:
                tenant = NOBODY
            if tenant is None:
                error = AuthenticationError(
                    "the API key is missing or wrong: send 'Authorization: Bearer <key>'"
                )
                await error_response(error)(scope, receive, send)
                return
            scope.setdefault("state", {})["tenant"] = tenant
        await self._app(scope, receive, send)


class RequireLocalHost:
    """Keeps web pages away from a server without keys, which only this machine can reach.

    A page's own host name can be made to point here (DNS rebinding): requests have to name this
    machine. And a page may send simple requests to any host: what changes something may not come from
    another host's page.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it."""
        if scope["type"] == "http" and (error := self._objection(scope)) is not None:
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _objection(self, scope: Scope) -> ParrotError | None:
        headers = Headers(scope=scope)
        server = scope.get("server")
        over_unix_socket = server is not None and server[1] is None
        host = headers.get("host", "")
        if not over_unix_socket and not self._is_here(host):
            return MisdirectedError(
                f"this server is not '{host}': without an API key it answers to 'localhost' and to "
                "loopback addresses only"
            )
        origin = headers.get("origin")
        if (
            origin is None
            or scope["method"] in _SAFE_METHODS
            or self._is_here(origin.partition("://")[2])
        ):
            return None
        return ForbiddenError(f"pages of '{origin}' may change nothing here without an API key")

    def _is_here(self, host: str) -> bool:
        """Whether this is a host, with its port or without, and this machine."""
        parts = _HOST.fullmatch(host)
        if parts is None:
            return False
        name = (parts["name"] or parts["address"]).lower().removesuffix(".")
        return name in self._names or _is_loopback(name)


def _is_loopback(name: str) -> bool:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


class RefuseTwoLengths:
    """Answers 400 to a request that tells its body's length twice, as a number and as chunks.

    Who stands between may have read it by the other one, and would take the end of its body for the
    next request. So the connection is closed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if "content-length" in headers and "transfer-encoding" in headers:
                error = InvalidRequestError("send Content-Length or Transfer-Encoding, not both")
                response = error_response(error)
                response.headers["Connection"] = "close"
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
