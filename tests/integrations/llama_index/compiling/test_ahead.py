"""How many of the framework's calls were planned, and how many were under way before it asked."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span import active_span_id
from pydantic import PrivateAttr

from parrot_backend.wire.views import CallView
from parrot_integrations.llama_index import Parrot
from parrot_integrations.planning.parts import Parts
from parrot_integrations.planning.session import PlannedSession
from tests.integrations.llama_index.compiling.answers import AnsweringEngine, Answers
from tests.integrations.llama_index.compiling.comparing import compiling
from tests.integrations.llama_index.compiling.drawn.case import World
from tests.integrations.llama_index.compiling.hearing import Callbacks
from tests.integrations.llama_index.compiling.typical import TYPICAL
from tests.integrations.llama_index.compiling.watching import left_behind, settings
from tests.integrations.llama_index.releases import in_constraints
from tests.servers import serving

DELAY = 0.1

pytestmark = [left_behind, in_constraints]


@pytest.fixture(scope="module")
def engine() -> AnsweringEngine:
    engine = AnsweringEngine()
    engine.answers = Answers(odd=False)
    return engine


@pytest.fixture(scope="module")
def url(engine: AnsweringEngine) -> Iterator[str]:
    with serving(engine) as url:
        yield url


class Asked(BaseEventHandler):
    """The calls that the framework makes: what each is named, and which step makes it."""

    _calls: list[tuple[str, str]] = PrivateAttr(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Asked"

    def handle(self, event: Any, **_: Any) -> None:
        if type(event).__name__ in ("LLMChatEndEvent", "LLMCompletionEndEvent"):
            step = str(active_span_id.get()).partition("-")[0]
            self._calls.append((event.response.raw["id"], step))


@dataclass
class Account:
    """What became of the calls of a run; `held` ones are those that nothing could be gained by."""

    runs: int = 0
    asked: int = 0
    claimed: int = 0
    held: int = 0
    gained: int = 0
    others: Counter[str] = field(default_factory=Counter)
    breaks: list[str] = field(default_factory=list)

    def told(self, name: str) -> str:
        others = ", ".join(f"{number} {what}" for what, number in sorted(self.others.items()))
        return (
            f"{name}: {self.asked} asked, {self.claimed} claimed, {self.held} held, "
            f"{self.gained} ahead or dependent; {others or 'no others'}; {', '.join(self.breaks)}"
        )


def gained(call: CallView, delay: float) -> bool:
    """Dispatched by the backend itself, or with the engine for most of its time already."""
    if call.claimed_at is None or call.queued is None:
        return False
    return call.dependent or call.claimed_at - call.queued > 0.7 * delay


def account(name: str, url: str, engine: AnsweringEngine, delay: float = DELAY) -> Account:
    sessions: list[PlannedSession] = []
    asked, result = Asked(), Account()
    world = World(Random(name), Parrot(base_url=url, temperature=0, max_retries=0))
    with settings(world.llm, world.embed_model, Callbacks()):
        engine.delay = 0
        case = TYPICAL[name](world)
        subject = compiling(sessions)(case.subject)
        engine.delay = delay
        get_dispatcher().add_event_handler(asked)
        try:
            case.run(subject)
        finally:
            get_dispatcher().event_handlers.remove(asked)
    result.breaks = [
        f"{stop.where} {stop.reason}" for session in sessions for stop in session.plan.breaks
    ]
    calls = {call.id: call for session in sessions for call in session.graph().calls}
    result.runs, result.asked = max(1, len(sessions)), len(asked._calls)
    for call_id, step in asked._calls:
        call = calls.get(call_id)
        if call is None:
            result.others[f"of no session, {step}"] += 1
        elif not call.planned:
            result.others[f"not planned, {step}"] += 1
        else:
            result.claimed += call.claimed
            is_gained = gained(call, delay)
            result.gained += is_gained
            result.others[f"asked for at once, {step}"] += not is_gained
    result.others = +result.others
    return result


def shares(part: int, whole: int) -> float:
    return part / whole if whole > 0 else 1.0


@pytest.mark.parametrize("name", TYPICAL)
def test_what_the_framework_asks_for_was_planned(
    name: str, url: str, engine: AnsweringEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that is planned submitted, also what starts no earlier by it."""
    monkeypatch.setattr(Parts, "_comes_next", lambda self, call: False)
    found = account(name, url, engine, delay=0)
    assert shares(found.claimed, found.asked) >= CLAIMED.get(name, 0.9), found.told(name)


@pytest.mark.parametrize("name", TYPICAL)
def test_calls_are_under_way_before_they_are_asked_for(
    name: str, url: str, engine: AnsweringEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call of a run is asked for at once, whatever is planned."""
    held: list[str] = []
    original: Callable[..., bool] = Parts._comes_next

    def comes_next(self: Parts, call: Any) -> bool:
        if is_held := original(self, call):
            held.append(call.id)
        return is_held

    monkeypatch.setattr(Parts, "_comes_next", comes_next)
    found = account(name, url, engine)
    found.held = len(held)
    print(found.told(name))
    able = found.asked - found.held - found.runs
    assert shares(found.gained, able) >= AHEAD.get(name, 0.8), found.told(name)


CLAIMED: dict[str, float] = {}
AHEAD: dict[str, float] = {}
