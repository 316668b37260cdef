"""What `/openapi.json` tells of errors: each status that a route answers with, in the one shape."""

from typing import Any

from fastapi import FastAPI

from parrot_backend.wire.views import ErrorResponse

_MEANING = {
    400: "The request can never succeed as it is; `param` names the field at fault.",
    401: "The API key is missing or wrong.",
    403: "The caller may not do this.",
    404: "There is no such session, variable, call or model.",
    408: "The body did not come in time.",
    409: "A name is taken, or a value is set already.",
    413: "The body is too large, or holds too many values.",
    421: "The request names a host that this server is not.",
    424: "A call or variable upstream failed.",
    429: "The caller has as much as it may have: try again later.",
    500: "The server or the engine failed.",
    503: "The server is full, starting or shutting down, or the call was stopped: try again later.",
    504: "A wait ran out.",
}
_BODY = (400, 408, 413)


def errors(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """A route's errors, besides those that any may answer with; a `body` has its own."""
    told = sorted({401, 403, 421, 500, 503, *statuses, *(_BODY if body else ())})
    return {status: {"model": ErrorResponse, "description": _MEANING[status]} for status in told}


RUNS_CALLS = errors(404, 424, 429, 504, body=True) | {
    200: {
        "description": "The answer, whole or as server-sent events.",
        "content": {"application/json": {}, "text/event-stream": {}},
    }
}
"""What running calls answers with."""


def install(app: FastAPI) -> None:
    """Leave out FastAPI's own 422, which no route answers with."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            for path in described()["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
        return described()

    app.openapi = openapi  # type: ignore[method-assign]
