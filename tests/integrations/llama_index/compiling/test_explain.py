"""What `explain` says of why planning stopped, and that it says it of this run."""

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import SummaryIndex, get_response_synthesizer
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.chat_engine import CondensePlusContextChatEngine, SimpleChatEngine
from llama_index.core.extractors import SummaryExtractor
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers import Accumulate, TreeSummarize
from llama_index.core.schema import Document, NodeWithScore, TextNode
from llama_index.core.tools import QueryEngineTool
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step

from parrot_integrations.llama_index import Parrot, compile
from parrot_integrations.llama_index.compiling.shadow.ledger import Ledger
from parrot_integrations.llama_index.compiling.shadow.llm import AwaitedObject
from parrot_integrations.llama_index.compiling.shadow.reasons import failed
from parrot_integrations.planning.plan import Plan
from tests.integrations.llama_index.compiling.answers import AnsweringEngine, Answers
from tests.servers import serving

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    engine = AnsweringEngine()
    engine.answers = Answers(odd=False)
    with serving(engine) as url:
        yield url


@pytest.fixture
def llm(url: str) -> Parrot:
    return Parrot(base_url=url, context_window=1000, max_tokens=32)


def nodes() -> list[TextNode]:
    return [TextNode(text=f"w{n} " * 200, id_=f"node-{n}") for n in range(6)]


def scored() -> list[NodeWithScore]:
    return [NodeWithScore(node=node) for node in nodes()]


def stops(told: str) -> str:
    """The breaks of an explanation."""
    return told.split("Graph breaks\n")[1].split("\n\n")[0]


def condensing(llm: Parrot) -> Any:
    retriever = SummaryIndex(nodes()).as_retriever()
    return compile(CondensePlusContextChatEngine.from_defaults(llm=llm, retriever=retriever))


def splitting(llm: Parrot) -> Any:
    steps = [
        SentenceSplitter(chunk_size=60, chunk_overlap=0),
        SummaryExtractor(llm=llm, show_progress=False),
    ]
    return compile(IngestionPipeline(transformations=steps))


def sub_questions(llm: Parrot) -> Any:
    tools = [
        QueryEngineTool.from_defaults(
            SummaryIndex([TextNode(text=name)]).as_query_engine(llm=llm),
            name=name,
            description=name,
        )
        for name in ("rivers", "stones")
    ]
    engine = SubQuestionQueryEngine(
        question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
        query_engine_tools=tools,
        response_synthesizer=get_response_synthesizer(llm=llm),
        use_async=False,
        verbose=False,
    )
    return compile(engine)


def test_a_chat_engine_begins_with_what_is_not_there_yet(llm: Parrot) -> None:
    told = condensing(llm).explain("hi")
    assert "begins a turn with what the model or a retriever says" in stops(told)
    assert "analyze=True runs it" in told


@pytest.mark.parametrize("turns", [1, 2])
def test_nobody_is_told_to_do_what_was_done(llm: Parrot, turns: int) -> None:
    chat: Any = condensing(llm)
    for _ in range(turns):
        told = chat.explain("hi", analyze=True)
        assert "claimed" in told
        assert "analyze=True" not in told
        assert "not code that planning may run" not in told


def test_a_turn_of_one_call_has_nothing_to_gain(llm: Parrot) -> None:
    told = compile(SimpleChatEngine.from_defaults(llm=llm)).explain("hi", analyze=True)
    assert "makes one call a turn, which nothing can make sooner" in stops(told)
    assert "analyze=True" not in told


def test_a_splitters_nodes_are_known_when_it_has_run(llm: Parrot) -> None:
    pipeline = splitting(llm)
    documents = [Document(text="One two. " * 60)]
    told = pipeline.explain(documents=documents)
    assert "SentenceSplitter: gives nodes that are known only when it has run" in stops(told)
    assert "analyze=True" in told
    assert "analyze=True" not in pipeline.explain(documents=documents, analyze=True)


def test_an_error_of_the_frameworks_own_is_told_in_its_words(url: str) -> None:
    llm = Parrot(base_url=url, context_window=300, max_tokens=400)
    told = compile(TreeSummarize(llm=llm)).explain("what?", scored())
    assert "raises ValueError: Calculated available context size -" in stops(told)
    assert "was not non-negative.\n" in stops(told) + "\n"


def test_what_reads_the_models_answer_is_named(llm: Parrot) -> None:
    told = stops(sub_questions(llm).explain("What of the river?"))
    assert "SubQuestionOutputParser: what the model says is parsed here." in told
    assert "Error" not in told


def test_what_is_behind_a_break_of_a_call_is_not_its_sibling(llm: Parrot) -> None:
    """All else waits for the call that writes the questions."""
    told = sub_questions(llm).explain("What of the river?", analyze=True)
    at = told.index("  call-1: ")
    reason = told[at : told.index("  call-2", at)].splitlines()[1]
    assert "latency: nothing planned reads it, and its answer is waited for" in reason
    assert "not submitted" in reason


def test_siblings_of_one_run_are_no_path(llm: Parrot) -> None:
    told = compile(Accumulate(llm=llm)).explain("what?", scored(), analyze=True)
    (path,) = [line for line in told.splitlines() if line.startswith("Critical path")]
    assert "->" not in path


def test_of_an_error_nothing_is_told_that_is_not_the_runs() -> None:
    awaited = AwaitedObject(TextNode)
    reasons = [
        failed(kind(awaited), "it", Ledger(Plan())).reason for kind in (ValueError, KeyError)
    ]
    assert reasons == ["raises ValueError", "needs what only the run has"]


class Flow(Workflow):
    """Of one step."""

    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result="done")


# Workflows look at all attributes of an agent, also at those that pydantic retires.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
@pytest.mark.parametrize("name", ["explain", "aexplain"])
def test_what_has_no_explain_says_why(llm: Parrot, name: str) -> None:
    agent = compile(FunctionAgent(tools=[], llm=llm))
    for each in (compile(Flow()), agent):
        with pytest.raises(AttributeError, match="its steps are code that planning does not run"):
            getattr(each, name)
        assert not hasattr(each, name)
