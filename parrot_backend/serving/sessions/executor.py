"""The executor of one session: resolve, render, queue, hand over.

What follows from the end of a call is done before anybody sees that end: its variable is settled, the
transforms that read it are, and the calls that are ready by that are rendered and queued. So a client
that holds an output always finds the next planned call, and claiming has no race (the protocol's one
promise). It is one worklist over the edges of the graph, each edge once; where it is long, other
sessions have their turns in between, and the end is told after it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

from parrot_backend.program.analysis import Analysis, Deduction, rewritten
from parrot_backend.program.graph import Checked, Graph, Node
from parrot_backend.program.render import render_transform
from parrot_backend.program.transforms import JsonReader
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.dispatcher import Dispatcher
from parrot_backend.serving.sessions.claims import Claims
from parrot_backend.serving.sessions.concurrency import Concurrency
from parrot_backend.serving.sessions.conversations import Conversations
from parrot_backend.serving.sessions.events import EventLog
from parrot_backend.serving.sessions.expectations import Expectations
from parrot_backend.serving.sessions.needs import Needs
from parrot_backend.serving.sessions.prompts import Prompts
from parrot_backend.serving.sessions.ranking import Ranking
from parrot_backend.serving.sessions.tally import Tally
from parrot_backend.serving.sessions.variables import Variables
from parrot_backend.serving.tenants import Tenant
from parrot_backend.serving.worklist import Worklist
from parrot_backend.wire.errors import (
    CancelledCallError,
    DependencyError,
    EngineError,
    InvalidRequestError,
    ParrotError,
)
from parrot_backend.wire.protocol import Objective, Program, SemanticCall
from parrot_backend.wire.views import CallState, EventKind

LARGE = 200
"""Up to so many nodes, a program is taken in before anybody else has a turn."""

_EVENTS: dict[CallState, EventKind] = {
    "running": "call_started",
    "done": "call_done",
    "failed": "call_failed",
    "cancelled": "call_cancelled",
}


class Executor:
    """Settles the nodes of a graph as their inputs come, and owns the calls of a session.

    Args:
        dispatcher: where calls run.
        tenant: whose they are.
        events: where what happens is noted.
        ranking: decides which of the session's calls go first.
        objective: what is wanted of a program that names no output.
        on_use: called when a call that somebody asked for has ended.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        tenant: Tenant,
        events: EventLog,
        *,
        ranking: Ranking,
        objective: Objective,
        on_use: Callable[[], None],
    ) -> None:
        self.graph = Graph()
        self.variables = Variables()
        self.planned: dict[str, Call] = {}
        self.requests: dict[str, Call] = {}
        self.tally = Tally()
        self.conversations = Conversations()
        self._dispatcher = dispatcher
        self._tenant = tenant
        self._events = events
        self._ranking = ranking
        self._analysis = Analysis(self.graph, objective, dispatcher.expected_answer)
        self._closed: CancelledCallError | None = None
        self._on_use = on_use
        self._expectations = Expectations(dispatcher, tenant, self.variables.values)
        self._concurrency = Concurrency(dispatcher.enter)
        self._worklist = Worklist(self._tell)
        self._claims = Claims()
        self._needs = Needs(self.graph, self.planned, self.variables)
        self._prompts = Prompts(self.variables.values)
        self._json = JsonReader()
        self._missing: dict[str, int] = {}
        self._untold: list[Call] = []
        self._reviewing = False

    @property
    def calls(self) -> list[Call]:
        """All calls, the planned ones first."""
        return [*self.planned.values(), *self.requests.values()]

    @property
    def in_use(self) -> bool:
        """Whether somebody reads one of its calls or waits for one of its variables now."""
        return self._needs.reading

    async def add(self, program: Program) -> None:
        """Take a program in, whole or not at all, and start every call whose inputs are there.

        One at a time. A small one is in before anybody else has a turn; of a large one they have turns
        in between, and it must not be cancelled.

        Raises:
            InvalidRequestError: the program does not hold together; `param` says where.
            PayloadTooLargeError: there is too much of it.
            ConflictError: a name in it is taken.
            CancelledCallError: the session was closed meanwhile.
            OverloadedError: the server has no room for so many calls.
            QuotaError: the tenant may not have so many.
        """
        new = len(program.calls) + len(program.transforms)
        check = partial(self.graph.check, program)
        checked = await asyncio.to_thread(check) if new > LARGE else check()
        if self._closed is not None:
            raise self._closed
        given = {name: value for name, value in program.variables.items() if value is not None}
        self.variables.check_room(sum(map(len, given.values())), "variables")
        self._dispatcher.admit(self._tenant, len(program.calls))
        nodes = self._take_in(checked, given)
        await self._worklist.emptied()
        self.review()
        far = self._analysis.reach(new) > LARGE
        place = partial(self._analysis.extend, nodes, self._is_live)
        places = await asyncio.to_thread(place) if far else place()
        self._worklist.add_each(self._rank, places.items())
        self._worklist.add_each(self._begin, nodes)
        self._worklist.add_each(self._expect, program.calls, program.texts)
        self._worklist.run()
        await self._worklist.emptied()

    def write(self, name: str, value: str) -> None:
        """Give an input its value, and start what waited for it.

        Raises:
            NotFoundError: there is no such variable.
            ConflictError: it has a value.
            InvalidRequestError: the value is not valid Unicode, or too long.
        """
        self.variables.check(name, value)
        self._write(name, value)
        self._spread(name, dependent=False)
        self._worklist.run()

    def claim(self, key: str) -> Call | None:
        """The planned call whose rendered request has this key, if one is left."""
        if (call := self._claims.take(key)) is not None:
            call.claimed_at = time.time()
            self.tally.claim(call)
            if not call.ended:
                self._needs.asked.add(call)
            self._concurrency.rerank(call)
            self._events.add("call_claimed", call.id)
        return call

    def run(self, call: Call) -> None:
        """Start a call that was not planned.

        Raises:
            OverloadedError: too many calls are unfinished.
            QuotaError: the tenant has too many, or has used its tokens.
            UnavailableError: the server is shutting down.
        """
        self._dispatcher.admit(self._tenant, 1)
        self.requests[call.id] = call
        self.tally.add(call)
        self._needs.asked.add(call)
        self._dispatcher.track(call)
        self._dispatcher.enter(call)

    def stop_plan(self, error: CancelledCallError) -> None:
        """End what nobody has asked for, and what was left for its sake."""
        calls = list(self.planned.values())
        # What runs comes last, for its end would give its place to what is to be ended next.
        for running in (False, True):
            self._worklist.add_each(self._stop, calls, error, running)
        self._worklist.run()

    def _stop(self, call: Call, error: CancelledCallError, running: bool) -> None:
        unasked = not call.claimed or call in self._needs.left
        if unasked and running is (call.state == "running"):
            call.end("cancelled", error)

    def close(self, error: CancelledCallError) -> None:
        """As `stop_plan`; and nobody will wait for a variable any more."""
        self._closed = error
        self.stop_plan(error)
        self._claims.clear()
        self._worklist.add_each(self._abandon, self.variables.names, error)
        self._worklist.add_each(self._forget, list(self.planned.values()))
        self._worklist.run()

    def _abandon(self, name: str, error: CancelledCallError) -> None:
        if not self.variables.settled(name):
            self.variables.fail(name, error)

    def _forget(self, call: Call) -> None:
        """Nobody can ask for it any more; who has asked is still to be told."""
        if call.ended and not call.claimed:
            call.forget()

    async def settled(self) -> None:
        """Wait until all that follows from what has happened is done."""
        await self._worklist.emptied()

    # As the owner of calls

    def moved(self, call: Call, before: CallState) -> None:
        """A call goes on: it is noted, and by its end its output is settled."""
        self.tally.move(call, before)
        if (kind := _EVENTS.get(call.state)) is not None:
            self._events.add(kind, call.id)
        if call.state == "running" and call.attempts == 1:
            self.conversations.join(call)
        if call.ended:
            self._end(call)

    def first_token(self, call: Call) -> None:
        """It is noted."""
        self._events.add("call_first_token", call.id)

    def left(self, call: Call) -> None:
        """Its last reader has left: it ends, where nobody else needs it.

        While a program is being taken in, not all of those who need it can be seen.
        """
        if not self.graph.is_linked or self._needs.is_needed(call):
            self._needs.left.add(call)
        else:
            call.end("cancelled", CancelledCallError(f"the reader of '{call.id}' left it"))

    def review(self) -> None:
        """Somebody waits no longer, or something failed: what was only for that ends."""
        if self._needs.left and not self._reviewing:
            self._reviewing = True
            self._worklist.add(self._review)
            self._worklist.run()

    def _review(self) -> None:
        self._reviewing = False
        self._worklist.add_each(self._reconsider, list(self._needs.left))

    def _reconsider(self, call: Call) -> None:
        if call in self._needs.left and not call.readers:
            self.left(call)

    def _end(self, call: Call) -> None:
        if self._needs.over(call):
            self._on_use()
        self._untold.append(call)
        if call.error is not None:
            self.review()
        # Where the session was closed, nobody reads the output of a call that went on for its reader.
        if call.output is not None and not self.variables.settled(call.output):
            if call.error is None:
                self._write(call.output, call.text)
            else:
                self._fail(call.output, _rooted(call.error, call))
            self._spread(call.output, dependent=True)
        self._worklist.run()

    # What a program begins with

    def _take_in(self, checked: Checked, given: dict[str, str]) -> list[Node]:
        """Names at once, nodes one by one, each behind those that it reads."""
        nodes = self.graph.commit(checked)
        self.variables.declare(checked.producers)
        for name, value in given.items():
            self._write(name, value)
        self._concurrency.limit(checked.program.concurrency)
        self._worklist.add_each(self._add_node, nodes)
        self._worklist.run()
        return nodes

    def _add_node(self, node: Node) -> None:
        """Whatever is settled from now on finds the node, and what it lacks."""
        self.graph.link(node)
        inputs = self.graph.inputs[node.output]
        self._missing[node.output] = sum(name not in self.variables.values for name in inputs)
        if isinstance(node, SemanticCall):
            self._plan(node)

    def _plan(self, planned: SemanticCall) -> None:
        call = Call(
            planned.id,
            self,
            tenant=self._tenant,
            output=planned.output,
            inputs=self.graph.inputs[planned.output],
            concurrency=planned.concurrency,
        )
        self.planned[call.id] = call
        self.tally.add(call)
        self._dispatcher.track(call)
        self._events.add("call_planned", call.id)
        if self._closed is not None:
            call.end("cancelled", self._closed)

    def _is_live(self, node: Node) -> bool:
        """Whether a node's place still matters."""
        if isinstance(node, SemanticCall):
            call = self.planned.get(node.id)  # a new one is taken in meanwhile
            return call is None or not call.ended
        return not self.variables.settled(node.output)

    def _rank(self, place: tuple[str, Deduction]) -> None:
        """Place a call that has not started; each extension tells more of who needs it."""
        call_id, deduction = place
        call = self.planned[call_id]
        if call.state in ("waiting", "queued"):
            self._ranking.rank_planned(call, deduction)
            if call.state == "queued":
                self._concurrency.rerank(call)
                self._dispatcher.rerank(call)

    def _begin(self, node: Node) -> None:
        """Settle a new node whose inputs are all there, or failed before it came."""
        errors = self.variables.errors
        failed = next((n for n in self.graph.inputs[node.output] if n in errors), None)
        if failed is not None:
            self._fail_node(node, errors[failed])
        elif not self._missing[node.output]:
            self._settle(node, dependent=False)

    def _expect(self, planned: SemanticCall, texts: Sequence[str]) -> None:
        call = self.planned[planned.id]
        if call.state == "waiting":
            self._expectations.add(call, planned, texts)

    # Forward: a settled input settles what reads it

    def _spread(self, name: str, *, dependent: bool) -> None:
        """Have each reader of a settled variable learn of it; `dependent`, by the end of a call."""
        self._expectations.settled(name)
        # A list that later programs add to: they find the variable settled.
        readers = islice(consumers := self.graph.consumers.get(name, ()), len(consumers))
        self._worklist.add_each(self._arrive, readers, name, dependent)

    def _arrive(self, node: Node, name: str, dependent: bool) -> None:
        """One edge: the input `name` of `node` is settled."""
        if (error := self.variables.errors.get(name)) is not None:
            self._fail_node(node, error)
            return
        self._missing[node.output] -= 1
        if not self._missing[node.output]:
            self._settle(node, dependent=dependent)

    def _settle(self, node: Node, *, dependent: bool) -> None:
        """All inputs are there: a transform is applied, a call is rendered and queued."""
        try:
            if isinstance(node, SemanticCall):
                self._render(node, dependent=dependent)
            elif not self.variables.settled(node.output):
                value = render_transform(
                    node,
                    self.variables.values,
                    self.graph.texts[node.output],
                    most=self.variables.room,
                    reader=self._json,
                )
                self._write(node.output, value)
                self._spread(node.output, dependent=dependent)
        except ParrotError as error:
            self._fail_node(node, error)
        except Exception as error:  # no node may be left behind
            self._fail_node(node, EngineError(f"{node.label} can't be settled: {error!r}"))

    def _render(self, planned: SemanticCall, *, dependent: bool) -> None:
        call = self.planned[planned.id]
        if call.state != "waiting":
            return
        texts = self.graph.texts[planned.output]
        model = self._dispatcher.served(planned.model, self._tenant)
        request = self._prompts.render(planned, texts, model)
        request.model = model.name
        self._claims.offer(request.claim_key(), call)
        call.request, call.dependent = request, dependent
        self._prompts.hold(call)
        if (earlier := rewritten(self.graph, planned)) is not None:
            call.draft = self.planned[earlier.id].tokens
        self._dispatcher.limit_time(call)  # also of one that waits for room in its group
        self._concurrency.enter(call)
        if call.dispatched is None and not call.ended:
            self._events.add("call_queued", call.id)

    def _write(self, name: str, value: str) -> None:
        """Give a variable its value, or fail it where that can't be one."""
        try:
            self.variables.write(name, value)
        except InvalidRequestError as error:
            self._fail(name, error)
        else:
            self._events.add("variable_ready", name)

    # Failure: exactly what needs a failed variable fails, with the error of the root

    def _fail(self, name: str, error: ParrotError) -> None:
        if not self.variables.settled(name):
            self.variables.fail(name, error)
            self._events.add("variable_failed", name)

    def _fail_node(self, node: Node, error: ParrotError) -> None:
        if isinstance(node, SemanticCall):
            call = self.planned[node.id]
            if call.state == "waiting":
                state: CallState = (
                    "cancelled" if isinstance(error, CancelledCallError) else "failed"
                )
                call.end(state, error)
        elif not self.variables.settled(node.output):
            self._fail(node.output, error)
            self._spread(node.output, dependent=False)

    def _tell(self) -> None:
        """All that follows has been done, and may be seen."""
        self._json = JsonReader()
        self.variables.tell()
        untold, self._untold = self._untold, []
        for call in untold:
            call.tell_end()


def _rooted(error: ParrotError, call: Call) -> ParrotError:
    """What the dependents of a call get: the first failure, named."""
    if isinstance(error, DependencyError | CancelledCallError):
        return error
    return DependencyError(f"call '{call.id}' failed: {error.message}", param=call.output)
