"""The HTTP application over a fleet of engines."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection

from fastapi import FastAPI

from parrot_backend import __version__
from parrot_backend.api import documentation, engines, errors, openai, operations, semantic, text
from parrot_backend.api.access.guards import RefuseTwoLengths, RequireApiKey, RequireLocalHost
from parrot_backend.api.access.keys import Keys
from parrot_backend.api.pieces import Pieces
from parrot_backend.api.requests.bodies import Bodies
from parrot_backend.api.requests.idempotency import Answers, as_it_stands
from parrot_backend.serving.core import ServingCore
from parrot_backend.serving.dispatch.dispatcher import MakePolicy
from parrot_backend.serving.dispatch.fleet import Fleet
from parrot_backend.serving.limits import Limits


def create_app(
    fleet: Fleet,
    *,
    keys: Keys | None = None,
    names: Collection[str] = (),
    limits: Limits | None = None,
    make_policy: MakePolicy | None = None,
    make_member: engines.MakeMembers | None = None,
) -> FastAPI:
    """An app that owns `fleet`, the engines that it serves, from its start to its end.

    With `keys`, every route but `guards.OPEN_ROUTES` wants one of them as a bearer token. Without, it
    answers only those who name this machine: `localhost`, a loopback address or one of `names`.
    `make_policy` makes the order of calls, one for each model; by default what their programs say.
    `make_member` makes what an operator adds, of the body of the request; by default nobody can.
    """
    limits = limits or Limits()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.core = core = ServingCore(fleet, limits, make_policy)
        app.state.started = int(time.time())
        expiry = asyncio.create_task(core.expire_idle(), name="expire idle sessions")
        try:
            yield
        finally:
            expiry.cancel()
            await core.aclose()
            await fleet.aclose()

    app = FastAPI(title="Parrot", version=__version__, lifespan=lifespan)
    app.state.limits = limits
    app.state.bodies = Bodies(limits)
    app.state.pieces = Pieces()
    app.state.answers = Answers(as_it_stands)
    app.state.make_member = make_member
    rooms = (semantic, openai, text, operations, engines)
    routers = [room.router for room in rooms]
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
