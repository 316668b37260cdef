"""Runs that planning can do nothing for are not planned again."""

import pickle
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.documents import Document
from langchain_core.globals import set_llm_cache
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableBranch, RunnableLambda, RunnablePassthrough

from parrot_integrations.langchain import ChatParrot, compile, join_texts
from parrot_integrations.langchain.compiling.compiled import CompiledRunnable
from parrot_integrations.langchain.compiling.idle import Idle, is_steady, shape
from parrot_integrations.planning.session import PlannedSession
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling.chains import ask
from tests.servers import serving


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine()) as url:
        yield ChatParrot(base_url=url, temperature=0, max_retries=0)


class Notes(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(f"About {query}")]


def retrieval(llm: ChatParrot) -> Runnable[Any, Any]:
    found = {"context": Notes(), "question": RunnablePassthrough()}
    return found | ask("{context} {question}", llm)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The inputs that were planned for."""
    planned: list[Any] = []
    original = CompiledRunnable.plan

    def plan(self: Any, inputs: Any, *args: Any) -> Any:
        planned.extend(inputs)
        return original(self, inputs, *args)

    monkeypatch.setattr(CompiledRunnable, "plan", plan)
    return planned


def test_a_chain_of_one_call_is_planned_once(llm: ChatParrot, plans: list[Any]) -> None:
    native, compiled = retrieval(llm), compile(retrieval(llm))
    for question in ("sun", "moon", "rain"):
        assert compiled.invoke(question) == native.invoke(question)
    assert plans == ["sun"]
    compiled.invoke({"another": "shape"})
    assert plans == ["sun", {"another": "shape"}]


def test_what_was_submitted_is_planned_again(llm: ChatParrot, plans: list[Any]) -> None:
    sessions: list[PlannedSession] = []
    compiled = compile(ask("Name {x}", llm) | ask("Draw {y}", llm), on_session=sessions.append)
    compiled.invoke("it")
    compiled.invoke("it")
    assert plans == ["it", "it"]
    assert len(sessions) == 2


def test_a_run_that_failed_tells_nothing(llm: ChatParrot, plans: list[Any]) -> None:
    fails = {"on"}

    def guard(text: str) -> str:
        if fails:
            raise ValueError("not now")
        return text

    two = ask("Name {x}", llm) | ask("Draw {y}", llm)
    compiled = compile(RunnableLambda(guard) | two)
    with pytest.raises(ValueError, match="not now"):
        compiled.invoke("it")
    fails.clear()
    sessions: list[PlannedSession] = []
    compile(compiled, on_session=sessions.append).invoke("it")
    assert len(sessions) == 1


def test_a_cache_hides_what_would_be_planned(llm: ChatParrot) -> None:
    sessions: list[PlannedSession] = []
    chain = ask("Name {x}", llm) | ask("Draw {y}", llm)
    compiled = compile(chain, on_session=sessions.append)
    set_llm_cache(InMemoryCache())
    try:
        compiled.invoke("it")
    finally:
        set_llm_cache(None)
    assert sessions == []
    compiled.invoke("it")
    assert len(sessions) == 1


STEADY: dict[str, Callable[[ChatParrot], Runnable[Any, Any]]] = {
    "retrieval": retrieval,
    "bound": lambda llm: ask("Say {x}", llm.bind(stop=["x"])).with_config(tags=["t"]),
    "function": lambda llm: RunnableLambda(lambda x: {"x": x}) | ask("Say {x}", llm),
}
UNSTEADY: dict[str, Callable[[ChatParrot], Runnable[Any, Any]]] = {
    "map": lambda llm: ask("Say {x}", llm).map() | join_texts(" "),
    "branch": lambda llm: RunnableBranch((lambda x: len(x) > 3, ask("{x}", llm)), ask("x{x}", llm)),
    "function that asks": lambda llm: RunnableLambda(lambda x: [llm.invoke(each) for each in x]),
    "fallback": lambda llm: ask("Say {x}", llm).with_fallbacks([ask("Or {x}", llm)]),
    "itemgetter": lambda llm: itemgetter("xs") | ask("Say {x}", llm).map(),
}


@pytest.mark.parametrize("name", [*STEADY, *UNSTEADY])
def test_which_chains_make_the_same_calls_whatever_they_get(name: str, llm: ChatParrot) -> None:
    assert is_steady((STEADY | UNSTEADY)[name](llm)) == (name in STEADY)


def test_only_so_many_shapes_are_known(llm: ChatParrot) -> None:
    idle = Idle(retrieval(llm))
    for number in range(1000):
        idle.note([{f"key {number}": 1}])
    assert not idle.knows([{"key 999": 1}])
    assert idle.knows([{"key 9": 2}])


def test_a_shape_looks_into_nothing_of_the_user() -> None:
    class Mine(dict[str, Any]):
        def items(self) -> Any:
            raise AssertionError("looked into")

    assert shape({"a": Mine(), "b": [Mine()]}) == shape({"a": Mine(b=1), "b": [Mine(), Mine()]})


class Same(type):
    def __eq__(cls, other: object) -> bool:
        return cls is other

    __hash__ = None  # type: ignore[assignment]


class NotHashable(metaclass=Same):
    pass


class Lazy:
    """As Django's settings: whatever is asked of it sets it up."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("settings are not configured")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("settings are not configured")


settings = Lazy()


def test_values_and_globals_may_be_as_odd_as_they_like(llm: ChatParrot) -> None:
    def limit(x: Any) -> str:
        return settings.LIMIT if x is None else "it"

    chain = RunnableLambda(limit) | ask("Say {x}", llm)
    nested: dict[str, Any] = {}
    nested["again"] = nested
    for value in (NotHashable(), nested, "plain"):
        assert compile(chain).invoke(value) == chain.invoke(value)


def named(text: str) -> str:
    return text.title()


def test_it_can_be_pickled_after_a_run(llm: ChatParrot) -> None:
    compiled = compile(ask("Name {x}", llm) | named | ask("Draw {y}", llm))
    expected = compiled.invoke("it")
    assert pickle.loads(pickle.dumps(compiled)).invoke("it") == expected
