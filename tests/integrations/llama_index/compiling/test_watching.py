"""What the comparison would find: a run that differs in one thing is never taken for equal."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.callbacks import CBEventType
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import TreeSummarize
from llama_index.core.schema import QueryBundle

from tests.integrations.llama_index.compiling import comparing
from tests.integrations.llama_index.compiling.comparing import Bench
from tests.integrations.llama_index.compiling.drawn import texts
from tests.integrations.llama_index.compiling.drawn.case import Case, World
from tests.integrations.llama_index.compiling.drawn.retrieving import AsyncOverlapping
from tests.integrations.llama_index.compiling.watching import assert_equal, left_behind

pytestmark = left_behind

_TEXTS = [texts.TextNode(text=f"Part {n}. {'Cold stone. ' * 40}", id_=f"n{n}") for n in range(4)]


def _case(world: World) -> Case:
    world.llm.context_window = 400
    made = TreeSummarize(llm=world.llm, use_async=concurrent)
    retriever = AsyncOverlapping(_TEXTS, world.calls, "it", 4)
    engine = RetrieverQueryEngine(retriever, made)
    return Case(engine, lambda subject: subject.query("What?"), concurrent=concurrent)


concurrent = False


@pytest.fixture(scope="module")
def running() -> Iterator[Bench]:
    with comparing.bench() as bench:
        yield bench


@pytest.fixture(params=["in order", "as a tree"])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, running: Bench) -> Bench:
    monkeypatch.setitem(comparing.KINDS, "watched", _case)
    monkeypatch.setattr(f"{__name__}.concurrent", request.param == "as a tree")
    return running


def _with(act: Callable[[RetrieverQueryEngine], None]) -> Callable[[Any], Any]:
    """An engine that does something more while it answers."""

    def change(engine: RetrieverQueryEngine) -> RetrieverQueryEngine:
        original = engine._response_synthesizer.get_response

        def get_response(*args: Any, **kwargs: Any) -> Any:
            act(engine)
            return original(*args, **kwargs)

        engine._response_synthesizer.get_response = get_response
        return engine

    return change


def _other_prompt(engine: RetrieverQueryEngine) -> RetrieverQueryEngine:
    template = texts.PromptTemplate("{context_str} {query_str}?")
    engine.update_prompts({"response_synthesizer:summary_template": template})
    return engine


def _asks_again(engine: RetrieverQueryEngine) -> None:
    engine._response_synthesizer._llm.complete("Once more.")


def _retrieves_again(engine: RetrieverQueryEngine) -> None:
    engine.retriever._retrieve(QueryBundle("What?"))


def _calls_back(engine: RetrieverQueryEngine) -> None:
    engine.callback_manager.on_event_start(CBEventType.EMBEDDING, {"more": 1})


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a prompt": _other_prompt,
    "a call": _with(_asks_again),
    "a retrieval": _with(_retrieves_again),
    "an event": _with(lambda _: get_dispatcher().event(BaseEvent())),
    "a span": _with(lambda _: get_dispatcher().span(lambda: None)()),
    "a callback": _with(_calls_back),
    "a print": _with(lambda _: print("more")),
    "a failure": _with(lambda _: 1 / 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_found(change: str, bench: Bench) -> None:
    expected, case = bench.run("watched", 0)
    assert expected.prompts >= 4
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        assert_equal(bench.run("watched", 0, CHANGES[change])[0], expected, concurrent=concurrent)
    assert case.concurrent == concurrent


def test_what_has_not_changed_is_equal(bench: Bench) -> None:
    expected, _ = bench.run("watched", 0)
    unchanged, _ = bench.run("watched", 0, _with(lambda _: None))
    assert_equal(unchanged, expected, concurrent=concurrent)
    assert expected.calls == ["it retrieves 'What?'"]


@pytest.mark.parametrize("kind", comparing.KINDS)
def test_a_case_is_the_same_twice(kind: str, running: Bench) -> None:
    """The framework alone, so that what differs is no matter of its own."""
    for seed in range(max(1, int(os.environ.get("PARROT_CASES", "10")) // 10)):
        expected, case = running.run(kind, seed)
        found, _ = running.run(kind, seed)
        assert_equal(found, expected, concurrent=case.concurrent)
