"""The HTTP application over one endpoint."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from fastapi import FastAPI

from parrot_backend import __version__
from parrot_backend.api import errors, openai, operations, semantic, text
from parrot_backend.api.guards import LimitBody, RequireApiKey
from parrot_backend.endpoints.base import Endpoint
from parrot_backend.serving.core import ServingCore
from parrot_backend.serving.limits import Limits


def create_app(
    endpoint: Endpoint, *, api_key: str | None = None, limits: Limits | None = None
) -> FastAPI:
    """An app that owns `endpoint` from its start to its end.

    With an `api_key`, every route under `/v1` wants it as a bearer token.
    """
    limits = limits or Limits()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.core = core = ServingCore(endpoint, limits)
        app.state.started = int(time.time())
        expiry = asyncio.create_task(core.expire_idle(), name="expire idle sessions")
        try:
            yield
        finally:
            expiry.cancel()
            await core.aclose()
            await endpoint.aclose()

    app = FastAPI(title="Parrot", version=__version__, lifespan=lifespan)
    errors.install(app)
    for router in (semantic.router, openai.router, text.router, operations.router):
        app.include_router(router)
    app.add_middleware(LimitBody, limit=limits.body_bytes)
    if api_key is not None:
        app.add_middleware(RequireApiKey, api_key=api_key)
    return app
