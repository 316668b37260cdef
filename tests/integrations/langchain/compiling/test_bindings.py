"""Wrappers that open no run: planning goes on inside them, behind a graph break too."""

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    RouterRunnable,
    Runnable,
    RunnableBinding,
    RunnableLambda,
    RunnablePassthrough,
)

from parrot_integrations.langchain import ChatParrot, compile
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling.chains import ask
from tests.integrations.langchain.compiling.claims import MODES, SINGLE, claims
from tests.integrations.langchain.compiling.watching import submitting
from tests.servers import serving

Wrap = Callable[[Runnable[Any, Any]], Runnable[Any, Any]]


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(lambda prompt: prompt[::-1][:20])) as url:
        yield ChatParrot(base_url=url, temperature=0, max_retries=0)


def shout(text: str) -> str:
    return text.upper()


def two_calls(llm: ChatParrot) -> Runnable[Any, Any]:
    """With a break of its own between them."""
    return ask("Name {x}", llm) | shout | ask("Draw {y}", llm)


def _fields(chain: Runnable[Any, Any]) -> Runnable[Any, Any]:
    configurable = chain.configurable_fields(name=ConfigurableField(id="name"))
    return configurable.with_config(configurable={"name": "other"})


def _alternative(chain: Runnable[Any, Any]) -> Runnable[Any, Any]:
    either = RunnablePassthrough().configurable_alternatives(
        ConfigurableField(id="which"), default_key="plain", calls=chain
    )
    return either.with_config(configurable={"which": "calls"})


def _default(chain: Runnable[Any, Any]) -> Runnable[Any, Any]:
    return chain.configurable_alternatives(
        ConfigurableField(id="which"), default_key="calls", plain=RunnablePassthrough()
    )


def _routed(chain: Runnable[Any, Any]) -> Runnable[Any, Any]:
    to_it = {"key": RunnableLambda(lambda _: "it"), "input": RunnablePassthrough()}
    return to_it | RouterRunnable({"it": chain})


WRAPPERS: dict[str, Wrap] = {
    "with_config": lambda chain: chain.with_config(run_name="named", tags=["t"]),
    "bind": lambda chain: (RunnablePassthrough() | chain).bind(),
    "with_types": lambda chain: chain.with_types(input_type=str),
    "with_listeners": lambda chain: chain.with_listeners(on_start=lambda _: None),
    "listeners on a binding": lambda chain: chain.bind().with_listeners(on_end=lambda _: None),
    "with_retry": lambda chain: chain.with_retry(stop_after_attempt=2),
    "with_fallbacks": lambda chain: chain.with_fallbacks([RunnablePassthrough()]),
    "fields": _fields,
    "alternative": _alternative,
    "default alternative": _default,
    "router": _routed,
    "a binding of bindings": lambda chain: chain.with_config(tags=["a"]).with_types().bind(),
}


