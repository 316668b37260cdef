"""Every failure in OpenAI's one shape, with the right status."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parrot_backend.wire.errors import (
    CancelledCallError,
    EngineError,
    InvalidRequestError,
    ParrotError,
)
from parrot_backend.wire.views import ErrorDetail, ErrorResponse

logger = logging.getLogger(__name__)

_CLIENT_CLOSED_REQUEST = 499  # nginx's code, for nobody but the access log
# What OpenAI has taken out of use, and its successor.
_INSTEAD = {
    "functions": "'tools'",
    "function_call": "'tool_choice', or 'tool_calls' in a message,",
}


def error_body(error: ParrotError) -> dict[str, Any]:
    """`{"error": {...}}` as clients of OpenAI read it."""
    detail = ErrorDetail(message=error.message, type=error.type, param=error.param, code=error.code)
    return ErrorResponse(error=detail).model_dump()


def error_response(error: ParrotError) -> JSONResponse:
    """The error as an HTTP answer."""
    headers = {}
    if error.status in (429, 503) and not isinstance(error, CancelledCallError):
        headers["Retry-After"] = str(error.retry_after or 1)
    if error.status == 408:  # what is left of the request may come at any time, or never
        headers["Connection"] = "close"
    return JSONResponse(error_body(error), status_code=error.status, headers=headers)


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Answer every exception that a route is known to let through; see `AnswerFailures` for others."""

    @app.exception_handler(ParrotError)
    async def parrot_error(_: Request, error: ParrotError) -> JSONResponse:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(_from_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        response = error_response(InvalidRequestError(_told(request, error)))
        response.status_code = error.status_code
        response.headers.update(error.headers or {})
        if error.status_code == 405:
            response.headers["Allow"] = ", ".join(_methods(request, routes))
        return response

    @app.exception_handler(ClientDisconnect)
    async def client_left(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)


class AnswerFailures:
    """Answers 500 to what nobody expected, and tells the log once.

    Starlette's own handler raises the exception again, on which uvicorn drops the connection without
    a word, and the next request of a client that keeps its connections fails.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through; its failure is answered where no answer has begun."""
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if scope["type"] != "http" or begun:
                raise  # nothing but the end of the connection tells the client now
            response = error_response(unexpected(f"{scope['method']} {scope['path']}", error))
            await response(scope, receive, send)


def unexpected(what: str, error: Exception) -> EngineError:
    """What a client is told of an exception that nobody expected; the log has it whole."""
    logger.error("%s failed", what, exc_info=error)
    return EngineError("the server failed; its log says more", code="internal_error")


def _methods(request: Request, routes: Sequence[BaseRoute]) -> list[str]:
    """Those of all routes of a path; a router knows only that of the first."""
    found = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted({method for route in found for method in getattr(route, "methods", None) or ()})


def _told(request: Request, error: HTTPException) -> str:
    """Our routes raise errors of our own: a 404 or 405 is that of a request without a route."""
    if error.status_code not in (404, 405):
        return str(error.detail)
    return f"there is no route {request.method} {request.url.path}: /docs lists what there is"


def _from_validation(problems: Sequence[Any]) -> InvalidRequestError:
    """The first problem, named by its field; the others only counted."""
    problem = problems[0]
    path = ".".join(str(part) for part in problem["loc"] if part != "body")
    match problem["type"]:
        case "extra_forbidden":
            instead = _INSTEAD.get(str(problem["loc"][-1]))
            remedy = f"send {instead} instead" if instead else "leave it out"
            message = f"parameter '{path}' is not known or not supported here: {remedy}"
        case _:
            reason = str(problem["msg"]).removeprefix("Value error, ")
            message = f"{path}: {reason}" if path else reason
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return InvalidRequestError(message + more, param=path or None)
