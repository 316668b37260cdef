"""`ServingCore`: the tenants of one server, over the engines of its fleet."""

import asyncio
import logging

from parrot_backend.engines.base import EngineStats, ModelCard
from parrot_backend.serving.dispatch.dispatcher import Dispatcher, MakePolicy
from parrot_backend.serving.dispatch.fleet import Fleet
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.tenancy import Tenancy
from parrot_backend.serving.tenants import EVERYBODY, Tenant
from parrot_backend.serving.texts import SessionTexts
from parrot_backend.wire.text_protocol import LLMRequest

logger = logging.getLogger(__name__)

_EXPIRY_SECONDS = 2.0


class ServingCore:
    """Keeps what every tenant has apart, and ends it."""

    def __init__(self, fleet: Fleet, limits: Limits, make_policy: MakePolicy | None = None) -> None:
        self.fleet = fleet
        self.limits = limits
        self._dispatcher = Dispatcher(fleet, limits, make_policy)
        self._texts = SessionTexts(limits.session_bytes)
        self._tenancies: dict[str, Tenancy] = {}

    def tenancy(self, tenant: Tenant = EVERYBODY) -> Tenancy:
        """What a tenant has here."""
        if (tenancy := self._tenancies.get(tenant.name)) is None:
            tenancy = Tenancy(tenant, self._dispatcher, self.limits, self._texts)
            self._tenancies[tenant.name] = tenancy
        return tenancy

    def served(self, model: str | None, tenant: Tenant = EVERYBODY) -> ModelCard:
        """The model that serves `model`, by its name here; None means the first one.

        Raises:
            NotFoundError: this server does not serve that model, or not to this tenant.
        """
        return self._dispatcher.served(model, tenant)

    def models(self, tenant: Tenant = EVERYBODY) -> dict[str, ModelCard]:
        """All names and aliases that a tenant may use, each with the model that serves it."""
        return {name: self.served(name, tenant) for name in self.fleet.names.of(tenant)}

    async def tokenize(
        self, request: LLMRequest, model: str | None, tenant: Tenant = EVERYBODY
    ) -> list[int]:
        """The tokens of a request's prompt, as a model's tokenizer makes them.

        Raises:
            NotFoundError: its model is not served.
            ParrotError: see `Endpoint.tokenize`.
        """
        return await self._dispatcher.tokenize(request, model, tenant)

    def stats(self) -> dict[str, EngineStats]:
        """The load and the counts of each engine, at this moment."""
        return {seat.name: seat.endpoint.stats() for seat in self.fleet.seats}

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
