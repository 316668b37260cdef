"""Any order of events: no engine that isn't ready or is full is chosen, and nobody waits for nobody."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from parrot_backend.serving.placement.views import EngineView, PlacedCall
from tests.serving.placement.staged import Fleet, a_call, engine

PATHS = st.sampled_from(
    ["", "a", "s" * 8, "s" * 8 + "a", "s" * 8 + "t" * 8, "s" * 8 + "t" * 8 + "b"]
)
ENGINES = st.builds(
    engine,
    st.just(""),
    st.integers(1, 3),
    sharing=st.sampled_from(["batch", "computed", "slot"]),
    weight=st.sampled_from([0.5, 1.0, 2.0]),
    kv_tokens=st.sampled_from([None, 4096, 100_000]),
    ready=st.booleans(),
)


class Placing(RuleBasedStateMachine):
    """`queue` are those that may choose, as a dispatcher has them; the others run, or are parked."""

    @initialize(engines=st.lists(ENGINES, min_size=1, max_size=12), seed=st.integers(0, 5))
    def begin(self, engines: list[EngineView], seed: int) -> None:
        named = [replace(view, name=f"{n}") for n, view in enumerate(engines)]
        self.fleet = Fleet(*named, seed=seed)
        self.queue: dict[PlacedCall, None] = {}
        self.parked: dict[PlacedCall, None] = {}
        self.told: set[PlacedCall] = set()

    def back(self, free: list[PlacedCall]) -> None:
        assert len(set(free)) == len(free)
        for call in free:
            if call in self.parked:  # else it is in the queue, or was never in it
                del self.parked[call]
            else:
                raise AssertionError("somebody came back who had not waited")
            self.queue[call] = None

    @rule(
        path=PATHS,
        tenant=st.sampled_from("xy"),
        group=st.sampled_from([None, "g", "h"]),
        interactive=st.booleans(),
        answer=st.sampled_from([1.0, 500.0]),
    )
    def come(
        self, path: str, tenant: str, group: str | None, interactive: bool, answer: float
    ) -> None:
        call = a_call(
            path,
            64 * len(path) + 30,
            tenant,
            group=group,
            group_size=4,
            interactive=interactive,
            answer_tokens=answer,
        )
        self.fleet.placement.entered(call)
        self.queue[call] = None

    @rule()
    def fill(self) -> None:
        for call in [*self.queue]:
            views = {view.name: view for view in self.fleet.views}
            if not any(view.free for view in views.values()):
                return
            del self.queue[call]
            if (name := self.fleet.ask(call)) is None:
                self.parked[call] = None
            else:
                assert views[name].ready
                assert views[name].free > 0

    @rule(data=st.data(), seconds=st.sampled_from([0.0, 0.1, 30.0]), cached=st.integers(0, 2000))
    def first(self, data: st.DataObject, seconds: float, cached: int) -> None:
        if self.fleet.running:
            self.fleet.clock.now += seconds
            call = data.draw(st.sampled_from([*self.fleet.running]))
            told = {} if cached > 1000 else {"cached_tokens": cached, "prompt_tokens": 1000}
            self.back(self.fleet.first(call, **told))

    @rule(data=st.data(), answer=st.integers(0, 600), again=st.booleans())
    def end(self, data: st.DataObject, answer: int, again: bool) -> None:
        """One of any ends, or its attempt does."""
        everybody = [*self.fleet.running, *self.queue, *self.parked]
        if everybody:
            call = data.draw(st.sampled_from(everybody))
            self.queue.pop(call, None)
            self.parked.pop(call, None)
            self.back(self.fleet.end(call, answer))
            if again:
                self.queue[call] = None

    @rule(data=st.data(), back=st.booleans())
    def lose(self, data: st.DataObject, back: bool) -> None:
        name = data.draw(st.sampled_from([*self.fleet.engines]))
        lost = [call for call, at in self.fleet.running.items() if at == name]
        for call in lost:
            del self.fleet.running[call]
        self.back(self.fleet.placement.lost(name))
        self.queue.update(dict.fromkeys(lost))
        self.fleet.engines[name] = replace(self.fleet.engines[name], ready=back)
        self.back(self.fleet.placement.changed())

    @invariant()
    def who_is_parked_is_kept_and_waits_for_one_that_comes_to_an_end(self) -> None:
        if not hasattr(self, "fleet"):
            return
        waits = self.fleet.placement._waits
        assert set(waits._waits) == set(self.parked)
        for call in self.parked:
            seen = set()
            while call in self.parked and (leader := waits._waits[call].line.leader) is not None:
                assert leader not in seen  # no circle
                seen.add(leader)
                assert leader in self.fleet.running or leader in self.queue or leader in self.parked
                call = leader
            if call in self.parked and (name := waits._waits[call].engine) is not None:
                assert name in self.fleet.running.values()

    @invariant()
    def books_agree_with_what_runs(self) -> None:
        if hasattr(self, "fleet"):
            placement = self.fleet.placement
            assert {c: run.engine for c, run in placement._runs.items()} == self.fleet.running
            runs = sum(len(book.runs) for book in placement._books.values())
            assert runs == len(self.fleet.running)
            for book in placement._books.values():
                assert book.bulk.calls + book.chats.calls == len(book.runs)
                assert book.pending >= 0
                assert len(book.prefixes) <= book.prefixes.tokens // 64 + 1

    def teardown(self) -> None:
        """All engines are ready, and everybody who waits has an end."""
        if not hasattr(self, "fleet"):
            return
        for name, view in self.fleet.engines.items():
            self.fleet.engines[name] = replace(view, ready=True)
        self.back(self.fleet.placement.changed())
        while self.queue or self.parked or self.fleet.running:
            self.fill()
            assert self.fleet.running, "somebody waits for ever"
            call = next(iter(self.fleet.running))
            self.fleet.clock.now += 1.0
            self.back(self.fleet.first(call))
            self.back(self.fleet.end(call, 10))
        assert len(self.fleet.placement) == 0
        for book in self.fleet.placement._books.values():
            assert not book.runs
            assert not book._computing
            assert (book.pending, book.bulk.seconds, book.chats.tokens) == (0, 0, 0)


TestPlacing = Placing.TestCase
TestPlacing.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
