"""What the serving core costs by itself: per call, and how long it holds up the event loop.

    python benchmarks/serving.py [CALLS ...]

Programs of so many calls (10,000 among them by default) as chains, maps that one call reads, and trees,
on an endpoint that answers each at once with one token: microseconds of processor time per call to
submit, run and close them, the longest time that the loop stood still, and bytes per call. Then calls
that wait for an input and are closed, extensions by one call, a thousand sessions, and tokens that are
streamed. Goals: a map-reduce of 10,000 calls under 5 s in all, no stand-still over 50 ms.
"""

import asyncio
import gc
import sys
import time
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from machine import machine

sys.path.append(str(Path(__file__).parents[1]))
from parrot_backend.endpoints.base import Card, EndpointState, Job
from parrot_backend.engines.base import Delta, EngineStats, ModelCard
from parrot_backend.serving.core import ServingCore
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.sessions.session import Session
from parrot_backend.wire.protocol import Program, SemanticCall
from parrot_backend.wire.text_protocol import LLMRequest
from tests.programs import call, request

SIZES = (1, 100, 10_000)
TICK = 0.001
STREAMS, TOKENS = 100, 200
LIMITS = Limits(calls_per_session=20_000, unfinished_calls=30_000, sessions=2_000)


class InstantEndpoint:
    """Answers with `tokens` tokens, one in each turn of the loop."""

    def __init__(self, tokens: int = 1) -> None:
        self.card = Card(ModelCard("instant", 1_000_000), 32)
        self.state: EndpointState = "ready"
        self.why: str | None = None
        self.tokens = tokens

    def watch(self, changed: Callable[[], None]) -> None:
        """It never changes."""

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """See `Endpoint`."""
        for left in reversed(range(self.tokens)):
            await asyncio.sleep(0)
            yield Delta("x", (1,), 0, None if left else "stop", prompt_tokens=10)

    async def tokenize(self, request: LLMRequest) -> list[int]:
        """See `Endpoint`."""
        return [1]

    def expect(self, examples: Sequence[LLMRequest], tenant: str) -> Callable[[], None]:
        """It keeps nothing."""
        return lambda: None

    def stats(self) -> EngineStats:
        """It counts nothing."""
        return EngineStats()

    def drain(self) -> None:
        """It has nothing to drain."""

    async def aclose(self) -> None:
        """It has nothing to close."""


def chain(count: int) -> Program:
    """Each reads the one before."""
    steps = [call(f"c{i}", f"Go on: {{c{i - 1}.out}}") for i in range(1, count)]
    return Program(calls=[call("c0", "Begin."), *steps])


def map_reduce(count: int) -> Program:
    """One reads all others."""
    maps = [call(f"c{i}", f"Summarize part {i}.") for i in range(count - 1)]
    reads = "".join(f"{{c{i}.out}}" for i in range(count - 1))
    return Program(calls=[*maps, call("reduce", f"Combine: {reads}")])


def tree(count: int) -> Program:
    """Each but the leaves reads two."""

    def node(index: int) -> SemanticCall:
        below = [f"{{c{i}.out}}" for i in (2 * index + 1, 2 * index + 2) if i < count]
        return call(f"c{index}", f"Merge {index}: {''.join(below)}")

    return Program(calls=[node(index) for index in range(count)])


class Watch:
    """Processor time since the last look, and the longest that the loop stood still by then."""

    def __init__(self) -> None:
        self.worst = 0.0
        self._begun = time.process_time()

    def look(self) -> tuple[float, float]:
        """Both, in seconds; both begin anew."""
        spent, worst = time.process_time() - self._begun, self.worst
        self.worst, self._begun = 0.0, time.process_time()
        return spent, worst

    async def tick(self) -> None:
        """Look at the clock every millisecond."""
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(TICK)
            self.worst = max(self.worst, time.perf_counter() - begin - TICK)


@asynccontextmanager
async def serving(tokens: int = 1) -> AsyncIterator[tuple[ServingCore, Watch]]:
    """A core, and a watch that ticks."""
    core, watch = ServingCore(Fleet(Member("instant", InstantEndpoint(tokens))), LIMITS), Watch()
    ticking = asyncio.create_task(watch.tick())
    await asyncio.sleep(5 * TICK)
    watch.look()
    yield core, watch
    ticking.cancel()
    await core.aclose()


