"""What is the user's own, wherever the framework takes it: it runs as often as without a plan."""

import asyncio
import gc
import inspect
import pickle
import weakref
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from llama_index.core import get_response_synthesizer
from llama_index.core.callbacks import CallbackManager
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import TreeSummarize
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import FunctionTool
from llama_index.core.types import BaseOutputParser

from parrot_backend.wire.protocol import Program
from parrot_integrations.llama_index import Parrot, PlannedSession, compile
from parrot_integrations.llama_index.compiling import run as runs
from parrot_integrations.llama_index.compiling.shadow.ledger import Ledger
from tests.doubles import ScriptedEngine
from tests.integrations.llama_index.compiling.test_compile import Counting, scored
from tests.servers import serving

# The framework's `asyncio_run` leaves event loops that it has made open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    engine = ScriptedEngine(lambda prompt: f"said {len(prompt)}")
    engine.model = type(engine.model)("scripted", 100_000)
    with serving(engine) as url:
        yield url


def llm(url: str, **fields: Any) -> Parrot:
    return Parrot(base_url=url, context_window=1000, max_tokens=100, **fields)


class Numbering(BaseOutputParser):
    """Gives another output each time."""

    def __init__(self) -> None:
        self.count = 0

    def parse(self, output: str) -> Any:
        self.count += 1
        return f"[{self.count}] {output}"


def test_a_parser_of_the_llm_is_asked_by_the_run_alone(url: str) -> None:
    told = []
    for change in (lambda each: each, compile):
        model = llm(url, output_parser=Numbering())
        synthesizer = get_response_synthesizer(llm=model, response_mode="accumulate")
        told.append(str(change(synthesizer).synthesize("what?", scored(4))))
    assert told[0] == told[1]


def test_a_prompt_function_of_the_llm_is_asked_by_the_run_alone(url: str) -> None:
    asked: list[str] = []

    def prompted(prompt: str) -> str:
        asked.append(prompt)
        return f"<{prompt}>"

    model = llm(url, completion_to_prompt=prompted)
    compile(lambda: model.complete("one"))()
    assert asked == ["one"]


class OwnNode(TextNode):
    """Says how often it was read."""

    def get_content(self, metadata_mode: Any = None) -> str:
        _reads.append(self.node_id)
        return f"read {len(_reads)}"


_reads: list[str] = []


def test_nodes_of_a_class_of_the_users_are_read_by_the_run_alone(url: str) -> None:
    told = []
    for change in (lambda each: each, compile):
        _reads.clear()
        nodes = [NodeWithScore(node=OwnNode(text="x", id_=f"n{n}")) for n in range(4)]
        synthesizer = get_response_synthesizer(llm=llm(url), response_mode="accumulate")
        told.append((str(change(synthesizer).synthesize("what?", nodes)), [*_reads]))
    assert told[0] == told[1]


class Hearing(CallbackManager):
    """Notes what it is told, by a method of its own."""

    def on_event_start(self, *args: Any, **kwargs: Any) -> str:
        _heard.append("start")
        return str(super().on_event_start(*args, **kwargs))


_heard: list[str] = []


def test_a_callback_manager_of_the_users_hears_of_the_run_alone(url: str) -> None:
    counts = []
    for change in (lambda each: each, compile):
        _heard.clear()
        synthesizer = TreeSummarize(llm=llm(url), callback_manager=Hearing())
        change(synthesizer).synthesize("what?", scored())
        counts.append(len(_heard))
    assert counts[0] == counts[1] > 0


async def test_async_methods_are_coroutine_functions(url: str) -> None:
    engine = compile(RetrieverQueryEngine(Counting(), TreeSummarize(llm=llm(url))))
    assert inspect.iscoroutinefunction(engine.aquery)
    tool = FunctionTool.from_defaults(async_fn=engine.aquery, name="n", description="d")
    assert "said" in str(await tool.acall("what?"))


