"""`Session`: the scope in which a program lives and is claimed."""

import asyncio
import itertools
import time
from collections.abc import Iterable, Iterator
from typing import Any

from parrot_backend.endpoints.lengths import check_length
from parrot_backend.program.critical_path import critical_path, saved_on
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.dispatcher import Dispatcher
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.sessions.events import EventLog
from parrot_backend.serving.sessions.executor import LARGE, Executor
from parrot_backend.serving.sessions.ranking import Ranking
from parrot_backend.serving.tenants import Tenant
from parrot_backend.serving.texts import SessionTexts
from parrot_backend.wire.errors import (
    CancelledCallError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
)
from parrot_backend.wire.protocol import CallScope, ChatRequest, Program, SessionRequest
from parrot_backend.wire.text_protocol import LLMRequest
from parrot_backend.wire.views import GraphView, SessionEvent, SessionView

# What a call takes, or a variable, beside its texts.
_BYTES_PER_ENTRY = 2048


class Session:
    """Takes programs and requests, within its limits, and tells how they stand.

    `opening` says whose it is and what is wanted in it. It is used by every request that names it, and
    while somebody reads one of its calls or waits for one of its variables.
    """

    def __init__(
        self,
        session_id: str,
        dispatcher: Dispatcher,
        limits: Limits,
        texts: SessionTexts,
        tenant: Tenant,
        opening: SessionRequest,
    ) -> None:
        self.id = session_id
        self.tenant = tenant
        self.opening = opening
        self.created = time.time()
        self.last_used = time.monotonic()
        self.closed_at: float | None = None
        self._saved: float | None = None
        self._dispatcher = dispatcher
        self._limits = limits
        self._events = EventLog(limits.events_per_session)
        self._ranking = Ranking(dispatcher.new_application())
        self._executor = Executor(
            dispatcher,
            tenant,
            self._events,
            ranking=self._ranking,
            objective=opening.objective,
            on_use=self.touch,
        )
        self._texts = texts
        self._held = 0
        self._submitting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self.stopped = False

    async def submit(self, program: Program) -> None:
        """Take a program in, whole or not at all, and start every call whose inputs are there.

        Raises:
            InvalidRequestError: the program does not hold together, or is over the session's limits;
                `param` says where.
            PayloadTooLargeError: there is too much of it.
            CancelledCallError: the session was closed meanwhile.
            ConflictError: a name in it is taken.
            NotFoundError: a call names a model that is not served.
            OverloadedError: the server has no room for so many calls.
            QuotaError: the tenant may not have so many.
        """
        self.touch()
        self._check_models(program)
        if len(program.calls) + len(program.transforms) <= LARGE and not self._submitting.locked():
            await self._submit(program)
            return
        # Once begun it goes to its end, whatever becomes of who asked for it.
        work = asyncio.create_task(self._submit(program), name=f"submit to {self.id}")
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(work)

    async def _submit(self, program: Program) -> None:
        async with self._submitting:
            self._check_room(program)
            self._texts.check()
            try:
                await self._executor.add(program)
            finally:
                self._count_texts()

    def take(self, request: LLMRequest, scope: CallScope | None = None) -> Call:
        """Claim the planned call that this request is equal to, or run it as a new one.

        Args:
            request: what is to be generated.
            scope: which of the session's calls are its siblings, and what is wanted of it.

        Raises:
            NotFoundError: the request names a model that is not served.
            ContextLengthError: its prompt fits no context.
            InvalidRequestError: the session is full.
            OverloadedError: the server is full.
            QuotaError: the tenant may not have more.
        """
        self.touch()
        model = self._dispatcher.served(request.model, self.tenant)
        request.model = model.name
        check_length(request, model)
        if isinstance(request, ChatRequest):
            call = self._executor.claim(request.claim_key())
            if call is not None:
                return call
        return self._run_new(request, scope or CallScope())

    def set_variable(self, name: str, value: str) -> None:
        """Give an input its value, and start what waited for it.

        Raises:
            NotFoundError: there is no such variable.
            ConflictError: it has a value, or a call or transform writes it.
        """
        self.touch()
        if (producer := self._executor.graph.producers.get(name)) is not None:
            raise ConflictError(
                f"variable '{name}' is written by {producer.label}, it can't be set",
                param="name",
                code="variable_set",
            )
        self._texts.check()
        self._executor.write(name, value)
        self._count_texts()

    async def read_variable(self, name: str, timeout: float) -> str:
        """Wait for a variable, at most `timeout` seconds.

        Raises:
            NotFoundError: there is no such variable.
            DeadlineError: the wait ran out.
            ParrotError: what made the variable fail.
        """
        self.touch()
        try:
            return await self._executor.variables.read(
                name, min(timeout, self._limits.wait_seconds)
            )
        finally:
            self.touch()
            self._executor.review()

    def view(self) -> SessionView:
        """Counts of the session as it stands."""
        tally = self._executor.tally
        return SessionView(
            id=self.id,
            closed=self.closed,
            created=self.created,
            objective=self.opening.objective,
            thread=self.opening.thread,
            tags=self.opening.tags,
            planned=tally.planned,
            claimed=tally.claimed,
            dependent=tally.dependent,
            ahead=tally.ahead,
            unplanned=tally.unplanned,
            unclaimed=tally.done_unclaimed,
            saved_seconds=self._saved_seconds(),
            waiting=tally.states["waiting"],
            queued=tally.states["queued"],
            running=tally.states["running"],
            done=tally.states["done"],
            failed=tally.states["failed"],
            cancelled=tally.states["cancelled"],
            prompt_tokens=tally.prompt_tokens,
            cached_tokens=tally.cached_tokens,
            completion_tokens=tally.completion_tokens,
        )

    def graph(self) -> GraphView:
        """The program and how far it is."""
        return GraphView(**{name: list(items) for name, items in self.graph_lists().items()})

    def graph_lists(self) -> dict[str, Iterable[Any]]:
        """The lists of its `GraphView`; the items of the long ones are made as they are taken."""
        calls = self._executor.calls
        return {
            "calls": (call.view() for call in calls),
            "variables": self._executor.variables.views(),
            "groups": self._ranking.groups(calls),
            "conversations": self._executor.conversations.views(),
        }

    def events(self, after: int) -> Iterator[SessionEvent]:
        """What happened after event number `after`."""
        return self._events.after(after)

    def stop_plan(self) -> None:
        """Cancel what is planned and nobody has asked for: its client gives no sign of life.

        It is `stopped` until the session is used again.
        """
        self.stopped = True
        self._executor.stop_plan(
            CancelledCallError(
                f"session '{self.id}' had no sign of life for {self.grace:g} s: ask for what is "
                "planned, or tell that it is alive (POST /v1/sessions/alive)"
            )
        )

    def close(self) -> None:
        """Cancel what is planned and nobody has asked for; the counts can still be read.

        A request that is being answered goes on to its end, or until its reader leaves.
        """
        self.closed_at = time.monotonic()
        self._count_texts()
        self._executor.close(CancelledCallError(f"session '{self.id}' was closed"))

    async def settled(self) -> None:
        """Wait until all that follows from what has happened is done."""
        await self._executor.settled()

    def touch(self) -> None:
        """Somebody uses the session: it is not idle."""
        self.last_used, self.stopped = time.monotonic(), False

    @property
    def closed(self) -> bool:
        """Whether it takes nothing any more."""
        return self.closed_at is not None

    @property
    def grace(self) -> float:
        """Seconds without a sign of life after which its plan stops."""
        return self.opening.grace or self._limits.plan_grace_seconds

    @property
    def in_use(self) -> bool:
        """Whether somebody reads one of its calls or waits for one of its variables now."""
        return self._executor.in_use or self._submitting.locked()

    @property
    def idle_seconds(self) -> float:
        """How long nobody has used it."""
        return 0.0 if self.in_use else time.monotonic() - self.last_used

    @property
    def size(self) -> int:
        """About how many bytes it holds."""
        tally, variables, graph = (
            self._executor.tally,
            self._executor.variables,
            self._executor.graph,
        )
        entries = tally.calls + len(variables)
        return graph.literals + variables.characters + _BYTES_PER_ENTRY * entries

    @property
    def full(self) -> bool:
        """Whether it holds as many calls as it may."""
        return self._executor.tally.calls >= self._limits.calls_per_session

    def _saved_seconds(self) -> float | None:
        """What planning took off the critical path; it is found when it is first asked for."""
        if self._saved is None and self.closed:
            path = critical_path(self._executor.calls, self._executor.graph)
            self._saved = saved_on(path)
        return self._saved

    def _run_new(self, request: LLMRequest, scope: CallScope) -> Call:
        if self.full:
            raise InvalidRequestError(
                f"session '{self.id}' holds {self._limits.calls_per_session} calls, the most it may: "
                "open a new one",
                code="session_full",
            )
        call = Call(self._new_id(), self._executor, request, tenant=self.tenant)
        objective = scope.objective or self.opening.objective
        self._ranking.rank(call, scope.model_copy(update={"objective": objective}))
        self._executor.run(call)
        return call

    def _new_id(self) -> str:
        """One that no call of a program can have, as those are names."""
        return f"request/{next(self._numbers)}"

    def _count_texts(self) -> None:
        held = 0 if self.closed else self.size
        self._texts.change(held - self._held)
        self._held = held

    def _check_room(self, program: Program) -> None:
        nodes = len(program.calls) + len(program.transforms)
        tally = self._executor.tally
        for what, count, most in (
            (
                "calls",
                tally.calls + len(program.calls),
                self._limits.calls_per_session,
            ),
            (
                "variables",
                len(self._executor.variables) + len(program.variables) + nodes,
                self._limits.variables_per_session,
            ),
            (
                "concurrency groups",
                len(self._executor.graph.concurrency)
                + sum(n not in self._executor.graph.concurrency for n in program.concurrency),
                self._limits.concurrency_groups_per_session,
            ),
        ):
            if count > most:
                raise InvalidRequestError(
                    f"the program would bring session '{self.id}' to {count} {what}, over the limit of "
                    f"{most}: split it over sessions",
                    param=what.partition(" ")[0],
                    code="session_full",
                )

    def _check_models(self, program: Program) -> None:
        for index, call in enumerate(program.calls):
            try:
                self._dispatcher.served(call.model, self.tenant)
            except NotFoundError as error:
                param = f"calls.{index}.model"
                raise NotFoundError(error.message, param=param, code=error.code) from None
