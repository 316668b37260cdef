"""What a compiled object is, and what its runs leave alone."""

import asyncio
import gc
import json
import logging
import threading
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from llama_index.core import SummaryIndex, TreeIndex, get_response_synthesizer
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.extractors import KeywordExtractor, SummaryExtractor, TitleExtractor
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import TreeSummarize
from llama_index.core.schema import Document, NodeWithScore, QueryBundle, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step

from parrot_integrations.client import background
from parrot_integrations.llama_index import Parrot, PlannedSession, compile
from parrot_integrations.llama_index.compiling.remembering import remembering
from tests.doubles import ScriptedEngine
from tests.servers import eventually, serving

# The framework's `asyncio_run` leaves event loops that it has made open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def _script(prompt: str) -> str:
    return f" said {sum(map(ord, prompt)) % 1000}\n"


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    engine = ScriptedEngine(_script)
    engine.model = type(engine.model)("scripted", 100_000)
    return engine


@pytest.fixture(scope="module")
def url(engine: ScriptedEngine) -> Iterator[str]:
    with serving(engine) as url:
        yield url


@pytest.fixture
def llm(url: str) -> Parrot:
    return Parrot(base_url=url, context_window=1000, max_tokens=100)


@pytest.fixture
def sessions() -> list[PlannedSession]:
    return []


def nodes(count: int = 12) -> list[TextNode]:
    return [TextNode(text=" ".join(f"w{n}x{m}" for m in range(60))) for n in range(count)]


def scored(count: int = 12) -> list[NodeWithScore]:
    return [NodeWithScore(node=node) for node in nodes(count)]