async def settled(session: Session, *, waiting: int = 0) -> None:
    """Wait until no call of the session is to come, but those that wait for an input."""
    view = session.view()
    while view.queued or view.running or view.waiting > waiting:
        await asyncio.sleep(TICK)
        view = session.view()


def tell(name: str, count: int, *phases: tuple[str, tuple[float, float]]) -> None:
    """One row."""
    cells = [f"{label} {1e6 * s / count:7.1f} us ({1e3 * w:5.1f} ms)" for label, (s, w) in phases]
    total = sum(spent for _, (spent, _) in phases)
    print(f"{name:<28}{count:>7}  {'  '.join(cells)}  in all {total:6.2f} s", flush=True)


async def run(name: str, program: Program) -> None:
    """Submit, run and close a program."""
    count = len(program.calls)
    async with serving() as (core, watch):
        session = core.tenancy().open()
        await session.submit(program)
        submitted = watch.look()
        await settled(session)
        ran = watch.look()
        core.tenancy().close(session.id)
        await session.settled()
        await asyncio.sleep(3 * TICK)
        tell(name, count, ("submit", submitted), ("run", ran), ("close", watch.look()))


async def close_waiting(count: int) -> None:
    """A program that waits for an input is closed, and what its calls hold is counted before."""
    program = Program(
        variables={"late": None}, calls=[call(f"c{i}", f"{i} {{late}}") for i in range(count)]
    )
    async with serving() as (core, watch):
        gc.collect()
        tracemalloc.start()
        session = core.tenancy().open()
        await session.submit(program)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        watch.look()
        core.tenancy().close(session.id)
        await session.settled()
        await asyncio.sleep(3 * TICK)
        tell("waiting, closed", count, ("close", watch.look()))
        print(f"{'':<28}{'':>7}  {held / count:.0f} bytes per waiting call, beside the program")


async def extend(count: int) -> None:
    """A chain that grows by a call at a time, while the first waits for an input."""
    async with serving() as (core, watch):
        session = core.tenancy().open()
        await session.submit(Program(variables={"late": None}, calls=[call("c0", "{late}")]))
        for index in range(1, count):
            await session.submit(Program(calls=[call(f"c{index}", f"{{c{index - 1}.out}}")]))
            if not index % 20:
                await asyncio.sleep(0)
        tell("extended by one", count, ("submit", watch.look()))


async def many_sessions(count: int) -> None:
    """Each with a map-reduce of ten calls."""
    async with serving() as (core, watch):
        sessions = [core.tenancy().open() for _ in range(count)]
        for session in sessions:
            await session.submit(map_reduce(10))
            await asyncio.sleep(0)
        submitted = watch.look()
        for session in sessions:
            await settled(session)
        ran = watch.look()
        views = [session.view() for session in core.tenancy().sessions()]
        listed = watch.look()
        for session in sessions:
            core.tenancy().close(session.id)
            await asyncio.sleep(0)
        phases = (("submit", submitted), ("run", ran), ("list", listed), ("close", watch.look()))
        tell(f"{len(views)} sessions of 10 calls", 10 * count, *phases)


async def stream(streams: int, tokens: int) -> None:
    """Calls that are read as they go on."""
    async with serving(tokens) as (core, watch):

        async def read(number: int) -> None:
            async for _ in core.tenancy().run(request(f"stream {number}")).read():
                pass

        await asyncio.gather(*(read(number) for number in range(streams)))
        tell(f"tokens of {streams} streams", streams * tokens, ("token", watch.look()))


async def main(sizes: Sequence[int]) -> None:
    """All of it."""
    print(machine())
    print("processor time per call or token (in brackets the longest stand-still of the loop)")
    for count in sizes:
        for shape in (chain, map_reduce, tree):
            await run(shape.__name__.replace("_", "-"), shape(count))
    await close_waiting(max(sizes))
    await extend(max(sizes))
    await many_sessions(1000)
    await stream(STREAMS, TOKENS)


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], 1000)  # as the server does
    asyncio.run(main([int(size) for size in sys.argv[1:]] or SIZES))
