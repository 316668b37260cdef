"""What the routes share: the serving core of their app, and what its caller has there."""

from fastapi import Request

from parrot_backend.serving.core import ServingCore
from parrot_backend.serving.tenancy import Tenancy
from parrot_backend.serving.tenants import EVERYBODY


def core_of(http: Request) -> ServingCore:
    """The serving core that the app was made with."""
    core: ServingCore = http.app.state.core
    return core


def tenancy_of(http: Request) -> Tenancy:
    """What the caller has, whom the guards have put into the request's state; else everybody's."""
    return core_of(http).tenancy(getattr(http.state, "tenant", EVERYBODY))
