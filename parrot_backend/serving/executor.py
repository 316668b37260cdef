"""The executor of one session: resolve, render, dispatch, hand over.

Everything here runs on the event loop without an await between a call's end and the dispatch of what
became ready by it. So a client that holds an output always finds the next planned call rendered, and
claiming has no race (the protocol's one promise).
"""

import time
from collections import deque
from collections.abc import Callable, Iterable

from parrot_backend.program.analysis import deduce, rewritten
from parrot_backend.program.graph import Graph, Node
from parrot_backend.program.render import render_call, render_transform
from parrot_backend.serving.call import Call
from parrot_backend.serving.concurrency import Concurrency
from parrot_backend.serving.conversations import Conversations
from parrot_backend.serving.dispatcher import Dispatcher
from parrot_backend.serving.events import EventLog
from parrot_backend.serving.expectations import Expectations
from parrot_backend.serving.ranking import Ranking
from parrot_backend.serving.variables import Variables
from parrot_backend.wire.errors import (
    CancelledCallError,
    DependencyError,
    InvalidRequestError,
    ParrotError,
)
from parrot_backend.wire.protocol import Objective, Program, SemanticCall


class Executor:
    """Settles the nodes of a graph as their inputs come, and starts the calls among them.

    Args:
        dispatcher: where calls run.
        tenant: whose prefixes they share.
        events: where what happens is noted.
        ranking: decides which of the session's calls go first.
        objective: what is wanted of a program that names no output.
        touch: called when a call has ended, for the session is in use then.
        on_abandoned: called when the last reader of a running call has left it.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        tenant: str,
        events: EventLog,
        *,
        ranking: Ranking,
        objective: Objective,
        touch: Callable[[], None],
        on_abandoned: Callable[[Call], None],
    ) -> None:
        self.graph = Graph()
        self.variables = Variables()
        self.calls: dict[str, Call] = {}
        self.conversations = Conversations()
        self._expectations = Expectations(dispatcher, tenant)
        self._dispatcher = dispatcher
        self._tenant = tenant
        self._events = events
        self._ranking = ranking
        self._objective = objective
        self._touch = touch
        self._on_abandoned = on_abandoned
        self._claimable: dict[str, deque[Call]] = {}
        self._concurrency = Concurrency(self._start)

    def add(self, program: Program) -> None:
        """Take a program in, whole or not at all, and start every call whose inputs are there.

        Raises:
            InvalidRequestError: the program does not hold together; `param` says where.
            ConflictError: a name in it is taken.
        """
        self.graph.add(program)
        nodes: list[Node] = [*program.transforms, *program.calls]
        for name in [*program.variables, *(node.output for node in nodes)]:
            self.variables.declare(name)
        for call in program.calls:
            self.calls[call.id] = Call(
                call.id,
                output=call.output,
                inputs=self.graph.inputs[call.output],
                concurrency=call.concurrency,
            )
            self._events.add("call_planned", call.id)
        self._concurrency.limit(program.concurrency)
        self._rank()
        for name, value in program.variables.items():
            if value is not None:
                self._write(name, value)
        self._advance(nodes)
        waiting = {self.calls[call.id]: call for call in program.calls}
        self._expectations.add(
            {call: planned for call, planned in waiting.items() if call.state == "waiting"},
            self.variables.values,
            program.texts,
        )

    def write(self, name: str, value: str) -> None:
        """Give an input its value, and start what waited for it.

        Raises:
            NotFoundError: there is no such variable.
            ConflictError: it has a value.
        """
        self.variables.check(name, value)
        self._advance(self._write(name, value))

    def claim(self, key: str) -> Call | None:
        """The planned call whose rendered request has this key; each is handed over once.

        A failed or cancelled prediction is no answer: the request has to run.
        """
        candidates = self._claimable.get(key, deque())
        while candidates:
            call = candidates.popleft()
            if call.state in ("queued", "running", "done"):
                call.claimed_at = time.time()
                self._concurrency.claimed(call)
                self._events.add("call_claimed", call.id)
                return call
        return None

    def run(self, call: Call) -> None:
        """Start a rendered call.

        Raises:
            OverloadedError: too many calls are unfinished.
        """
        call.on_abandoned = self._on_abandoned
        self._dispatcher.start(
            call, tenant=self._tenant, on_first_token=self._on_first_token, on_end=self._on_end
        )
        self.calls[call.id] = call
        self.conversations.join(call)
        self._events.add("call_started", call.id)

    def cancel(self, calls: Iterable[Call], reason: str) -> None:
        """Stop calls that have not ended, and with each what needs its output."""
        error = CancelledCallError(reason)
        # What runs comes last, for its end would give its place to what is to be cancelled next.
        for call in sorted(calls, key=lambda call: call.state == "running"):
            if not call.ended:
                self._dispatcher.cancel(call)
                self._advance(self._fail(call, error))

    def _rank(self) -> None:
        """Place the calls that have not started; each extension tells more of who needs them."""
        for call_id, deduction in deduce(self.graph, self._objective).items():
            if (call := self.calls[call_id]).state == "waiting":
                self._ranking.rank_planned(call, deduction)

    # Forward: a settled input settles what reads it

    def _advance(self, nodes: Iterable[Node], *, dependent: bool = False) -> None:
        """Settle nodes and what reads them; `dependent` where a call's end settled their inputs."""
        queue = deque(nodes)
        while queue:
            node = queue.popleft()
            inputs = self.graph.inputs[node.output]
            if any(name in self.variables.errors for name in inputs):
                queue.extend(self._fail_dependent(node))
            elif all(name in self.variables.values for name in inputs):
                queue.extend(self._settle(node, dependent=dependent))

    def _settle(self, node: Node, *, dependent: bool) -> list[Node]:
        if isinstance(node, SemanticCall):
            return self._dispatch(node, dependent=dependent)
        if node.output in self.variables.values:
            return []
        try:
            value = render_transform(node, self.variables.values, self.graph.texts[node.output])
        except ParrotError as error:
            return self._fail_variable(node.output, error)
        return self._write(node.output, value)

    def _write(self, name: str, value: str) -> list[Node]:
        """Give a variable its value, or fail it where that can't be one; who reads it is returned."""
        try:
            self.variables.write(name, value)
        except InvalidRequestError as error:
            return self._fail_variable(name, error)
        self._events.add("variable_ready", name)
        return self.graph.consumers.get(name, [])

    def _dispatch(self, planned: SemanticCall, *, dependent: bool) -> list[Node]:
        """Render a call and let it run when it may; what fails by its failure is returned."""
        call = self.calls[planned.id]
        if call.state != "waiting":
            return []
        try:
            texts = self.graph.texts[planned.output]
            request = render_call(planned, self.variables.values, texts)
            request.model = self._dispatcher.check_model(request.model)
            key = request.claim_key()
        except ParrotError as error:
            return self._fail(call, error)
        except ValueError as error:  # a text of the program that is not valid Unicode
            return self._fail(call, InvalidRequestError(f"{planned.label} can't be sent: {error}"))
        call.request, call.dependent, call.queued = request, dependent, time.time()
        call.on_abandoned = self._on_abandoned
        if (earlier := rewritten(self.graph, planned)) is not None:
            call.draft = self.calls[earlier.id].tokens
        self._claimable.setdefault(key, deque()).append(call)
        if self._concurrency.enter(call):
            self._events.add("call_queued", call.id)
        return []

    def _start(self, call: Call) -> None:
        """Run a planned call that has its place."""
        try:
            self.run(call)
        except ParrotError as error:
            self._advance(self._fail(call, error))

    def _on_first_token(self, call: Call) -> None:
        self._events.add("call_first_token", call.id)

    def _on_end(self, call: Call) -> None:
        self._touch()
        if call.error is not None:
            self._events.add("call_failed", call.id)
            self._advance(self._fail_output(call, call.error))
            return
        self._events.add("call_done", call.id)
        if call.output is not None:
            self._advance(self._write(call.output, call.text), dependent=True)

    # Failure: exactly what needs a failed variable fails, with the error of the root

    def _fail(self, call: Call, error: ParrotError) -> list[Node]:
        """End a call; who reads its output is returned."""
        cancelled = isinstance(error, CancelledCallError)
        self._events.add("call_cancelled" if cancelled else "call_failed", call.id)
        call.end("cancelled" if cancelled else "failed", error)
        return self._fail_output(call, error)

    def _fail_output(self, call: Call, error: ParrotError) -> list[Node]:
        if call.output is None:
            return []
        return self._fail_variable(call.output, _rooted(error, call))

    def _fail_variable(self, name: str, error: ParrotError) -> list[Node]:
        if name in self.variables.errors:
            return []
        self.variables.fail(name, error)
        self._events.add("variable_failed", name)
        return self.graph.consumers.get(name, [])

    def _fail_dependent(self, node: Node) -> list[Node]:
        errors = self.variables.errors
        error = next(errors[name] for name in self.graph.inputs[node.output] if name in errors)
        if not isinstance(node, SemanticCall):
            return self._fail_variable(node.output, error)
        call = self.calls[node.id]
        return self._fail(call, error) if call.state == "waiting" else []


def _rooted(error: ParrotError, call: Call) -> ParrotError:
    """What the dependents of a call get: the first failure, named."""
    if isinstance(error, DependencyError | CancelledCallError):
        return error
    return DependencyError(f"call '{call.id}' failed: {error.message}", param=call.output)
