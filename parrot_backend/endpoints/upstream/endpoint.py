"""`UpstreamEndpoint`: a server that somebody else runs, over HTTP."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from parrot_backend.endpoints.base import HANG_SECONDS, Card, EndpointState, Job
from parrot_backend.endpoints.cards import read_card
from parrot_backend.endpoints.upstream import dialect as dialects
from parrot_backend.endpoints.upstream.address import Address, Secret
from parrot_backend.endpoints.upstream.ahead import Ahead
from parrot_backend.endpoints.upstream.client import Client
from parrot_backend.endpoints.upstream.health import Health
from parrot_backend.endpoints.upstream.metrics import metrics_of
from parrot_backend.endpoints.upstream.rate_limit import RateLimit
from parrot_backend.endpoints.upstream.recognize import Recognized
from parrot_backend.endpoints.upstream.runs import Runs
from parrot_backend.endpoints.upstream.tokenizing import tokenized
from parrot_backend.engines.base import Delta, EngineStats
from parrot_backend.wire.errors import EndpointLostError
from parrot_backend.wire.text_protocol import LLMRequest

_POLLS = 5
"""Of so many probes one asks for the load as well: its answer is long."""
_LEAST = -(2**31)


class UpstreamEndpoint:
    """Runs jobs on one model of an OpenAI-compatible server; see `Endpoint`.

    Nothing is sent before `start`, which finds out what kind of server it is.

    Args:
        url: `http(s)://host:port`, with or without the path of the API.
        key: sent with each request.
        model: as the server names it; None where it serves only one.
        slots: how many jobs it is given at once; None for what it tells, or what its kind mostly takes.
        hang_seconds: an answer that is silent for so long is a reason to ask the server how it is.
        measured: what is known better than by its kind: fields of its `Dialect`. None for what
            `parrot doctor` has measured, if it has.

    Raises:
        InvalidRequestError: the URL is none, or no dialect has what was measured.
    """

    def __init__(
        self,
        url: str,
        *,
        key: Secret | None = None,
        model: str | None = None,
        slots: int | None = None,
        hang_seconds: float = HANG_SECONDS,
        measured: Mapping[str, object] | None = None,
    ) -> None:
        self._client = Client(Address.parse(url), key)
        self._operators_slots = slots
        self._measured = measured
        self._running = 0
        self._probes = 0
        self._rate = RateLimit(slots or 1, self._slots_changed)
        self._rested: asyncio.TimerHandle | None = None
        self._health = Health(self._client, model, hang_seconds, self._met, self._poll)
        self._runs = Runs(self._client, self._health, self._rate)
        self._ahead = Ahead(self._run_ahead, self._has_room, self._runs.counts)

    async def start(self) -> None:
        """Find out what the server is and serves.

        Raises:
            ParrotError: it can't be used, and why.
        """
        await self._health.start()

    @property
    def card(self) -> Card:
        """What it can do; its slots are fewer after it was busy, and none while it may not be asked."""
        known = self.known
        dialect = known.dialect
        return Card(
            known.model,
            self._rate.slots,
            preempts=False,
            pins=dialect.pins,
            repeatable=dialect.repeatable,
            sharing=dialect.sharing,
            kv_tokens=known.kv_tokens,
            engine=known.engine,
        )

    @property
    def known(self) -> Recognized:
        """What the server is, as far as that is known by now.

        Raises:
            UnavailableError: it has not been recognized yet.
        """
        return self._runs.known

    @property
    def state(self) -> EndpointState:
        """Whether it takes jobs."""
        return self._health.state

    @property
    def why(self) -> str | None:
        """Why it takes none, where it is lost or stays away."""
        return self._health.why if self.state == "dead" else None

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` after every change of state or slots; see `Endpoint.watch`."""
        self._health.watch(changed)

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """Run a job; see `Endpoint.generate`. Closing it closes the connection, which ends it there."""
        self._health.check_ready()
        self._running += 1
        last = None
        try:
            await self._ahead.begins(job.request, job.tenant)
            async with aclosing(self._runs.run(job)) as deltas:
                async for delta in deltas:
                    last = delta
                    yield delta
        finally:
            self._running -= 1
            if last is not None and last.finish_reason is not None:
                self._ahead.ended(job.request, job.tenant, last)
            else:
                self._ahead.go_on()

    async def tokenize(self, request: LLMRequest) -> list[int]:
        """The tokens of a request's prompt, where the server tells them; see `Endpoint.tokenize`."""
        self._health.check_ready()
        try:
            return await tokenized(self._client, self.known.dialect, self.known.model.name, request)
        except EndpointLostError as error:
            await self._health.doubt(error.message)
            raise

    def expect(self, examples: Sequence[LLMRequest], tenant: str) -> Callable[[], None]:
        """Compute what the examples begin with where a slot is idle; see `Endpoint.expect`."""
        if self.state == "starting" or not self.known.dialect.pins:
            return lambda: None
        return self._ahead.expect(examples, tenant)

    def stats(self) -> EngineStats:
        """The load as the server tells it, where it does; the counts are of what we asked for."""
        waiting, counts = self._runs.waiting, self._runs.counts
        if self.state == "starting":
            return counts.told(0, 0, None)
        return counts.told(self._running - waiting, waiting, self.known.kv_tokens)

    def drain(self) -> None:
        """Take no more jobs; see `Endpoint.drain`."""
        self._health.drain()

    async def aclose(self) -> None:
        """End what runs, and let the server be."""
        await self._ahead.aclose()
        await self._health.aclose()
        if self._rested is not None:
            self._rested.cancel()
        await self._client.aclose()

    # What it is

    def _met(self, told: Recognized) -> Recognized:
        """What the operator says counts, else what was measured, what it tells, what its kind does.

        How long the context is and how many slots there are may be otherwise with each start, and what
        was measured be of one before: a context that is told counts, and slots are no more than told.
        """
        card = None
        if self._measured is None:
            card = read_card(self._client.address.root, told.model.name, told.version)
        changes = self._measured or ({} if card is None else card.changes(told.dialect.structured))
        dialect = told.dialect.measured(changes)
        model = told.model
        if model.context_length is None and card is not None:
            model = replace(model, context_length=card.context_length)
        slots = told.slots or dialect.slots
        if "slots" in changes:
            slots = min(slots, dialect.slots)
        slots = self._operators_slots or slots
        known = replace(told, dialect=dialect, model=model, slots=slots)
        self._runs.meet(known, told.slots or slots)
        self._rate.allow(slots)
        return known

    async def _poll(self) -> None:
        """With a probe."""
        if self.known.dialect.name == dialects.VLLM.name and self._probes % _POLLS == 0:
            self._runs.counts.metrics = await metrics_of(self._client)
        self._probes += 1

    # What runs on it

    def _slots_changed(self) -> None:
        """Now, and again when it may be asked."""
        if self._rested is not None:
            self._rested.cancel()
            self._rested = None
        if (left := self._rate.left) > 0:
            self._rested = asyncio.get_running_loop().call_later(left, self._slots_changed)
        self._health.tell()
        self._ahead.go_on()

    def _has_room(self) -> bool:
        return self.state == "ready" and self._running < self._rate.slots

    async def _run_ahead(self, request: LLMRequest, tenant: str) -> Delta:
        last = None
        job = Job(request, priority=_LEAST, tenant=tenant)
        async with aclosing(self._runs.run(job)) as deltas:
            async for delta in deltas:
                last = delta
        if last is None:
            raise EndpointLostError("nothing was answered")
        return last
