"""Operations: is it alive, is it ready, how loaded is it."""

from dataclasses import asdict, fields
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from parrot_backend import __version__
from parrot_backend.api.documentation import errors
from parrot_backend.api.state import check_operator, core_of, tenant_of
from parrot_backend.engines.base import EngineStats
from parrot_backend.serving.tenants import NOBODY
from parrot_backend.wire.views import Readiness

router = APIRouter(tags=["operations"])


@router.get("/health", responses=errors())
async def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok", "version": __version__}


@router.get("/ready", response_model=Readiness, responses={**errors(), 503: {"model": Readiness}})
async def ready(http: Request) -> Response:
    """Whether one engine takes requests, and how each stands; where none does, as the first (503).

    Operators are told the engines by their names, others by numbers; who has no key where there are
    keys is not told the model.
    """
    fleet, tenant = core_of(http).fleet, tenant_of(http)
    engines = fleet.states
    is_ready = "ready" in engines.values()
    status = "ready" if is_ready else next(iter(engines.values()), "dead")
    model = None if tenant is NOBODY else fleet.names.first(tenant)
    if not tenant.operator:
        engines = {f"{at}": state for at, state in enumerate(engines.values(), 1)}
    readiness = Readiness(status=status, model=model, engines=engines)
    return JSONResponse(readiness.model_dump(), status_code=200 if is_ready else 503)


@router.get("/v1/stats", responses=errors())
async def stats(http: Request) -> dict[str, Any]:
    """The load and counts of all engines together, and of each, in tokens and sequences: of all
    tenants, and so for operators.

    Raises:
        ForbiddenError: the caller is none.
    """
    check_operator(http)
    each = {name: asdict(engine) for name, engine in core_of(http).stats().items()}
    names = [field.name for field in fields(EngineStats)]
    total = {name: sum(engine[name] for engine in each.values()) for name in names}
    return total | {"engines": each}
