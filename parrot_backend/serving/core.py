"""`ServingCore`: the tenants of one server, over one endpoint."""

import asyncio
import logging

from parrot_backend.endpoints.base import Endpoint
from parrot_backend.serving.dispatch.dispatcher import Dispatcher
from parrot_backend.serving.dispatch.policy import Policy
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.tenancy import Tenancy
from parrot_backend.serving.tenants import EVERYBODY, Tenant
from parrot_backend.serving.texts import SessionTexts

logger = logging.getLogger(__name__)

_EXPIRY_SECONDS = 2.0


class ServingCore:
    """Keeps what every tenant has apart, and ends it."""

    def __init__(self, endpoint: Endpoint, limits: Limits, policy: Policy | None = None) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self._dispatcher = Dispatcher(endpoint, limits, policy)
        self._texts = SessionTexts(limits.session_bytes)
        self._tenancies: dict[str, Tenancy] = {}

    def tenancy(self, tenant: Tenant = EVERYBODY) -> Tenancy:
        """What a tenant has here."""
        if (tenancy := self._tenancies.get(tenant.name)) is None:
            tenancy = Tenancy(tenant, self._dispatcher, self.limits, self._texts)
            self._tenancies[tenant.name] = tenancy
        return tenancy

    def check_model(self, model: str | None) -> str:
        """The name of the model that serves `model`; None means the server's own.

        Raises:
            NotFoundError: this server does not serve that model.
        """
        return self._dispatcher.check_model(model)

    async def expire_idle(self) -> None:
        """Close sessions that nobody uses any more; runs until it is cancelled."""
        while True:
            shortest = min(self.limits.session_idle_seconds, self.limits.plan_grace_seconds)
            await asyncio.sleep(min(shortest / 4, _EXPIRY_SECONDS))
            for tenancy in list(self._tenancies.values()):
                try:
                    tenancy.expire()
                except Exception:
                    logger.exception(
                        "what '%s' no longer uses can't be closed", tenancy.tenant.name
                    )

    async def aclose(self) -> None:
        """Close every session and end every call."""
        for tenancy in self._tenancies.values():
            tenancy.close_all()
        await self._dispatcher.aclose()
