"""Operations: is it alive, is it ready, how loaded is it."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from parrot_backend import __version__
from parrot_backend.api.access.guards import ForbiddenError
from parrot_backend.api.documentation import errors
from parrot_backend.api.state import core_of, tenant_of
from parrot_backend.wire.views import Readiness

router = APIRouter(tags=["operations"])


@router.get("/health", responses=errors())
async def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok", "version": __version__}


@router.get("/ready", response_model=Readiness, responses={**errors(), 503: {"model": Readiness}})
async def ready(http: Request) -> Response:
    """Whether the model takes requests; its state, also where it does not (503)."""
    endpoint = core_of(http).endpoint
    readiness = Readiness(status=endpoint.state, model=endpoint.card.model.name)
    is_ready = readiness.status == "ready"
    return JSONResponse(readiness.model_dump(), status_code=200 if is_ready else 503)


@router.get("/v1/stats", responses=errors())
async def stats(http: Request) -> dict[str, Any]:
    """The engine's load and counts, in tokens and sequences: of all tenants, and so for operators.

    Raises:
        ForbiddenError: the caller is none.
    """
    if not tenant_of(http).operator:
        raise ForbiddenError("only operators may see what concerns all tenants")
    return asdict(core_of(http).endpoint.stats())