@pytest.mark.parametrize("mode", ["invoke", "astream", "abatch"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_what_is_bound_is_planned_behind_a_break(name: str, mode: str, llm: ChatParrot) -> None:
    def build() -> Runnable[Any, Any]:
        return RunnableLambda(shout) | WRAPPERS[name](two_calls(llm)) | ask("Sign {z}", llm)

    found = claims(build, "it", mode)
    assert found.claimed == found.asked == (3 if mode in SINGLE else 6)


@pytest.mark.parametrize("mode", ["ainvoke", "stream", "batch", "batch_as_completed"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_what_is_bound_is_planned_at_the_root(name: str, mode: str, llm: ChatParrot) -> None:
    found = claims(lambda: WRAPPERS[name](two_calls(llm)), "it", mode)
    assert found.claimed == found.asked == (2 if mode in SINGLE else 4)


@pytest.mark.parametrize("mode", ["invoke", "astream", "abatch"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_what_is_bound_is_planned_in_nested_maps(name: str, mode: str, llm: ChatParrot) -> None:
    """The elements of both maps are told apart."""

    def build() -> Runnable[Any, Any]:
        each = WRAPPERS[name](two_calls(llm)).map().with_config(tags=["inner"])
        return RunnableLambda(lambda text: [[text, "b"], ["c"]]) | each.map().bind()

    found = claims(build, "a", mode)
    assert found.claimed == found.asked


class Retriever(BaseRetriever):
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document(f"About {query}."), Document("More.")]


@pytest.mark.parametrize("mode", MODES)
def test_a_retrieval_chain_is_planned(mode: str, llm: ChatParrot) -> None:
    chains = pytest.importorskip("langchain_classic.chains")
    combining = pytest.importorskip("langchain_classic.chains.combine_documents")

    def build() -> Runnable[Any, Any]:
        prompt = ChatPromptTemplate.from_template("{context}: {input}")
        stuffed = combining.create_stuff_documents_chain(llm, prompt)
        rephrase = ask("Rephrase {input}", llm)
        whole = rephrase | {"input": RunnablePassthrough()}
        retrieval: Runnable[Any, Any] = chains.create_retrieval_chain(Retriever(), stuffed)
        return whole | retrieval

    found = claims(build, {"input": "cats"}, mode)
    assert found.claimed == found.asked == (2 if mode in SINGLE else 4)


def test_what_is_retried_of_a_batch_is_planned_as_what_it_is(llm: ChatParrot) -> None:
    """The second attempt has the second and the third input only: nobody takes them for others."""
    failures = {"b": 1, "c": 1}

    def flaky(text: str) -> str:
        if failures.get(text[-1], 0):
            failures[text[-1]] -= 1
            raise ValueError("not yet")
        return text

    retried = (RunnableLambda(flaky) | ask("Name {x}", llm)).with_retry(
        stop_after_attempt=2, wait_exponential_jitter=False
    )
    chain = retried | shout | ask("Draw {y}", llm)
    expected = [chain.invoke(text) for text in "abc"]
    failures.update({"b": 1, "c": 1})
    sessions: list[Any] = []
    assert submitting(chain, sessions.append).batch(list("abc")) == expected
    counts = sessions[0].final
    assert (counts.claimed, counts.unplanned) == (6, 0)


def test_listeners_see_the_configuration_that_they_would_see(llm: ChatParrot) -> None:
    seen: list[Any] = []

    def heard(run: Any, config: Any) -> None:
        seen.append((run.name, sorted(config), config.get("run_id")))

    chain = RunnableLambda(shout) | two_calls(llm).with_listeners(on_start=heard, on_end=heard)
    chain.invoke("it")
    compile(chain).invoke("it")
    assert seen[:2] == seen[2:]


def test_a_configuration_by_a_function_of_the_user_s_is_a_break(llm: ChatParrot) -> None:
    calls: list[Any] = []

    def factory(config: Any) -> Any:
        calls.append(config)
        return {"tags": ["made"]}

    def build() -> Runnable[Any, Any]:
        bound = RunnableBinding(bound=ask("Name {x}", llm), config_factories=[factory])
        return bound | ask("Draw {y}", llm)

    assert "makes its configuration by a function of yours" in compile(build()).explain("it")
    assert calls == []
    assert claims(build, "it") == (0, 2, 1)


def test_a_run_id_that_is_bound_stays_the_user_s(llm: ChatParrot) -> None:
    ids: list[Any] = []

    class Ids(BaseCallbackHandler):
        def on_chain_start(self, *args: Any, run_id: Any, **kwargs: Any) -> None:
            ids.append(run_id)

    own = uuid4()
    chain = RunnableLambda(shout) | two_calls(llm).with_config(run_id=own)
    compile(chain).invoke("it", {"callbacks": [Ids()]})
    assert ids.count(own) == 1


@pytest.mark.parametrize("mode", SINGLE)
def test_a_fallback_is_planned_when_it_starts(mode: str, llm: ChatParrot) -> None:
    def build() -> Runnable[Any, Any]:
        main = RunnableLambda(itemgetter("missing")) | ask("Never {x}", llm)
        other = ask("Name {x}", llm) | ask("Draw {y}", llm)
        return RunnableLambda(lambda x: {"x": x}) | main.with_fallbacks([other]) | shout

    found = claims(build, "it", mode)
    assert found.claimed == found.asked == 2


@pytest.mark.parametrize("mode", MODES)
def test_what_comes_after_a_fallback_is_planned_anew(mode: str, llm: ChatParrot) -> None:
    """The fallback's call and those behind it are claimed; the one that fails, if asked for before."""

    def build() -> Runnable[Any, Any]:
        broken = ask("FAIL {x}", llm).with_fallbacks([ask("Other {x}", llm)])
        both = {"y": broken.with_config(tags=["t"]), "x": RunnablePassthrough()}
        drawn = both | RunnablePassthrough.assign(z=ask("Draw {y} for {x}", llm))
        return drawn | RunnableLambda(itemgetter("z")) | shout | ask("Sign {z}", llm)

    found = claims(build, "it", mode)
    runs = 1 if mode in SINGLE else 2
    assert found.asked == 4 * runs
    assert 3 * runs <= found.claimed <= 4 * runs


@pytest.mark.parametrize("mode", SINGLE)
def test_a_fallback_may_get_the_exception(mode: str, llm: ChatParrot) -> None:
    def build() -> Runnable[Any, Any]:
        main = RunnableLambda(itemgetter("missing")) | ask("Never {x}", llm)
        told = RunnableLambda(lambda value: {"e": type(value["error"]).__name__})
        other = told | ask("Mend {e}", llm) | ask("Draw {y}", llm)
        return {"x": RunnablePassthrough()} | main.with_fallbacks([other], exception_key="error")

    found = claims(build, "it", mode)
    assert found.claimed == found.asked == 2
