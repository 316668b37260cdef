"""Operations: is it alive, is it ready, how loaded is it."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from parrot_backend import __version__
from parrot_backend.api.state import core_of

router = APIRouter(tags=["operations"])


@router.get("/health")
async def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok", "version": __version__}


@router.get("/ready")
async def ready(http: Request) -> dict[str, str]:
    """The model is loaded, and requests are taken."""
    return {"status": "ready", "model": core_of(http).endpoint.card.model.name}


@router.get("/v1/stats")
async def stats(http: Request) -> dict[str, Any]:
    """The engine's load and counts, in tokens and sequences."""
    return asdict(core_of(http).endpoint.stats())
