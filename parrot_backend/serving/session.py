"""`Session`: the scope in which a program lives and is claimed."""

import itertools
import time
from collections import Counter

from parrot_backend.program.critical_path import calls_read, critical_path, saved_on
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatcher import Dispatcher
from parrot_backend.serving.events import EventLog
from parrot_backend.serving.executor import Executor
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.ranking import Ranking
from parrot_backend.wire.errors import ConflictError, NotFoundError, OverloadedError
from parrot_backend.wire.protocol import CallScope, ChatRequest, Program, SessionRequest
from parrot_backend.wire.text_protocol import LLMRequest
from parrot_backend.wire.views import GraphView, SessionEvent, SessionView


class Session:
    """Takes programs and requests, within its limits, and tells how they stand.

    `opening` says whose it is and what is wanted in it.
    """

    def __init__(
        self,
        session_id: str,
        dispatcher: Dispatcher,
        limits: Limits,
        tenant: str,
        opening: SessionRequest,
    ) -> None:
        self.id = session_id
        self.tenant = tenant
        self.opening = opening
        self.created = time.time()
        self.last_used = time.monotonic()
        self.closed = False
        self._saved_seconds: float | None = None
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
            touch=self.touch,
            on_abandoned=self._abandon,
        )
        self._numbers = itertools.count(1)

    def submit(self, program: Program) -> None:
        """Take a program in, whole or not at all, and start every call whose inputs are there.

        Raises:
            InvalidRequestError: the program does not hold together; `param` says where.
            PayloadTooLargeError: its shared texts are too long.
            ConflictError: a name in it is taken.
            NotFoundError: a call names a model that is not served.
            OverloadedError: it would be over the session's limits.
        """
        self.touch()
        self._check_room(program)
        self._check_models(program)
        self._executor.add(program)

    def take(self, request: LLMRequest, scope: CallScope | None = None) -> Call:
        """Claim the planned call that this request is equal to, or run it as a new one.

        Args:
            request: what is to be generated.
            scope: which of the session's calls are its siblings, and what is wanted of it.

        Raises:
            NotFoundError: the request names a model that is not served.
            OverloadedError: a limit is reached.
        """
        self.touch()
        request.model = self._dispatcher.check_model(request.model)
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
        self._executor.write(name, value)

    async def read_variable(self, name: str, timeout: float) -> str:
        """Wait for a variable, at most `timeout` seconds.

        Raises:
            NotFoundError: there is no such variable.
            DeadlineError: the wait ran out.
            ParrotError: what made the variable fail.
        """
        self.touch()
        return await self._executor.variables.read(name, min(timeout, self._limits.wait_seconds))

    def view(self) -> SessionView:
        """Counts of the session as it stands."""
        calls = list(self._executor.calls.values())
        states = Counter(call.state for call in calls)
        return SessionView(
            id=self.id,
            closed=self.closed,
            created=self.created,
            objective=self.opening.objective,
            thread=self.opening.thread,
            tags=self.opening.tags,
            planned=sum(call.planned for call in calls),
            claimed=sum(call.claimed for call in calls),
            dependent=sum(call.dependent and call.claimed for call in calls),
            ahead=sum(call.ahead for call in calls),
            unplanned=sum(not call.planned for call in calls),
            unclaimed=sum(c.planned and not c.claimed and c.state == "done" for c in calls),
            saved_seconds=self._saved_seconds,
            waiting=states["waiting"],
            queued=states["queued"],
            running=states["running"],
            done=states["done"],
            failed=states["failed"],
            cancelled=states["cancelled"],
            prompt_tokens=sum(call.prompt_tokens for call in calls),
            cached_tokens=sum(call.cached_tokens for call in calls),
            completion_tokens=sum(call.completion_tokens for call in calls),
        )

    def graph(self) -> GraphView:
        """The program and how far it is."""
        calls = list(self._executor.calls.values())
        return GraphView(
            calls=[call.view() for call in calls],
            variables=self._executor.variables.views(),
            groups=self._ranking.groups(calls),
            conversations=self._executor.conversations.views(),
        )

    def events(self, after: int) -> list[SessionEvent]:
        """What happened after event number `after`."""
        return self._events.after(after)

    def close(self) -> None:
        """Cancel what is planned and nobody has asked for; the counts can still be read.

        A request that is being answered goes on to its end, or until its reader leaves.
        """
        self.closed = True
        unasked = [c for c in self._executor.calls.values() if c.planned and not c.claimed]
        self._executor.cancel(unasked, f"session '{self.id}' was closed")
        views = [call.view() for call in self._executor.calls.values()]
        self._saved_seconds = saved_on(critical_path(views, calls_read(self._executor.graph)))

    def touch(self) -> None:
        """Somebody uses the session: it is not idle."""
        self.last_used = time.monotonic()

    @property
    def in_use(self) -> bool:
        """Whether somebody reads one of its calls or waits for one of its variables now."""
        calls = self._executor.calls.values()
        return self._executor.variables.readers > 0 or any(call.readers for call in calls)

    @property
    def full(self) -> bool:
        """Whether it holds as many calls as it may."""
        return len(self._executor.calls) >= self._limits.calls_per_session

    def _run_new(self, request: LLMRequest, scope: CallScope) -> Call:
        if self.full:
            count = len(self._executor.calls)
            raise OverloadedError(
                f"session '{self.id}' holds {count} calls, the most it may: open a new one",
                code="session_full",
            )
        call = Call(f"request-{next(self._numbers)}", request)
        objective = scope.objective or self.opening.objective
        self._ranking.rank(call, scope.model_copy(update={"objective": objective}))
        self._executor.run(call)
        return call

    def _abandon(self, call: Call) -> None:
        """Its reader left before the end. If nobody else reads, nobody is there: the plan goes too."""
        reason = f"the reader of call '{call.id}' left before its end"
        self._executor.cancel([call], reason)
        if not self.in_use:
            calls = self._executor.calls.values()
            plan = (other for other in calls if other.planned and not other.claimed)
            self._executor.cancel(plan, reason)

    def _check_room(self, program: Program) -> None:
        nodes = len(program.calls) + len(program.transforms)
        for what, count, most in (
            (
                "calls",
                len(self._executor.calls) + len(program.calls),
                self._limits.calls_per_session,
            ),
            (
                "variables",
                len(self._executor.variables) + len(program.variables) + nodes,
                self._limits.variables_per_session,
            ),
            (
                "concurrency groups",
                len(self._executor.graph.concurrency.keys() | program.concurrency.keys()),
                self._limits.concurrency_groups_per_session,
            ),
        ):
            if count > most:
                raise OverloadedError(
                    f"the program would bring session '{self.id}' to {count} {what}, over the limit of "
                    f"{most}: split it over sessions",
                    param=what.partition(" ")[0],
                )

    def _check_models(self, program: Program) -> None:
        for index, call in enumerate(program.calls):
            try:
                self._dispatcher.check_model(call.model)
            except NotFoundError as error:
                param = f"calls.{index}.model"
                raise NotFoundError(error.message, param=param, code=error.code) from None
