"""The session executor: resolve, render, dispatch, claim.

Everything here runs on the event loop without an await between a call's end and the dispatch of what
became ready by it. So a client that holds an output always finds the next planned call rendered, and
claiming has no race (the protocol's one promise).
"""

import itertools
import time
from collections import deque
from collections.abc import Iterable

from parrot_backend.errors import (
    CancelledCallError,
    ConflictError,
    DependencyError,
    NotFoundError,
    OverloadedError,
    ParrotError,
)
from parrot_backend.program.analysis import priorities
from parrot_backend.program.graph import Graph, Node, inputs_of
from parrot_backend.program.render import render_call, render_transform
from parrot_backend.protocol import (
    ChatRequest,
    GraphView,
    Program,
    SemanticCall,
    SessionEvent,
    SessionView,
)
from parrot_backend.serving.call import Call
from parrot_backend.serving.events import EventLog
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.scheduler import Scheduler
from parrot_backend.serving.variables import Variables


class Session:
    """The scope in which a program lives and is claimed."""

    def __init__(self, session_id: str, scheduler: Scheduler, limits: Limits, tenant: str) -> None:
        self.id = session_id
        self.tenant = tenant
        self.last_used = time.monotonic()
        self.closed = False
        self._scheduler = scheduler
        self._limits = limits
        self._graph = Graph()
        self._variables = Variables()
        self._events = EventLog(limits.events_per_session)
        self._calls: dict[str, Call] = {}
        self._claimable: dict[str, deque[Call]] = {}
        self._numbers = itertools.count(1)

    # Taking work in

    def submit(self, program: Program) -> None:
        """Take a program in, whole or not at all, and start every call whose inputs are there.

        Raises:
            InvalidRequestError: the program does not hold together; `param` says where.
            NotFoundError: a call names a model that is not served.
            OverloadedError: it would be over the session's limits.
        """
        self._check_room(program)
        for index, call in enumerate(program.calls):
            self._check_model(call, f"calls.{index}.model")
        self._graph.add(program)
        for name in [*program.variables, *(node.output for node in _nodes(program))]:
            self._variables.declare(name)
        priority = priorities(self._graph)
        for call in program.calls:
            self._plan(call, priority[call.id])
        for name, value in program.variables.items():
            if value is not None:
                self._write(name, value)
        self._advance(_nodes(program))

    def take(self, request: ChatRequest) -> Call:
        """Claim the planned call that this request is equal to, or run it as a new one.

        Raises:
            NotFoundError: the request names a model that is not served.
            OverloadedError: a limit is reached.
        """
        self.touch()
        request.model = self._scheduler.check_model(request.model)
        call = self._claim(request.claim_key())
        return call if call is not None else self._run_new(request)

    def set_variable(self, name: str, value: str) -> None:
        """Give an input its value, and start what waited for it.

        Raises:
            NotFoundError: there is no such variable.
            ConflictError: it has a value, or a call or transform writes it.
        """
        self.touch()
        if (producer := self._graph.producers.get(name)) is not None:
            raise ConflictError(
                f"variable '{name}' is written by {producer.label}, it can't be set",
                param="name",
                code="variable_set",
            )
        self._advance(self._write(name, value))

    async def read_variable(self, name: str, timeout: float) -> str:
        """Wait for a variable, at most `timeout` seconds; errors as of `Variables.read`."""
        self.touch()
        return await self._variables.read(name, min(timeout, self._limits.wait_seconds))

    # Looking in

    def view(self) -> SessionView:
        """Counts of the session as it stands."""
        calls = list(self._calls.values())
        return SessionView(
            id=self.id,
            closed=self.closed,
            planned=sum(call.planned for call in calls),
            claimed=sum(call.claimed for call in calls),
            unplanned=sum(not call.planned for call in calls),
            unclaimed=sum(c.planned and not c.claimed and c.state == "done" for c in calls),
            waiting=sum(call.state == "waiting" for call in calls),
            running=sum(call.state == "running" for call in calls),
            done=sum(call.state == "done" for call in calls),
            failed=sum(call.state == "failed" for call in calls),
            cancelled=sum(call.state == "cancelled" for call in calls),
            prompt_tokens=sum(call.prompt_tokens for call in calls),
            cached_tokens=sum(call.cached_tokens for call in calls),
            completion_tokens=sum(call.completion_tokens for call in calls),
        )

    def graph(self) -> GraphView:
        """The program and how far it is."""
        return GraphView(
            calls=[call.view() for call in self._calls.values()], variables=self._variables.views()
        )

    def events(self, after: int) -> list[SessionEvent]:
        """What happened after event number `after`."""
        return self._events.after(after)

    # Ending

    def close(self) -> None:
        """Cancel what has not ended; the counts can still be read."""
        self.closed = True
        self._cancel(self._calls.values(), f"session '{self.id}' was closed")

    def touch(self) -> None:
        """Somebody uses the session: it is not idle."""
        self.last_used = time.monotonic()

    @property
    def in_use(self) -> bool:
        """Whether somebody reads one of its calls or waits for one of its variables now."""
        return self._variables.readers > 0 or any(call.readers for call in self._calls.values())

    # Resolve, render, dispatch

    def _plan(self, call: SemanticCall, priority: int) -> None:
        planned = Call(call.id, output=call.output, inputs=inputs_of(call), priority=priority)
        self._calls[call.id] = planned
        self._events.add("call_planned", call.id)

    def _advance(self, nodes: list[Node]) -> None:
        """Settle every node whose inputs are settled, and what becomes ready by that."""
        queue = deque(nodes)
        while queue:
            node = queue.popleft()
            if any(name in self._variables.errors for name in inputs_of(node)):
                queue.extend(self._fail_dependent(node))
            elif all(name in self._variables.values for name in inputs_of(node)):
                queue.extend(self._settle(node))

    def _settle(self, node: Node) -> list[Node]:
        if isinstance(node, SemanticCall):
            self._dispatch(node)
            return []
        if node.output in self._variables.values:
            return []
        return self._write(node.output, render_transform(node, self._variables.values))

    def _write(self, name: str, value: str) -> list[Node]:
        """Give a variable its value; who reads it is returned."""
        self._variables.write(name, value)
        self._events.add("variable_ready", name)
        return self._graph.consumers.get(name, [])

    def _dispatch(self, planned: SemanticCall) -> None:
        call = self._calls[planned.id]
        if call.state != "waiting":
            return
        request = render_call(planned, self._variables.values)
        request.model = self._scheduler.check_model(request.model)
        call.request = request
        self._claimable.setdefault(request.claim_key(), deque()).append(call)
        try:
            self._start(call)
        except ParrotError as error:
            self._fail(call, error)

    def _start(self, call: Call) -> None:
        call.on_abandoned = self._abandon
        self._scheduler.start(
            call, tenant=self.tenant, on_first_token=self._on_first_token, on_end=self._on_end
        )
        self._events.add("call_started", call.id)

    def _on_first_token(self, call: Call) -> None:
        self._events.add("call_first_token", call.id)

    def _on_end(self, call: Call) -> None:
        self.touch()
        if call.error is not None:
            self._events.add("call_failed", call.id)
            self._fail_output(call, call.error)
            return
        self._events.add("call_done", call.id)
        if call.output is not None:
            self._advance(self._write(call.output, call.text))

    # Claim

    def _claim(self, key: str) -> Call | None:
        candidates = self._claimable.get(key, deque())
        while candidates:
            call = candidates.popleft()
            # A failed or cancelled prediction is no answer: the request runs as a new call.
            if call.state in ("running", "done"):
                call.claimed = True
                self._events.add("call_claimed", call.id)
                return call
        return None

    def _run_new(self, request: ChatRequest) -> Call:
        if len(self._calls) >= self._limits.calls_per_session:
            raise OverloadedError(
                f"session '{self.id}' holds {len(self._calls)} calls, the most it may: open a new one"
            )
        call = Call(f"request-{next(self._numbers)}", request)
        self._start(call)
        self._calls[call.id] = call
        return call

    # Fail, cancel

    def _fail(self, call: Call, error: ParrotError) -> None:
        cancelled = error.code == CancelledCallError.default_code
        self._events.add("call_cancelled" if cancelled else "call_failed", call.id)
        call.end("cancelled" if cancelled else "failed", error)
        self._fail_output(call, error)

    def _fail_output(self, call: Call, error: ParrotError) -> None:
        if call.output is not None:
            self._advance(self._fail_variable(call.output, _rooted(error, call)))

    def _fail_variable(self, name: str, error: ParrotError) -> list[Node]:
        if name in self._variables.errors:
            return []
        self._variables.fail(name, error)
        self._events.add("variable_failed", name)
        return self._graph.consumers.get(name, [])

    def _fail_dependent(self, node: Node) -> list[Node]:
        """Exactly what needs a failed variable fails, with the error of the root."""
        errors = self._variables.errors
        error = next(errors[name] for name in inputs_of(node) if name in errors)
        if isinstance(node, SemanticCall):
            if (call := self._calls[node.id]).state == "waiting":
                self._fail(call, error)
            return []
        return self._fail_variable(node.output, error)

    def _cancel(self, calls: Iterable[Call], reason: str) -> None:
        error = CancelledCallError(reason)
        for call in list(calls):
            if not call.ended:
                self._scheduler.cancel(call)
                self._fail(call, error)

    def _abandon(self, call: Call) -> None:
        """Its reader left before the end. If nobody else reads, nobody is there: the plan goes too."""
        reason = f"the reader of call '{call.id}' left before its end"
        self._cancel([call], reason)
        if not self.in_use:
            calls = self._calls.values()
            self._cancel((other for other in calls if not other.claimed), reason)

    # Checks

    def _check_room(self, program: Program) -> None:
        calls = len(self._calls) + len(program.calls)
        variables = len(self._variables) + len(program.variables) + len(_nodes(program))
        for what, count, most in (
            ("calls", calls, self._limits.calls_per_session),
            ("variables", variables, self._limits.variables_per_session),
        ):
            if count > most:
                raise OverloadedError(
                    f"the program would bring session '{self.id}' to {count} {what}; {most} are the "
                    "most: split it over sessions",
                    param=what,
                )

    def _check_model(self, call: SemanticCall, param: str) -> None:
        try:
            self._scheduler.check_model(call.model)
        except NotFoundError as error:
            raise NotFoundError(error.message, param=param, code=error.code) from None


def _nodes(program: Program) -> list[Node]:
    return [*program.transforms, *program.calls]


def _rooted(error: ParrotError, call: Call) -> ParrotError:
    """What the dependents of a call get: the first failure, named."""
    if isinstance(error, DependencyError | CancelledCallError):
        return error
    return DependencyError(f"call '{call.id}' failed: {error.message}", param=call.output)
