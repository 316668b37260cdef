"""Workloads in the shapes of Parrot's paper (OSDI'24, section 8), for `placement.py`.

Prompts are numbers: of each block of `BLOCK` tokens, with all that is before it.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count

BLOCK = 16


@dataclass(slots=True, eq=False)
class Task:
    """A call that comes `at` so many seconds, counted from the last of those that it comes `after`."""

    number: int
    at: float
    tenant: str
    session: str
    blocks: tuple[int, ...]
    tokens: int
    answer: int
    interactive: bool = True
    application: int | None = None
    group: object = None
    group_size: int = 1
    after: Sequence["Task"] = ()


Part = tuple[object, int]
"""What a text is, and its tokens."""

Workload = Callable[[random.Random, int, int], list[Task]]
"""Of so many engines, and tasks for each."""


class Prompts:
    """Blocks of prompts that are made of parts; those that begin alike share them."""

    def __init__(self) -> None:
        self.numbers = count()

    def task(
        self,
        at: float,
        tenant: str,
        session: str,
        parts: Sequence[Part],
        answer: int,
        **more: object,
    ) -> Task:
        """A task with a prompt of these parts."""
        blocks, number, tokens = [], hash(tenant), 0
        for text, length in parts:
            for end in range(BLOCK - tokens % BLOCK, length + 1, BLOCK):
                number = hash((number, text, end))
                blocks.append(number)
            tokens += length
        return Task(next(self.numbers), at, tenant, session, tuple(blocks), tokens, answer, **more)


def arrivals(dice: random.Random, rate: float) -> Iterator[float]:
    """Random times at so many a second."""
    now = 0.0
    while True:
        now += dice.expovariate(rate)
        yield now


def _zipf(dice: random.Random, items: int, power: float) -> int:
    return dice.choices(range(items), [1 / (n + 1) ** power for n in range(items)])[0]


def shared_prompts(dice: random.Random, engines: int, tasks: int) -> list[Task]:
    """Users of 40 applications, the first of them most, with instructions of 1,000 to 4,000 tokens."""
    prompts, lengths = Prompts(), [dice.randrange(1000, 4000) for _ in range(40)]
    made = []
    for at, number in zip(arrivals(dice, 4.0 * engines), range(tasks * engines), strict=False):
        app, user = _zipf(dice, 40, 1.0), dice.randrange(20 * engines)
        parts = [(f"app {app}", lengths[app]), (f"query {number}", dice.randrange(20, 200))]
        made.append(
            prompts.task(at, f"tenant {app % 8}", f"user {user}", parts, dice.randrange(40, 200))
        )
    return made


def chat_and_map_reduce(dice: random.Random, engines: int, tasks: int) -> list[Task]:
    """Chats with histories, and documents that are summarized in 16 parts under one instruction."""
    prompts, made = Prompts(), []
    for chat, at in zip(range(tasks * engines // 12), arrivals(dice, 0.25 * engines), strict=False):
        made += _chat(dice, prompts, chat, at)
    for app, at in zip(range(tasks * engines // 34), arrivals(dice, 0.06 * engines), strict=False):
        tenant, session, head = f"tenant {app % 4}", f"document {app}", ("map", 200)
        maps = [
            prompts.task(
                at,
                tenant,
                session,
                [head, (f"part {app} {n}", 1000)],
                dice.randrange(40, 80),
                interactive=False,
                application=app,
                group=app,
                group_size=16,
            )
            for n in range(16)
        ]
        parts = [("reduce", 200)] + [(f"summary {app} {n}", 60) for n in range(16)]
        last = prompts.task(
            0.0, tenant, session, parts, 150, interactive=False, application=app, after=maps
        )
        made += [*maps, last]
    return made


def _chat(dice: random.Random, prompts: Prompts, chat: int, at: float) -> Iterator[Task]:
    parts: list[Part] = [("assistant", 300)]
    before: Sequence[Task] = ()
    for turn in range(6):
        parts = [*parts, (f"question {chat} {turn}", dice.randrange(20, 200))]
        task = prompts.task(
            at,
            f"tenant {4 + chat % 4}",
            f"chat {chat}",
            parts,
            dice.randrange(60, 250),
            after=before,
        )
        yield task
        parts = [*parts, (f"answer {chat} {turn}", task.answer)]
        before, at = [task], dice.uniform(2.0, 8.0)


def multi_agent(dice: random.Random, engines: int, tasks: int) -> list[Task]:
    """Applications of four roles that take turns, each with all that was said before."""
    prompts, made = Prompts(), []
    for app, at in zip(range(tasks * engines // 20), arrivals(dice, 0.12 * engines), strict=False):
        said: list[Part] = [(f"task {app}", 400)]
        before: Sequence[Task] = ()
        for turn in range(5):
            turns = []
            for role in range(4):
                parts = [(f"role {role}", 600), *said]
                turns.append(
                    prompts.task(
                        at,
                        f"tenant {app % 8}",
                        f"app {app}",
                        parts,
                        dice.randrange(80, 300),
                        interactive=False,
                        application=app,
                        after=before,
                        group=(app, turn),
                        group_size=4,
                    )
                )
            made += turns
            said = [
                *said,
                *[(f"said {app} {turn} {n}", task.answer) for n, task in enumerate(turns)],
            ]
            before, at = turns, 0.0
    return made


def fan_out(
    dice: random.Random,
    engines: int,
    tasks: int,
    shared: int = 6000,
    siblings: int = 24,
    rate: float = 0.15,
) -> list[Task]:
    """Each time some questions about one text that nobody has seen before."""
    prompts, made = Prompts(), []
    for app, at in zip(
        range(1 + tasks * engines // siblings), arrivals(dice, rate * engines), strict=False
    ):
        for question in range(siblings):
            parts = [(f"text {app}", shared), (f"question {app} {question}", 50)]
            made.append(
                prompts.task(
                    at,
                    f"tenant {app % 8}",
                    f"app {app}",
                    parts,
                    dice.randrange(30, 100),
                    interactive=False,
                    application=app,
                    group=app,
                    group_size=siblings,
                )
            )
    return made


few_slots = partial(fan_out, shared=3000, siblings=8, rate=0.02)
"""As many at once as a llama.cpp on a processor gets: 8 siblings over 3,000 tokens."""


def nothing_shared(dice: random.Random, engines: int, tasks: int) -> list[Task]:
    """Prompts of 300 to 3,000 tokens that have nothing in common, half of them chats."""
    prompts, made = Prompts(), []
    for at, number in zip(arrivals(dice, 2.2 * engines), range(tasks * engines), strict=False):
        parts = [(f"prompt {number}", dice.randrange(300, 3000))]
        made.append(
            prompts.task(
                at,
                f"tenant {number % 8}",
                f"user {dice.randrange(20 * engines)}",
                parts,
                dice.randrange(40, 300),
                interactive=bool(number % 2),
            )
        )
    return made


WORKLOADS: dict[str, Workload] = {
    "shared prompts": shared_prompts,
    "chat + map-reduce": chat_and_map_reduce,
    "multi-agent": multi_agent,
    "fan-out": fan_out,
    "fan-out on slots": few_slots,
    "nothing shared": nothing_shared,
}
