"""Request bodies: read within bounds and in time, decoded and prepared in pieces."""

import asyncio
import codecs
import hashlib
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from parrot_backend.api.pieces import Pieces
from parrot_backend.api.requests.json_decoder import decode
from parrot_backend.api.requests.validation import prepare
from parrot_backend.serving.limits import Limits
from parrot_backend.wire.errors import (
    InvalidRequestError,
    OverloadedError,
    PayloadTooLargeError,
)


class SlowBodyError(InvalidRequestError):
    """A request's body did not come in time."""

    status = 408
    default_code = "body_too_slow"


class Bodies:
    """Reads the bodies of one server's requests, which are bounded alone and together."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0
        self._pieces = Pieces()

    @contextmanager
    def holding(self, http: Request) -> Generator["_Body", None, None]:
        """A request's body, which counts until the end of the context, or it is let go before."""
        http.state.held_body = body = _Body(is_json=_is_json(http))
        try:
            yield body
        finally:
            self.let_go(http)

    def let_go(self, http: Request) -> None:
        """Count a request's body no longer: what is left of it has bounds of its own."""
        body: _Body = http.state.held_body
        self._held -= body.size
        body.size = 0

    async def read(self, http: Request, body: "_Body") -> None:
        """Read a request's body to its end.

        Raises:
            PayloadTooLargeError: it is larger than one may be.
            OverloadedError: together with others it is more than the server holds at once.
            SlowBodyError: it didn't come in time.
            ClientDisconnect: the client left before its end.
        """
        announced = http.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self._limits.body_bytes:
            raise self._too_large()
        deadline = time.monotonic() + self._limits.body_seconds
        more = True
        while more:
            message = await self._next(http, deadline)
            more = message.get("more_body", False)
            chunk = message.get("body", b"")
            self._held += len(chunk)
            body.add(chunk, last=not more)
            if body.size > self._limits.body_bytes:
                raise self._too_large()
            if self._held > self._limits.bodies_bytes:
                raise OverloadedError(
                    f"requests hold over {self._limits.bodies_bytes} bytes, the most that this "
                    "server takes at once: try again"
                )

    async def decoded(self, body: "_Body", kind: Any) -> Any:
        """The JSON of a body, with what is big in it prepared to be validated as a `kind`.

        Raises:
            InvalidRequestError: it is no JSON, or not within bounds.
            PayloadTooLargeError: it has too many values.
        """
        value = await self._pieces.run(decode(body.take_text()))
        await self._pieces.run(prepare(kind, value))
        return value

    async def _next(self, http: Request, deadline: float) -> dict[str, Any]:
        left = deadline - time.monotonic()
        try:
            async with asyncio.timeout(min(left, self._limits.body_seconds / 4)):
                message = await http.receive()
        except TimeoutError:
            seconds = self._limits.body_seconds
            raise SlowBodyError(
                f"the request body did not come in time: it has {seconds:g} s, and {seconds / 4:g} s "
                "for each pause in it"
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        return dict(message)

    def _too_large(self) -> PayloadTooLargeError:
        return PayloadTooLargeError(
            f"the request body is over this server's limit of {self._limits.body_bytes} bytes"
        )


class _Body:
    """One body; each chunk is decoded as it comes, and only its text is kept."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self.size = 0
        self._digest = hashlib.sha256()
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._texts: list[str] = []

    def add(self, chunk: bytes, *, last: bool) -> None:
        """Keep a chunk.

        Raises:
            InvalidRequestError: it is no text, or not said to be JSON.
        """
        self.size += len(chunk)
        self._digest.update(chunk)
        if not self._is_json and chunk:
            raise InvalidRequestError(
                "the body is not said to be JSON: send it with the header "
                "'Content-Type: application/json'"
            )
        try:
            self._texts.append(self._decoder.decode(chunk, last))
        except UnicodeDecodeError:
            raise InvalidRequestError("the request body is not valid JSON: no UTF-8") from None

    @property
    def digest(self) -> bytes:
        """Equal for equal bodies."""
        return self._digest.digest()

    def take_text(self) -> str:
        """All of it, which is kept no longer."""
        texts, self._texts = self._texts, []
        return "".join(texts)


def let_go_of_body(http: Request) -> None:
    """See `Bodies.let_go`."""
    bodies: Bodies = http.app.state.bodies
    bodies.let_go(http)


class BodyRoute(APIRoute):
    """A route that reads its body by `Bodies`; FastAPI validates what came, and documents it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, behind the reading of the body."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        kind = self.body_field.field_info.annotation

        async def read_first(http: Request) -> Response:
            bodies: Bodies = http.app.state.bodies
            with bodies.holding(http) as body:
                await bodies.read(http, body)
                await http.is_disconnected()  # so that uvicorn reads on, and notices who leaves
                http.state.body_digest = body.digest
                read = _Read(http, b"", None)
                if body.size:
                    read = _Read(http, b"json", await bodies.decoded(body, kind))
                return await handle(read)

        return read_first


class _Read(Request):
    """A request whose body was read already; for FastAPI it is only important that there is one."""

    def __init__(self, http: Request, content: bytes, value: Any) -> None:
        super().__init__(http.scope, http.receive)
        self._content = content
        self._value = value

    async def body(self) -> bytes:
        return self._content

    async def json(self) -> Any:
        return self._value


def _is_json(http: Request) -> bool:
    media = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media == "application/json" or (
        media.startswith("application/") and media.endswith("+json")
    )
