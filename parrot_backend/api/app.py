"""The HTTP application over one endpoint."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection

from fastapi import FastAPI

from parrot_backend import __version__
from parrot_backend.api import documentation, errors, openai, operations, semantic, text
from parrot_backend.api.access.guards import RefuseTwoLengths, RequireApiKey, RequireLocalHost
from parrot_backend.api.access.keys import Keys
from parrot_backend.api.pieces import Pieces
from parrot_backend.api.requests.bodies import Bodies
from parrot_backend.api.requests.idempotency import Answers, as_it_stands
from parrot_backend.endpoints.base import Endpoint
from parrot_backend.serving.core import ServingCore
from parrot_backend.serving.dispatch.policy import Policy
from parrot_backend.serving.limits import Limits


def create_app(
    endpoint: Endpoint,
    *,
    keys: Keys | None = None,
    names: Collection[str] = (),
    limits: Limits | None = None,
    policy: Policy | None = None,
) -> FastAPI:
    """An app that owns `endpoint` from its start to its end.

    With `keys`, every route but `guards.OPEN_ROUTES` wants one of them as a bearer token. Without, it
    answers only those who name this machine: `localhost`, a loopback address or one of `names`. The
    `policy` is the order of calls; by default what their programs say.
    """
    limits = limits or Limits()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.core = core = ServingCore(endpoint, limits, policy)
        app.state.started = int(time.time())
        expiry = asyncio.create_task(core.expire_idle(), name="expire idle sessions")
        try:
            yield
        finally:
            expiry.cancel()
            await core.aclose()
            await endpoint.aclose()

    app = FastAPI(title="Parrot", version=__version__, lifespan=lifespan)
    app.state.limits = limits
    app.state.bodies = Bodies(limits)
    app.state.pieces = Pieces()
    app.state.answers = Answers(as_it_stands)
    routers = (semantic.router, openai.router, text.router, operations.router)
    errors.install(app, [route for router in routers for route in router.routes])
    documentation.install(app)
    for router in routers:
        app.include_router(router)
    if keys is not None:
        app.add_middleware(RequireApiKey, keys=keys)
    else:
        app.add_middleware(RequireLocalHost, names={"localhost", *names})
    app.add_middleware(RefuseTwoLengths)
    app.add_middleware(errors.AnswerFailures)
    return app