def test_what_shows_nothing_but_the_next_call_is_given_up(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[Any] = []
    original = runs.run_shadow

    def counting(*args: Any) -> Any:
        passes.append(args)
        return original(*args)

    monkeypatch.setattr(runs, "run_shadow", counting)
    model = llm(url)

    @compile
    def many(count: int) -> None:
        for _ in range(count):
            get_response_synthesizer(llm=model).synthesize("what?", scored(1))

    many(100)
    assert len(passes) < 60


async def test_an_event_loop_waits_for_no_retriever(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_retrieve: dict[bool, bool] = {}
    original = runs.run_shadow

    def noting(target: Any, copies: Any) -> Any:
        may_retrieve[asyncio._get_running_loop() is None] = copies.pure_retrievers
        return original(target, copies)

    monkeypatch.setattr(runs, "run_shadow", noting)
    model = llm(url)

    async def both(query: str) -> None:
        for _ in range(2):
            engine = RetrieverQueryEngine(Counting(), TreeSummarize(llm=model))
            await compile(engine, pure_retrievers=True).aquery(query)

    await both("what?")
    await compile(both, pure_retrievers=True)("and?")
    assert may_retrieve == {True: True, False: False}


def test_planning_that_fails_fails_no_run(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*args: Any) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(runs, "run_shadow", failing)
    assert str(compile(TreeSummarize(llm=llm(url))).synthesize("what?", scored()))
    assert "planning failed" in caplog.text


@pytest.mark.parametrize("twin", [deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_what_is_compiled_can_be_copied_and_pickled(url: str, twin: Any) -> None:
    synthesizer = compile(TreeSummarize(llm=llm(url)))
    copied = twin(synthesizer)
    expected = str(synthesizer.synthesize("what?", scored()))
    assert str(copied.synthesize("what?", scored())) == expected


async def test_an_async_stream_is_read_to_be_analyzed(url: str) -> None:
    synthesizer: Any = compile(TreeSummarize(llm=llm(url), streaming=True))
    told = await synthesizer.aexplain("what?", scored(), analyze=True)
    assert "not asked for" not in told


def test_an_answer_may_be_read_twice_in_one_prompt(url: str) -> None:
    from parrot_integrations.planning.plan import Plan

    model, ledger = llm(url), Ledger(Plan())
    ledger.begin(0)
    first = ledger.answer(model.client, {"messages": [{"role": "user", "content": "one"}]})
    both = {"messages": [{"role": "user", "content": f"{first} and {first.strip()}"}]}
    ledger.answer(model.client, both)
    key = runs.key_of({"messages": [{"role": "user", "content": "one"}]})
    ledger.asked(key)
    ledger.answered(key, " 1 ")
    assert ledger.asks(runs.key_of({"messages": [{"role": "user", "content": " 1  and 1"}]}))


def test_nothing_of_a_run_is_left_for_the_garbage_collector(url: str) -> None:
    synthesizer = compile(TreeSummarize(llm=llm(url)))
    synthesizer.synthesize("what?", scored())
    gc.collect()
    gc.disable()
    try:
        before = sum(type(each) is Ledger for each in gc.get_objects())
        for _ in range(5):
            synthesizer.synthesize("what?", scored())
        assert sum(type(each) is Ledger for each in gc.get_objects()) <= before + 1
    finally:
        gc.enable()


def test_an_llm_alone_is_refused(url: str) -> None:
    with pytest.raises(TypeError, match="compile what calls it"):
        compile(llm(url))


def test_handlers_that_were_thrown_out_come_back(url: str) -> None:
    from llama_index_instrumentation import root_dispatcher

    sessions: list[PlannedSession] = []
    events = root_dispatcher.event_handlers
    root_dispatcher.event_handlers = []
    try:
        engine = RetrieverQueryEngine(Counting(), TreeSummarize(llm=llm(url)))
        compile(engine, on_session=sessions.append).query("what?")
        assert len(root_dispatcher.event_handlers) == 1
    finally:
        root_dispatcher.event_handlers = events
    assert sessions[0].view().claimed == sessions[0].view().planned > 1


class Slotted(TreeSummarize):
    """Keeps something beside its dictionary."""

    __slots__ = ("extra",)


def test_what_is_kept_in_slots_is_kept(url: str) -> None:
    original = Slotted(llm=llm(url))
    original.extra = 3
    assert compile(original).extra == 3


def test_arguments_that_contain_themselves_are_the_runs(url: str) -> None:
    arguments: dict[str, Any] = {}
    arguments["self"] = arguments
    synthesizer = compile(TreeSummarize(llm=llm(url)))
    assert synthesizer.get_response("what?", ["one"], unused=arguments)


class Told:
    """Numbers how often it was read."""

    def __init__(self) -> None:
        self.count = 0

    def __str__(self) -> str:
        self.count += 1
        return f"seen {self.count}"


class Query(str):
    """A text of the user's."""

    __slots__ = ("told",)

    def __str__(self) -> str:
        return str(self.told)


@pytest.mark.parametrize("kind", ["metadata", "query", "mapping"])
def test_what_is_read_as_text_is_read_by_the_run_alone(url: str, kind: str) -> None:
    counts = []
    for change in (lambda each: each, compile):
        told = Told()
        nodes, query = scored(4), Query("what?") if kind == "query" else "what?"
        if kind == "metadata":
            nodes[0].node.metadata["told"] = told
        if kind == "query":
            query.told = told

        class Application:
            @classmethod
            def mapped(cls, **variables: Any) -> str:
                return f"{told} {variables['context_str']}"  # noqa: B023

        mappings = {"context_str": Application.mapped} if kind == "mapping" else None
        template = PromptTemplate("{context_str} {query_str}", function_mappings=mappings)
        synthesizer = TreeSummarize(llm=llm(url), summary_template=template)
        result = str(change(synthesizer).synthesize(query, nodes))
        counts.append((told.count, result))
    assert counts[0] == counts[1]


def test_what_stands_in_a_methods_place_is_called_by_the_run_alone(url: str) -> None:
    calls = []
    for change in (lambda each: each, compile):
        model, made = llm(url), []

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            made.append(args)  # noqa: B023
            return Parrot.chat(model, *args, **kwargs)  # noqa: B023

        object.__setattr__(model, "chat", wrapper)
        change(TreeSummarize(llm=model)).synthesize("what?", scored())
        calls.append(len(made))
    assert calls[0] == calls[1] > 0


def test_a_forked_childs_plan_is_not_its_parents(url: str) -> None:
    pending = llm(url).client.pending_session()
    pending._process += 1  # as in a child
    pending.submit(Program())
    assert pending.submitted.result(5) is None


def test_who_compiles_for_each_request_keeps_nothing(url: str) -> None:
    class Big:
        pass

    kept, model = [], llm(url)
    for _ in range(3):
        big = Big()
        kept.append(weakref.ref(big))
        compile(TreeSummarize(llm=model), on_session=lambda _, big=big: None).synthesize(
            "what?", scored(1)
        )
        del big
    gc.collect()
    assert sum(each() is not None for each in kept) <= 1
