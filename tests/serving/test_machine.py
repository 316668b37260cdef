"""Anything in any order: what clients, the engine and time can do, and what holds after each step."""

import asyncio
from collections import Counter
from contextlib import aclosing, suppress
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from parrot_backend.serving.call import Call
from parrot_backend.serving.core import ServingCore
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.sessions.session import Session
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.errors import ParrotError
from parrot_backend.wire.protocol import CallScope, Program
from tests.programs import call, join, request
from tests.serving.staged import StagedEndpoint, answer_to, prompt_of

TENANTS = (Tenant("one"), Tenant("two", calls=30))
LIMITS = Limits(unfinished_calls=60, sessions=6, attempts=3)


VISITED: Counter[str] = Counter()
"""How often the machine was where it is to be looked at."""


class Reader:
    """Somebody who reads a call, from a task of their own."""

    def __init__(self, call: Call, answer: str, loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.answer = answer
        self.text = ""
        self.error: ParrotError | None = None
        self.task = loop.create_task(self._read())

    async def _read(self) -> None:
        try:
            async with aclosing(self.call.read()) as deltas:
                async for delta in deltas:
                    self.text += delta.text
        except ParrotError as error:
            self.error = error


class Machine(RuleBasedStateMachine):
    """Every rule is something that may happen; after each the loop runs until it has nothing to do."""

    sessions = Bundle("sessions")
    readers = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.endpoint = StagedEndpoint(slots=3)
        self.core = self.do(self._open_core())
        self.now_reading: list[Reader] = []
        self.waiting: list[asyncio.Task[str]] = []
        self.all_sessions: list[Session] = []
        self.loose: list[Call] = []
        self.prompts: dict[Call, str] = {}
        self.count = 0

    async def _open_core(self) -> ServingCore:
        return ServingCore(Fleet(Member("one", self.endpoint)), LIMITS)

    def do(self, work: Any) -> Any:
        """Run something and all that follows from it."""

        async def act() -> Any:
            result = await work
            for _ in range(12):
                await asyncio.sleep(0)
            return result

        return self.loop.run_until_complete(act())

    def at_once(self, act: Any, *arguments: Any) -> Any:
        async def work() -> Any:
            return act(*arguments)

        return self.do(work())

    # What clients do

    @rule(target=sessions, tenant=st.sampled_from(TENANTS))
    def open(self, tenant: Tenant) -> Session | None:
        with suppress(ParrotError):
            session = self.at_once(self.core.tenancy(tenant).open)
            self.all_sessions.append(session)
            return session
        return None

    @rule(
        session=sessions, shape=st.sampled_from(["map", "chain", "alone", "input"]), data=st.data()
    )
    def submit(self, session: Session | None, shape: str, data: st.DataObject) -> None:
        """Also an extension, of what is there already."""
        if session is None or session.closed:
            return
        number = self.count = self.count + 1
        known = [*session._executor.planned.values()]
        earlier = data.draw(st.sampled_from(known)).output if known else None
        before = f"{{{earlier}}}" if earlier else ""
        names = [f"p{number}.{i}" for i in range(4)]
        variables: dict[str, str | None] = {}
        transforms = []
        if shape == "map":
            calls = [call(name, f"{name} {before}") for name in names[:3]]
            transforms = [join(f"j{number}", "+", *(f"{{{c.output}}}" for c in calls))]
            calls.append(call(names[3], f"sum {{j{number}}}"))
        elif shape == "chain":
            calls = [call(names[0], f"{number} {before}")]
            calls += [call(n, f"{{{p}.out}}!") for p, n in pairwise(names)]
        elif shape == "alone":
            calls = [call(names[0], f"alone {number}")]
        else:
            variables = {f"v{number}": None}
            calls = [call(names[0], f"{{v{number}}} {before}")]
        with suppress(ParrotError):
            program = Program(variables=variables, transforms=transforms, calls=calls)
            self.do(session.submit(program))

    @rule(session=sessions, data=st.data())
    def set_variable(self, session: Session | None, data: st.DataObject) -> None:
        if session is not None and not session.closed:
            producers = session._executor.graph.producers
            free = [name for name, producer in producers.items() if producer is None]
            if free:
                with suppress(ParrotError):
                    self.at_once(session.set_variable, data.draw(st.sampled_from(free)), "value")

    @rule(target=readers, session=sessions, data=st.data())
    def claim(self, session: Session | None, data: st.DataObject) -> Reader | None:
        if session is None or session.closed:
            return None
        known = [c for c in session._executor.planned.values() if c in self.prompts]
        if not known:
            return None
        known = [c for c in known if not (c.ended or c.claimed)] or known
        text = self.prompts[data.draw(st.sampled_from(known))]
        return self._read(text, lambda asked: session.take(asked))

    @rule(target=readers, session=sessions, objective=st.sampled_from(["latency", "throughput"]))
    def ask(self, session: Session | None, objective: Any) -> Reader | None:
        if session is None or session.closed:
            return None
        self.count += 1
        scope = CallScope(objective=objective)
        return self._read(f"new {self.count}", lambda asked: session.take(asked, scope))

    @rule(target=readers, tenant=st.sampled_from(TENANTS), thread=st.sampled_from([None, "chat"]))
    def ask_outside(self, tenant: Tenant, thread: str | None) -> Reader | None:
        self.count += 1
        text, scope = f"loose {self.count}", CallScope(thread=thread)
        run = self.core.tenancy(tenant).run
        return self._read(text, lambda asked: run(asked, scope), loose=True)

    def _read(self, text: str, take: Any, *, loose: bool = False) -> Reader | None:
        async def begin() -> Reader | None:
            try:
                taken = take(request(text))
            except ParrotError:
                return None
            if loose:
                self.loose.append(taken)
            VISITED["claimed before the end"] += taken.claimed and not taken.ended
            return Reader(taken, answer_to(text), self.loop)

        reader = self.do(begin())
        if reader is not None:
            self.now_reading.append(reader)
        return reader

    @rule(reader=consumes(readers))
    def leave(self, reader: Reader | None) -> None:
        if reader is not None:
            VISITED["left before the end"] += not reader.call.ended
            self.at_once(reader.task.cancel)
            if reader in self.now_reading:
                self.now_reading.remove(reader)

    @rule(session=sessions, data=st.data())
    def wait(self, session: Session | None, data: st.DataObject) -> None:
        if session is not None and (names := list(session._executor.graph.producers)):
            name = data.draw(st.sampled_from(names))

            async def begin() -> asyncio.Task[str]:
                return self.loop.create_task(session.read_variable(name, 100))

            self.waiting.append(self.do(begin()))

    @rule(data=st.data())
    def wait_no_longer(self, data: st.DataObject) -> None:
        pending = [task for task in self.waiting if not task.done()]
        if pending:
            self.at_once(data.draw(st.sampled_from(pending)).cancel)

    @rule(session=sessions, rarely=st.integers(0, 5))
    def close(self, session: Session | None, rarely: int) -> None:
        if session is not None and not session.closed and not rarely:
            calls = session._executor.planned.values()
            VISITED["closed"] += 1
            VISITED["closed under a claimed call"] += any(c.claimed and not c.ended for c in calls)
            VISITED["closed under a planned call"] += any(c.state == "running" for c in calls)
            self.at_once(self.core.tenancy(session.tenant).close, session.id)

    @rule(session=sessions, claim=st.booleans())
    def begin_and_close(self, session: Session | None, claim: bool) -> None:
        """In the midst of it all, as clients do that have what they wanted."""
        if session is None or session.closed:
            return
        self.count += 1
        names = [f"q{self.count}.{i}" for i in range(3)]
        calls = [call(names[0], names[0])]
        calls += [call(n, f"{{{p}.out}}!") for p, n in pairwise(names)]
        with suppress(ParrotError):
            self.do(session.submit(Program(calls=calls)))
            if claim:
                self._read(names[0], session.take)
            self.close(session, 0)

    # What the engine and time do

    @rule(data=st.data(), characters=st.integers(1, 12))
    def go_on(self, data: st.DataObject, characters: int) -> None:
        if self.endpoint.jobs:
            job = data.draw(st.sampled_from(sorted(self.endpoint.jobs)))
            self.at_once(self.endpoint.jobs[job].go_on, characters)

    @rule()
    def all_go_on(self) -> None:
        for job in list(self.endpoint.jobs.values()):
            self.at_once(job.go_on, 20)

    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        if self.endpoint.jobs:
            job = data.draw(st.sampled_from(sorted(self.endpoint.jobs)))
            self.at_once(self.endpoint.fail, self.endpoint.jobs[job])

    @rule()
    def down(self) -> None:
        if self.endpoint.state == "ready":
            VISITED["lost under a call"] += bool(self.endpoint.jobs)
            self.at_once(self.endpoint.down)

    @rule()
    def up(self) -> None:
        if self.endpoint.state == "dead":
            self.at_once(self.endpoint.up)

    @rule(session=sessions, seconds=st.sampled_from([100.0, 1000.0]))
    def silence(self, session: Session | None, seconds: float) -> None:
        """Nobody has used the session for a while."""
        if session is not None:
            session.last_used -= seconds
            self.at_once(self.core.tenancy(session.tenant).expire)

    # What always holds

    @property
    def calls(self) -> list[Call]:
        threads = [s for t in TENANTS for s in self.core.tenancy(t).sessions()]
        sessions = {id(s): s for s in (*self.all_sessions, *threads)}.values()
        found = [c for session in sessions for c in session._executor.calls]
        return list({id(c): c for c in (*found, *self.loose)}.values())

    @invariant()
    def what_runs_is_what_is_called_running(self) -> None:
        running = [c for c in self.calls if c.state == "running"]
        jobs = [job for job in self.endpoint.jobs.values() if self.endpoint.state == "ready"]
        assert len(jobs) == (len(running) if self.endpoint.state == "ready" else 0)
        if self.endpoint.state == "ready":
            queued = [c for c in self.calls if c.state == "queued"]
            assert len(jobs) == 3 or not queued, "a place is free, and somebody waits for one"

    @invariant()
    def nothing_runs_that_nobody_needs(self) -> None:
        for each in self.calls:
            if each.ended or each.state == "waiting":
                continue
            owner = each._owner
            planned = each.planned and not each.claimed
            needs = getattr(owner, "_needs", None)
            left = needs is not None and each in needs.left and needs.is_needed(each)
            assert planned or each.readers or left

    @invariant()
    def what_is_counted_is_there(self) -> None:
        for session in self.all_sessions:
            states = [each.state for each in session._executor.calls]
            view = session.view()
            for state in ("waiting", "queued", "running", "done", "failed", "cancelled"):
                assert getattr(view, state) == states.count(state)

    @invariant()
    def an_output_is_the_answer_to_its_prompt(self) -> None:
        for session in self.all_sessions:
            values = session._executor.variables.values
            for each in session._executor.planned.values():
                if each.state in ("queued", "running"):
                    self.prompts[each] = prompt_of(each.request)
                elif each.state == "done" and each in self.prompts and each.output in values:
                    assert values[each.output] == answer_to(self.prompts[each])
                    VISITED["answered"] += 1

    @invariant()
    def readers_get_the_answer_or_an_error(self) -> None:
        for reader in self.now_reading:
            assert reader.answer.startswith(reader.text)
            if reader.task.done() and not reader.task.cancelled():
                assert reader.error is not None or reader.text == reader.answer
                assert reader.call.ended
            else:
                assert not reader.call.ended

    @invariant()
    def what_is_settled_has_settled_what_reads_it(self) -> None:
        for session in self.all_sessions:
            executor = session._executor
            for each in executor.planned.values():
                if each.state == "waiting":
                    inputs = executor.graph.inputs[each.output]
                    assert not any(name in executor.variables.errors for name in inputs)
                    assert not all(name in executor.variables.values for name in inputs)

    def teardown(self) -> None:
        """Once the engine works, all comes to an end; and then nothing is left."""
        try:
            self.up()
            for _ in range(500):
                if not self.endpoint.jobs:
                    break
                self.all_go_on()
            assert not [c for c in self.calls if c.state in ("queued", "running")]
            assert all(reader.task.done() for reader in self.now_reading)
            for session in [s for t in TENANTS for s in self.core.tenancy(t).sessions()]:
                if not session.closed:
                    self.at_once(self.core.tenancy(session.tenant).close, session.id)
            assert all(call.ended for call in self.calls)
            assert all(task.done() for task in self.waiting)
            assert self.endpoint.expected == 0
            self.do(self.core.aclose())
            assert asyncio.all_tasks(self.loop) == set()
            for each in self.calls:
                each.release()
                assert each._deltas == [] or not each.claimed
            with suppress(ParrotError, asyncio.CancelledError):
                for task in self.waiting:
                    with suppress(ParrotError, asyncio.CancelledError):
                        task.exception()
        finally:
            self.loop.close()


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=100,
    stateful_step_count=200,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_the_machine_was_where_it_is_to_be_looked_at() -> None:
    """Behind the machine, which goes on where chance kept it away: of the rest it says nothing."""
    places = (
        "answered",
        "claimed before the end",
        "closed under a claimed call",
        "closed under a planned call",
        "left before the end",
        "lost under a call",
    )
    for _ in range(5):
        if all(VISITED[place] > 20 for place in places):
            break
        run_state_machine_as_test(Machine, settings=TestMachine.settings)
    print(VISITED)
    for place in places:
        assert VISITED[place] > 20, place
