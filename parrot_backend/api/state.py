"""What the routes share: the serving core of their app, and what its caller has there."""

from fastapi import Request

from parrot_backend.api.access.guards import ForbiddenError
from parrot_backend.serving.core import ServingCore
from parrot_backend.serving.tenancy import Tenancy
from parrot_backend.serving.tenants import EVERYBODY, Tenant


def core_of(http: Request) -> ServingCore:
    """The serving core that the app was made with."""
    core: ServingCore = http.app.state.core
    return core


def tenant_of(http: Request) -> Tenant:
    """The caller, whom the guards have put into the request's state; everybody where nobody is told."""
    tenant: Tenant = getattr(http.state, "tenant", EVERYBODY)
    return tenant


def tenancy_of(http: Request) -> Tenancy:
    """What the caller has."""
    return core_of(http).tenancy(tenant_of(http))


def check_operator(http: Request) -> None:
    """Only operators may go on.

    Raises:
        ForbiddenError: the caller is none.
    """
    if not tenant_of(http).operator:
        raise ForbiddenError("only operators may see or change what concerns all tenants")
