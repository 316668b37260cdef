"""A case as it is and compiled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from parrot_integrations.llama_index import Parrot, compile
from parrot_integrations.planning.session import PlannedSession
from tests.integrations.llama_index.compiling.answers import AnsweringEngine, Answers
from tests.integrations.llama_index.compiling.drawn.case import Case, World
from tests.integrations.llama_index.compiling.drawn.kinds import KINDS
from tests.integrations.llama_index.compiling.hearing import Callbacks
from tests.integrations.llama_index.compiling.watching import Seen, settings, watch
from tests.servers import serving

Change = Callable[[Any], Any]


def compiling(sessions: list[PlannedSession]) -> Change:
    return lambda subject: compile(subject, on_session=sessions.append)


@contextmanager
def bench() -> Iterator["Bench"]:
    """A bench over a server of its own."""
    engine = AnsweringEngine()
    with serving(engine) as url:
        yield Bench(url, engine)


class Bench:
    """Draws cases and runs them, at a server over `engine`; None where it is a real one."""

    def __init__(self, url: str, engine: AnsweringEngine | None = None, **llm: Any) -> None:
        self._engine = engine
        self._llm = {"base_url": url, "temperature": 0, "max_retries": 0, **llm}

    def run(self, kind: str, seed: int, change: Change | None = None) -> tuple[Seen, Case]:
        """A case's run, after `change` of what it is about."""
        rng = Random(f"{kind} {seed}")
        if self._engine is not None:
            self._engine.answers = Answers(seed, rng.choice([3, 12, 30]))
        settled = {"max_tokens": rng.choice([24, 40, 64]), **self._llm}
        if rng.random() < 0.15:
            settled["system_prompt"] = "Be brief."
        world, callbacks = World(rng, Parrot(**settled)), Callbacks()
        with settings(world.llm, world.embed_model, callbacks):
            case = KINDS[kind](world)
            subject = case.subject if change is None else change(case.subject)
            world.calls.clear()
            case.whole = self._engine is None
            seen = watch(lambda: case.run(subject), callbacks, world.calls, case.whole)
            return seen, case
