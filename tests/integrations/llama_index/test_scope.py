"""The class alone tells which calls are siblings, and of which thread: with the framework's objects."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from llama_index.core import PromptTemplate, SummaryIndex, TreeIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.base.response.schema import Response
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.extractors import SummaryExtractor
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import SubQuestionQueryEngine
from llama_index.core.question_gen.types import BaseQuestionGenerator, SubQuestion
from llama_index.core.response_synthesizers import Accumulate, Refine, TreeSummarize
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import QueryEngineTool
from llama_index_instrumentation import root_dispatcher
from llama_index_instrumentation.dispatcher import instrument_tags
from pydantic import BaseModel, Field

from parrot_backend.wire.views import GraphView
from parrot_integrations.client.scope import task_group, wire_name
from parrot_integrations.client.sessions import parrot_session
from parrot_integrations.llama_index import Parrot, spans
from tests.doubles import ScriptedEngine
from tests.integrations.llama_index.seen import Opened, members, sizes
from tests.servers import serving

CHUNKS = [f"{number}: " + "what this part says " * 40 for number in range(4)]
NODES = [NodeWithScore(node=TextNode(text=text)) for text in CHUNKS]


class Said(BaseModel):
    """What is said."""

    text: str = Field(max_length=8)


def script(prompt: str) -> str:
    return '{"text": "json"}' if "Use json." in prompt else prompt[::-1][:40]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(ScriptedEngine(script)) as url:
        yield url


@pytest.fixture
def llm(url: str) -> Parrot:
    return Parrot(base_url=url, temperature=0, context_window=2000)


@pytest.fixture
def opened(llm: Parrot) -> Opened:
    return Opened(llm)


def all_but_the_last(graph: GraphView) -> list[list[int]]:
    """One group of several calls."""
    assert len(graph.calls) >= 4
    return [list(range(1, len(graph.calls)))]


# Synthesizers


def tree(llm: Parrot, **kwargs: Any) -> TreeSummarize:
    """Whose chunks do not fit in one call, but what is said of them does."""
    helper = PromptHelper(context_window=400, num_output=32)
    return TreeSummarize(llm=llm, prompt_helper=helper, **kwargs)


async def _asynchronously(synthesizer: Any, query: str = "What is said?") -> None:
    await synthesizer.asynthesize(query, NODES)


async def _synchronously(synthesizer: Any) -> None:
    await asyncio.to_thread(synthesizer.synthesize, "What is said?", NODES)


async def test_the_calls_for_the_chunks_of_a_tree_s_level_are_a_task_group(
    llm: Parrot, opened: Opened
) -> None:
    """Without a word in the application: what was asked for is a session, its last call is alone."""
    await _asynchronously(tree(llm))
    graph = opened.graph()
    assert members(graph) == all_but_the_last(graph)


async def test_so_are_they_of_a_synchronous_tree_that_uses_async(
    llm: Parrot, opened: Opened
) -> None:
    await _synchronously(tree(llm, use_async=True))
    graph = opened.graph()
    assert members(graph) == all_but_the_last(graph)


@pytest.mark.parametrize("run", [_asynchronously, _synchronously])
async def test_calls_of_a_loop_are_no_task_group(run: Any, llm: Parrot, opened: Opened) -> None:
    await run(Refine(llm=llm))
    graph = opened.graph()
    assert len(graph.calls) == 4
    assert graph.groups == []


async def test_a_synchronous_tree_asks_one_after_the_other(llm: Parrot, opened: Opened) -> None:
    await _synchronously(tree(llm))
    graph = opened.graph()
    assert len(graph.calls) >= 4
    assert graph.groups == []


@pytest.mark.parametrize("run", [_asynchronously, _synchronously])
async def test_an_accumulation_is_a_task_group(run: Any, llm: Parrot, opened: Opened) -> None:
    await run(Accumulate(llm=llm, use_async=True))
    assert members(opened.graph()) == [[1, 2, 3, 4]]


async def test_structured_answers_for_chunks_are_siblings_as_well(
    llm: Parrot, opened: Opened
) -> None:
    await _asynchronously(tree(llm, output_cls=Said), "Use json.")
    graph = opened.graph()
    assert members(graph) == all_but_the_last(graph)


# Query engines, index builds


class Questions(BaseQuestionGenerator):
    """Three, always the same."""

    def generate(self, tools: Any, query: Any) -> list[SubQuestion]:
        return [SubQuestion(sub_question=f"{n}?", tool_name="tool") for n in range(3)]

    async def agenerate(self, tools: Any, query: Any) -> list[SubQuestion]:
        return self.generate(tools, query)

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: Any) -> None:
        pass


def sub_questions(llm: Parrot, mode: str) -> SubQuestionQueryEngine:
    index = SummaryIndex([each.node for each in NODES[:2]])
    inner = index.as_query_engine(llm=llm, response_mode=mode, use_async=True)
    tool = QueryEngineTool.from_defaults(inner, name="tool", description="Tells all.")
    return SubQuestionQueryEngine(
        question_gen=Questions(),
        response_synthesizer=Refine(llm=llm),
        query_engine_tools=[tool],
        use_async=True,
    )


async def test_what_is_asked_for_all_sub_questions_is_a_task_group(
    llm: Parrot, opened: Opened
) -> None:
    """Of two calls for each of the three, and three more of which each needs the one before."""
    await sub_questions(llm, "accumulate").aquery("What?")
    assert sizes(opened.graph()) == [6]


async def test_loops_that_run_side_by_side_are_groups_step_by_step(
    llm: Parrot, opened: Opened
) -> None:
    await sub_questions(llm, "refine").aquery("What?")
    assert sizes(opened.graph()) == [3, 3]


async def test_an_extractor_s_calls_are_a_task_group_however_few_may_run_at_once(
    llm: Parrot, opened: Opened
) -> None:
    documents = [TextNode(text=f"{n}") for n in range(9)]
    extractor = SummaryExtractor(llm=llm, summaries=["self"], num_workers=2, show_progress=False)
    await IngestionPipeline(transformations=[extractor]).arun(nodes=documents)
    assert sizes(opened.graph()) == [9]


# Conversations, sessions


def chat_engine(llm: Parrot) -> SimpleChatEngine:
    return SimpleChatEngine.from_defaults(llm=llm, memory=ChatMemoryBuffer.from_defaults())


async def test_a_chat_engine_s_turns_are_one_thread_and_one_conversation(
    llm: Parrot, opened: Opened
) -> None:
    engine, other = chat_engine(llm), chat_engine(llm)
    await engine.achat("hi")
    await asyncio.to_thread(engine.chat, "and?")
    async for _ in (await engine.astream_chat("more?")).async_response_gen():
        pass
    graph = opened.graph()
    assert graph.conversations == [["request/1", "request/2", "request/3"]]
    assert graph.groups == []
    await other.achat("hi")
    assert len(opened.views()) == 2


async def test_queries_that_run_side_by_side_are_threads_of_their_own(
    llm: Parrot, opened: Opened
) -> None:
    await asyncio.gather(*(_asynchronously(Accumulate(llm=llm, use_async=True)) for _ in range(3)))
    assert [view.unplanned for view in opened.views()] == [4, 4, 4]


async def test_calls_of_the_llm_alone_are_of_no_thread(llm: Parrot, opened: Opened) -> None:
    await asyncio.gather(*(llm.acomplete(text) for text in CHUNKS))
    await llm.apredict(PromptTemplate("{a}"), a="b")
    assert opened.views() == []


async def test_calls_that_one_gather_waits_for_are_siblings(llm: Parrot) -> None:
    async def read(text: str) -> str:
        return "".join([r.delta or "" async for r in await llm.astream_complete(text)])

    async def twice(text: str) -> str:
        return await read((await llm.achat([ChatMessage(text)])).message.content or "")

    with parrot_session() as session:
        await asyncio.gather(*(llm.acomplete(text) for text in "abc"))
        await asyncio.gather(twice("ab"), twice("cd"))
        for text in "fg":
            await llm.acomplete(text)
    (graph,) = await session.agraphs()
    assert sizes(graph) == [3, 2, 2]


async def test_tasks_that_merely_start_together_are_not(llm: Parrot) -> None:
    """As requests to a server: what they have in common is not that somebody waits for all of them."""
    running: set[asyncio.Task[Any]] = set()
    with parrot_session() as session:
        tasks = [asyncio.create_task(llm.acomplete(text)) for text in "abc"]
        for task in tasks:
            task.add_done_callback(running.discard)
        for task in tasks:
            await task
    (graph,) = await session.agraphs()
    assert (len(graph.calls), graph.groups) == (3, [])


async def test_synchronous_calls_in_gathered_tasks_come_one_after_the_other(llm: Parrot) -> None:
    async def block(text: str) -> None:
        llm.complete(text)

    with parrot_session() as session:
        await asyncio.gather(*(block(text) for text in "abc"))
    (graph,) = await session.agraphs()
    assert (len(graph.calls), graph.groups) == (3, [])


async def test_an_index_build_that_nothing_tells_of_has_groups(llm: Parrot) -> None:
    with parrot_session() as session:
        nodes = [each.node for each in NODES]
        build = partial(TreeIndex, nodes, llm=llm, use_async=True, num_children=2)
        await asyncio.to_thread(build)
    (graph,) = session.graphs()
    assert sizes(graph) == [2]


async def test_what_parrot_session_and_task_group_say_goes_first(
    llm: Parrot, opened: Opened
) -> None:
    with parrot_session() as session, instrument_tags({"thread_id": "t", "parrot_group": "g"}):
        with task_group(2):
            await Refine(llm=llm).asynthesize("What?", NODES[:2])
        await llm.acomplete("a")
        await llm.acomplete("b")
    assert [view.thread for view in opened.views()] == [session.thread]
    assert [(group.size, len(group.calls)) for group in opened.graph().groups] == [
        (2, 2),
        (None, 2),
    ]


async def test_then_what_the_tags_say(llm: Parrot, opened: Opened) -> None:
    tags = {"session_id": "Ada's", "parrot_objective": "throughput", "parrot_group": "both"}
    with instrument_tags(tags):
        await Refine(llm=llm).asynthesize("What?", NODES[:2])
        await llm.acomplete("a")
    graph = opened.graph()
    assert [view.thread for view in opened.views()] == [wire_name("Ada's")]
    assert {call.objective for call in graph.calls} == {"throughput"}
    assert members(graph) == [[1, 2, 3]]


async def test_tags_of_other_kinds_are_not_ours(llm: Parrot) -> None:
    with instrument_tags({"parrot_objective": "speed", "thread_id": None, "experiment": "x"}):
        assert (await llm.acomplete("ab")).text == "ba"


async def test_streams_belong_as_well(llm: Parrot, opened: Opened) -> None:
    """Also where nothing else is around them, and all of them are over when none has begun."""

    async def read(text: str) -> str:
        return "".join([r.delta or "" async for r in await llm.astream_complete(text)])

    class Reader(BaseQueryEngine):
        async def _aquery(self, query: Any) -> Any:
            texts = await asyncio.gather(*(read(text) for text in CHUNKS))
            return Response("".join(texts) + await read("1") + await read("2"))

        def _query(self, query: Any) -> Any: ...

        def _get_prompt_modules(self) -> Any:
            return {}

    await Reader(callback_manager=None).aquery("all")
    assert members(opened.graph()) == [[1, 2, 3, 4]]


# What is kept


async def test_nothing_is_kept_of_what_is_over(llm: Parrot) -> None:
    engine = chat_engine(llm)
    await engine.achat("hi")
    await _asynchronously(tree(llm))
    with pytest.raises(ValueError, match="context size"):
        await _asynchronously(Refine(llm=llm, prompt_helper=PromptHelper(context_window=9)))
    assert spans._open == {}
    assert len(spans._conversations) == 1
    del engine
    gc.collect()
    assert spans._conversations == {}


def test_it_is_registered_once_and_again_where_it_was_thrown_out(llm: Parrot) -> None:
    root = root_dispatcher
    handlers = list(root.span_handlers)
    llm.complete("a")
    assert root.span_handlers == handlers
    assert sum(handler is spans._spans for handler in handlers) == 1
    root.span_handlers = []
    try:
        llm.complete("a")
        assert root.span_handlers == [spans._spans]
    finally:
        root.span_handlers = handlers


def test_threads_count_exactly() -> None:
    parent = spans.Span("parent", None, "t")
    inside: list[spans.Span] = []

    def work() -> None:
        for _ in range(500):
            inside.append(spans.Span("child", parent, "t"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({span.place for span in inside}) == 1
    inside[0].asks()
    for _ in range(2000):
        parent.end("child")
    assert parent.begin("child") == 1