class Counting(BaseRetriever):
    """Notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self.asked.append(query_bundle.query_str)
        return scored()


def test_a_compiled_object_is_one_of_its_class_and_the_original_stays(llm: Parrot) -> None:
    original = TreeSummarize(llm=llm)
    compiled = compile(original)
    assert isinstance(compiled, TreeSummarize)
    assert type(compiled).__name__ == "TreeSummarize"
    assert type(original) is TreeSummarize
    compiled.update_prompts({"summary_template": PromptTemplate("{context_str} {query_str}")})
    assert original.get_prompts() != compiled.get_prompts()


@pytest.mark.parametrize(
    ("given", "advice"),
    [(SummaryIndex([]), "as_query_engine"), (PromptTemplate("x"), "no method that asks")],
)
def test_what_asks_nothing_itself_is_refused_with_advice(given: Any, advice: str) -> None:
    with pytest.raises(TypeError, match=advice):
        compile(given)


def test_an_unknown_objective_is_refused_at_once(llm: Parrot) -> None:
    with pytest.raises(ValueError, match="not 'fast'"):
        compile(TreeSummarize(llm=llm), objective="fast")  # type: ignore[arg-type]


def test_a_builds_class_explains_it(llm: Parrot) -> None:
    compiled: Any = compile(TreeIndex)
    told = compiled.explain(nodes=nodes(), llm=llm, num_children=3)
    assert "feed" in told
    assert "claimed" in compiled.explain(nodes=nodes(), llm=llm, num_children=3, analyze=True)


def test_explain_takes_what_the_run_takes(llm: Parrot) -> None:
    compiled: Any = compile(TreeSummarize(llm=llm))
    with pytest.raises(TypeError, match="nodes"):
        compiled.explain("what?")


@pytest.mark.parametrize("given", [3, "text", None, object()])
def test_what_is_not_llama_indexs_and_no_function_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="object or class of LlamaIndex's or a function"):
        compile(given)


def test_the_first_level_is_submitted_at_once_and_the_server_dispatches_parents(
    llm: Parrot, engine: ScriptedEngine, sessions: list[PlannedSession]
) -> None:
    synthesizer = compile(TreeSummarize(llm=llm), on_session=sessions.append)
    synthesizer.synthesize("what?", scored())
    (session,) = sessions
    calls = session.graph().calls
    *leaves, root = calls
    assert [leaf.dependent for leaf in leaves] == [False] * len(leaves)
    assert root.dependent
    assert all(call.claimed for call in calls)
    events = [event.kind for event in session.events()]
    assert "call_claimed" not in events[: events.index("call_started")]
    assert events.count("call_planned") == len(calls)
    assert "call_planned" not in events[events.index("call_started") :]


def test_what_is_compiled_again_has_the_new_options(
    llm: Parrot, sessions: list[PlannedSession]
) -> None:
    once = compile(TreeSummarize(llm=llm), ahead=False)
    twice = compile(once, on_session=sessions.append)
    assert type(twice).__mro__[1:] == TreeSummarize.__mro__
    twice.synthesize("what?", scored())
    assert len(sessions) == 1


async def test_the_steps_of_a_workflow_are_planned_until_it_is_over(
    llm: Parrot, sessions: list[PlannedSession]
) -> None:
    class Flow(Workflow):
        @step
        async def only(self, ev: StartEvent) -> StopEvent:
            answer = await TreeSummarize(llm=llm).asynthesize("what?", scored())
            return StopEvent(result=str(answer))

    assert await compile(Flow(), on_session=sessions.append).run() == await Flow().run()
    assert sessions[0].final is not None
    assert sessions[0].final.claimed == sessions[0].final.planned > 1


def test_nothing_is_submitted_where_nothing_could_start_earlier(
    llm: Parrot, sessions: list[PlannedSession]
) -> None:
    compile(get_response_synthesizer(llm=llm), on_session=sessions.append).synthesize(
        "what?", scored(1)
    )
    assert sessions == []


def test_ahead_false_plans_nothing(llm: Parrot, sessions: list[PlannedSession]) -> None:
    compile(TreeSummarize(llm=llm), ahead=False, on_session=sessions.append).synthesize(
        "what?", scored()
    )
    assert sessions == []


def test_a_retriever_is_asked_once_and_twice_where_it_is_pure(
    llm: Parrot, sessions: list[PlannedSession]
) -> None:
    retriever = Counting()
    engine = RetrieverQueryEngine(retriever, TreeSummarize(llm=llm))
    expected = str(engine.query("what?"))
    assert str(compile(engine, on_session=sessions.append).query("what?")) == expected
    assert retriever.asked == ["what?"] * 2
    assert sessions[0].view().claimed == sessions[0].view().planned > 1
    compile(engine, pure_retrievers=True).query("what?")
    assert retriever.asked == ["what?"] * 4


def test_a_users_engine_runs_once_and_what_it_uses_is_planned(
    llm: Parrot, sessions: list[PlannedSession]
) -> None:
    runs: list[str] = []

    class Own(BaseQueryEngine):
        def _query(self, query_bundle: QueryBundle) -> Any:
            runs.append(query_bundle.query_str)
            return TreeSummarize(llm=llm).synthesize(query_bundle, scored())

        async def _aquery(self, query_bundle: QueryBundle) -> Any:
            raise NotImplementedError

        def _get_prompt_modules(self) -> dict[str, Any]:
            return {}

    engine = Own(callback_manager=None)
    with pytest.raises(TypeError):
        compile(3)
    compile(engine, on_session=sessions.append).query("what?")
    assert runs == ["what?"]
    assert sessions[0].view().claimed == sessions[0].view().planned > 1


def test_functions_are_planned_where_they_call_the_framework(
    llm: Parrot, sessions: list[PlannedSession]
) -> None:
    @compile
    def summarized(count: int) -> str:
        """Docs."""
        return str(TreeSummarize(llm=llm).synthesize("what?", scored(count)))

    assert summarized.__doc__ == "Docs."
    told = summarized.explain(12, analyze=True)  # type: ignore[attr-defined]
    assert "claimed" in told


async def test_async_functions_stay_async(llm: Parrot, sessions: list[PlannedSession]) -> None:
    async def summarized(count: int) -> str:
        return str(await TreeSummarize(llm=llm).asynthesize("what?", scored(count)))

    compiled = compile(summarized, on_session=sessions.append)
    assert asyncio.iscoroutinefunction(compiled)
    assert await compiled(12) == await summarized(12)
    assert sessions[0].view().unclaimed == 0


def test_bound_methods_are_their_objects(llm: Parrot, sessions: list[PlannedSession]) -> None:
    index = SummaryIndex(nodes())
    query = compile(
        index.as_query_engine(llm=llm, response_mode="tree_summarize").query,
        on_session=sessions.append,
    )
    assert str(query("what?"))
    assert sessions


def test_a_builds_calls_are_planned(llm: Parrot, sessions: list[PlannedSession]) -> None:
    built = compile(TreeIndex, on_session=sessions.append)(nodes=nodes(), llm=llm, num_children=3)
    assert isinstance(built, TreeIndex)
    plain = TreeIndex(nodes=nodes(), llm=llm, num_children=3)
    texts = [sorted(n.text for n in each.docstore.docs.values()) for each in (built, plain)]
    assert texts[0] == texts[1]
    assert sessions[0].view().claimed == sessions[0].view().planned > 3


class TestPipelines:
    def pipeline(self, llm: Parrot, **more: Any) -> IngestionPipeline:
        kinds = (TitleExtractor, SummaryExtractor, KeywordExtractor)
        steps = [kind(llm=llm, show_progress=False) for kind in kinds]
        splitter = SentenceSplitter(chunk_size=100, chunk_overlap=0)
        return IngestionPipeline(transformations=[splitter, *steps], **more)

    def documents(self) -> list[Document]:
        texts = [" ".join(f"w{n}x{m}." for m in range(60)) for n in range(3)]
        return [Document(text=text, doc_id=f"doc-{n}") for n, text in enumerate(texts)]

    def test_extractors_are_one_plan_through_the_metadata(
        self, llm: Parrot, sessions: list[PlannedSession]
    ) -> None:
        expected = self.pipeline(llm).run(documents=self.documents())
        made = compile(self.pipeline(llm), on_session=sessions.append).run(
            documents=self.documents()
        )
        assert [(n.text, n.metadata) for n in made] == [(n.text, n.metadata) for n in expected]
        (session,) = sessions
        assert session.view().claimed == session.view().planned
        assert session.view().dependent > len(made)

    def test_what_the_cache_has_is_not_planned(
        self, llm: Parrot, engine: ScriptedEngine, sessions: list[PlannedSession]
    ) -> None:
        pipeline = self.pipeline(llm)
        pipeline.run(documents=self.documents())
        asked = len(engine.started)
        compile(pipeline, on_session=sessions.append).run(documents=self.documents())
        assert (sessions, len(engine.started)) == ([], asked)

    @pytest.mark.filterwarnings("ignore:docstore_strategy")
    def test_a_docstore_is_changed_by_the_run_alone(
        self, llm: Parrot, sessions: list[PlannedSession]
    ) -> None:
        pipeline = self.pipeline(llm, docstore=SimpleDocumentStore())
        made = compile(pipeline, on_session=sessions.append).run(documents=self.documents())
        assert len(made) > 0
        assert sessions[0].view().unclaimed == 0
        assert compile(pipeline).run(documents=self.documents()) == []


class TestStreams:
    def stream(self, llm: Parrot, sessions: list[PlannedSession]) -> Any:
        synthesizer = get_response_synthesizer(
            llm=llm, response_mode="tree_summarize", streaming=True
        )
        return compile(synthesizer, on_session=sessions.append).synthesize("what?", scored())

    def test_the_session_is_open_until_the_stream_is_read(
        self, llm: Parrot, sessions: list[PlannedSession]
    ) -> None:
        response = self.stream(llm, sessions)
        assert not sessions[0].client.session(sessions[0].id).closed
        assert str(response)
        assert sessions[0].final is not None
        assert sessions[0].final.claimed == sessions[0].final.planned

    def test_who_drops_the_stream_ends_the_run(
        self, llm: Parrot, sessions: list[PlannedSession]
    ) -> None:
        response = self.stream(llm, sessions)
        del response
        client, name = sessions[0].client, sessions[0].id
        assert eventually(lambda: client.session(name).closed)

    @pytest.mark.parametrize("read", [0, 1])
    def test_the_garbage_collector_ends_the_run_under_any_lock(
        self, read: int, llm: Parrot, sessions: list[PlannedSession]
    ) -> None:
        def collect() -> None:
            with background._lock:
                gc.collect()

        response = self.stream(llm, sessions)
        for _ in range(read):
            next(response.response_gen)
        response.metadata = {"itself": response}
        del response
        collecting = threading.Thread(target=collect, daemon=True)
        collecting.start()
        collecting.join(20)
        assert not collecting.is_alive()
        client, name = sessions[0].client, sessions[0].id
        assert eventually(lambda: client.session(name).closed)


def test_the_shadow_is_silent(llm: Parrot, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llama_index")
    compile(TreeIndex)(nodes=nodes(), llm=llm, num_children=3)
    told = [record.message for record in caplog.records]
    caplog.clear()
    TreeIndex(nodes=nodes(), llm=llm, num_children=3)
    assert len(told) == len([record.message for record in caplog.records]) > 0


def test_explain_runs_nothing_and_tells_of_packing(llm: Parrot, engine: ScriptedEngine) -> None:
    compiled: Any = compile(TreeSummarize(llm=llm))
    asked = len(engine.started)
    told = compiled.explain("what?", scored())
    assert "siblings that feed" in told
    assert "packing: took" in told
    assert len(engine.started) == asked
    assert json.loads(compiled.explain("what?", scored(), format="json"))["calls"]
    with pytest.raises(ValueError, match="format is"):
        compiled.explain("what?", scored(), format="pdf")
    retrieving: Any = compile(RetrieverQueryEngine(Counting(), TreeSummarize(llm=llm)))
    assert "pure_retrievers=True" in retrieving.explain("what?")


async def test_explain_has_an_async_form(llm: Parrot) -> None:
    compiled: Any = compile(TreeSummarize(llm=llm))
    assert "Critical path" in await compiled.aexplain("what?", scored(), analyze=True)


@pytest.mark.parametrize("seed", range(20))
def test_what_remembers_packs_the_same(seed: int) -> None:
    drawn = Random(seed)
    helper = PromptHelper(
        context_window=drawn.choice([400, 1000]),
        num_output=100,
        chunk_overlap_ratio=drawn.choice([0, 0.1, 0.5]),
    )
    fast = remembering(helper)
    assert type(helper._token_counter.tokenizer) is not type(fast._token_counter.tokenizer)
    prompt = PromptTemplate("{context_str} and {query_str}")
    texts = [
        " ".join(
            drawn.choice(["a", "longer words", "\n", "…"]) * drawn.randrange(9) for _ in "x" * n
        )
        for n in (0, 1, 50, 300)
    ]

    def packed(own: PromptHelper) -> list[Any]:
        truncated = [text for text in texts if text.strip()]  # of nothing there is no first chunk
        return [own.repack(prompt, texts), own.truncate(prompt, truncated)]

    for _ in range(2):
        assert packed(fast) == packed(helper)


@pytest.mark.parametrize("is_async", [False, True])
def test_the_last_call_of_a_stream_is_planned_as_well(
    is_async: bool, llm: Parrot, sessions: list[PlannedSession]
) -> None:
    made = get_response_synthesizer(llm=llm, response_mode="refine", streaming=True)
    compiled = compile(made, on_session=sessions.append)

    async def answered() -> None:
        response = await compiled.asynthesize("Which?", scored(3))
        assert [token async for token in response.response_gen]

    if is_async:
        asyncio.run(answered())
    else:
        assert [*compiled.synthesize("Which?", scored(3)).response_gen]
    view = sessions[0].view()
    assert (view.planned, view.claimed, view.unplanned) == (3, 3, 0)
