"""Every failure in OpenAI's one shape, with the right status."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from parrot_backend.wire.errors import EngineError, InvalidRequestError, ParrotError
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
    headers = {"Retry-After": "1"} if error.status in (429, 503) else None
    return JSONResponse(error_body(error), status_code=error.status, headers=headers)


def install(app: FastAPI) -> None:
    """Answer every exception that a route lets through."""

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
        return response

    @app.exception_handler(ClientDisconnect)
    async def client_left(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)

    @app.exception_handler(Exception)
    async def internal_error(request: Request, error: Exception) -> JSONResponse:
        logger.exception("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(EngineError("the server failed; its log says more"))


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
        case "json_invalid":
            reason = problem["ctx"]["error"]
            return InvalidRequestError(f"the request body is not valid JSON: {reason}")
        case "extra_forbidden":
            instead = _INSTEAD.get(str(problem["loc"][-1]))
            remedy = f"send {instead} instead" if instead else "leave it out"
            message = f"parameter '{path}' is not known or not supported here: {remedy}"
        case _:
            reason = str(problem["msg"]).removeprefix("Value error, ")
            message = f"{path}: {reason}" if path else reason
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return InvalidRequestError(message + more, param=path or None)
