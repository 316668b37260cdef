"""What the dispatcher takes of the event loop for each call, by the number of those that wait.

    python benchmarks/dispatch.py [WAITING ...]

Microseconds of processor time for a call that enters, a decision, and the end of one that waits: of the
policies alone, and of the dispatcher with its timers, tables and tasks, on an endpoint that answers at
once. A decision is to be below 50 us at 10,000 waiting.
"""

import asyncio
import gc
import random
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from machine import machine

sys.path.append(str(Path(__file__).parents[1]))
from parrot_backend.endpoints.base import Card, Job
from parrot_backend.engines.base import Delta, ModelCard
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.dispatcher import Dispatcher
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.dispatch.graph_policy import GraphPolicy
from parrot_backend.serving.dispatch.policy import FirstCome, LongestPrefixFirst, Policy
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.rank import Rank
from parrot_backend.serving.tenants import Tenant
from parrot_backend.wire.messages import ChatMessage
from parrot_backend.wire.protocol import ChatRequest
from tests.serving.dispatch.doubles import Book, StagedEndpoint

WAITING = (100, 1_000, 10_000, 100_000)
POLICIES: dict[str, Callable[[], Policy]] = {
    "first come": FirstCome,
    "longest prefix": LongestPrefixFirst,
    "graph": lambda: GraphPolicy(30.0),
}
_SLOTS = 32


class InstantEndpoint(StagedEndpoint):
    """Answers each job with one token."""

    def __init__(self) -> None:
        super().__init__()
        self.card = Card(ModelCard("instant", 1000), _SLOTS)

    async def generate(self, job: Job) -> AsyncGenerator[Delta, None]:
        """See `Endpoint`."""
        yield Delta("x", (1,), 0, "stop", prompt_tokens=300)


def calls(count: int) -> list[Call]:
    """Of ten tenants, in applications of about a hundred, with one of ten instructions each."""
    dice, owner = random.Random(1), Book()
    instructions = [f"{n}" + "You are given a text. " * 50 for n in range(10)]
    tenants = [Tenant(f"{n}") for n in range(10)]
    made = []
    for number in range(count):
        text = dice.choice(instructions) + str(number)
        request = ChatRequest(messages=[ChatMessage(role="user", content=text)], temperature=0)
        call = Call(str(number), owner, request, tenant=dice.choice(tenants))
        call.rank = Rank(
            critical=dice.random() < 0.5,
            batched=dice.random() < 0.5,
            application=dice.randrange(count // 100 + 1),
            group=dice.randrange(3),
            path=dice.randrange(1, 5),
            work=float(dice.randrange(1, 500)),
            site=str(dice.randrange(50)),
        )
        made.append(call)
    return made


def microseconds(act: Callable[[Call], object], each: Sequence[Call]) -> float:
    """The mean of an act over some calls."""
    start = time.thread_time()
    for call in each:
        act(call)
    return (time.thread_time() - start) / len(each) * 1e6


def of_policy(policy: Policy, waiting: list[Call]) -> tuple[float, float, float]:
    """Enter all, decide about half, each at a cost, and let the other half go."""
    enter = microseconds(policy.enter, waiting)
    half = len(waiting) // 2

    def decide(_: Call) -> None:
        if (turn := policy.next(policy.tiers)) is not None:
            policy.charge(turn.call, 200.0)
            policy.charge(turn.call, -50.0)

    decision = microseconds(decide, waiting[:half])
    end = microseconds(policy.remove, waiting)
    assert len(policy) == 0
    return enter, decision, end * 2


async def of_dispatcher(policy: Policy, waiting: list[Call]) -> tuple[float, float, float, float]:
    """Enter, then run a half of them and end the other half; and the longest step of the loop."""
    endpoint = InstantEndpoint()
    endpoint.state = "starting"
    limits = Limits(unfinished_calls=len(waiting), call_seconds=3600.0)
    dispatcher = Dispatcher(Fleet(Member("one", endpoint)), limits, lambda: policy)

    def enter(call: Call) -> None:
        dispatcher.admit(call.tenant, 1)
        dispatcher.track(call)
        dispatcher.enter(call)

    entering = microseconds(enter, waiting)
    end = microseconds(lambda call: call.end("cancelled"), waiting[::2])
    longest, last = 0.0, time.thread_time()
    start = last
    endpoint.become("ready")
    while dispatcher._held:
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    run = (time.thread_time() - start) / (len(waiting) // 2) * 1e6
    await dispatcher.aclose()
    return entering, run, end, longest * 1e3


def main(counts: Sequence[int]) -> None:
    """Print both tables."""
    print(machine())
    print(f"\n{'policy':<16}{'waiting':>10}{'enter':>10}{'decision':>10}{'end':>10}   us")
    for name, make in POLICIES.items():
        for count in counts:
            waiting = calls(count)
            gc.collect()
            times = of_policy(make(), waiting)
            print(f"{name:<16}{count:>10}" + "".join(f"{t:>10.1f}" for t in times), flush=True)
    print(f"\n{'dispatcher':<16}{'waiting':>10}{'enter':>10}{'run':>10}{'end':>10}   us", end="")
    print("   longest step, ms")
    for name, make in POLICIES.items():
        for count in counts:
            waiting = calls(count)
            gc.collect()
            *times, longest = asyncio.run(of_dispatcher(make(), waiting))
            row = "".join(f"{t:>10.1f}" for t in times)
            print(f"{name:<16}{count:>10}{row}{longest:>12.1f}", flush=True)


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]] or WAITING)
