"""`explain`: what is planned, as text and as a flowchart."""

import json
import re
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import pytest

from parrot_integrations.langchain import ChatParrot, compile
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling.chains import CHAINS, ask
from tests.servers import serving


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(lambda prompt: prompt[::-1][:40])) as url:
        yield ChatParrot(base_url=url, temperature=0)


def opaque(text: str) -> Any:
    """What it gives can't be read from its source."""
    return vars()["text"]


def explained(name: str, llm: ChatParrot, **options: Any) -> str:
    chain = CHAINS[name]
    return compile(chain.build(llm)).explain(chain.input, **options)


def test_of_each_call_it_tells_prompt_objective_group_and_sharing(llm: ChatParrot) -> None:
    lines = explained("map reduce", llm).splitlines()
    place = lines.index(
        "  call-1 … call-3 (3 calls): [system] You summarize. [user] Summarize: {text.*} "
        "-> {answer-*}"
    )
    assert lines[place + 1].strip() == (
        "throughput: one of 3 siblings that feed call-4; only the last to end matters; "
        "2 of them share 25 characters with an earlier call"
    )
    place = lines.index("  call-4: [user] Combine: {joined-1} -> {answer-4}")
    assert lines[place + 1].strip() == "latency: the last call, and its answer is waited for"


def test_before_a_break_no_call_is_the_last(llm: ChatParrot) -> None:
    told = compile(ask("{x}", llm) | opaque | llm).explain({"x": "it"})
    assert "latency: nothing planned reads it" in told
    assert "the last call" not in told


def test_one_is_not_several(llm: ChatParrot) -> None:
    told = explained("one call", llm)
    assert "1 planned call, " in told
    assert "0 graph breaks" in told
    assert re.search(r"\b1 \w+( \w+)?s\b", told) is None


def test_an_item_that_is_not_there_is_named(llm: ChatParrot) -> None:
    told = compile(itemgetter("chunks") | llm).explain({"texts": []})
    assert "  step 1 of 2, itemgetter('chunks'): the input lacks it." in told


_NODE = re.compile(r'^  (n\d+)(?:\(\["|\["|\[/"|\{\{")([^"<>]|<br/>)*(?:"\]\)|"\]|"/\]|"\}\})$')
_EDGE = re.compile(r"^  (n\d+) (?:-->|-\. \d+ characters? \.-) (n\d+)$")


@pytest.mark.parametrize("analyze", [False, True])
@pytest.mark.parametrize("name", CHAINS)
def test_the_flowchart_is_well_formed(name: str, analyze: bool, llm: ChatParrot) -> None:
    """Every line is a node, or an edge between nodes that there are."""
    first, *lines = explained(name, llm, format="mermaid", analyze=analyze).splitlines()
    assert first == "flowchart TD"
    nodes = [found[1] for line in lines if (found := _NODE.match(line))]
    edges = [found.groups() for line in lines if (found := _EDGE.match(line))]
    assert len(nodes) == len(set(nodes))
    assert {node for edge in edges for node in edge} <= set(nodes)
    assert len(lines) == len(nodes) + len(edges)


def test_the_flowchart_has_the_plan_s_edges_and_groups(llm: ChatParrot) -> None:
    chart = explained("map reduce", llm, format="mermaid")
    assert "call-1 … call-3 (3 calls): throughput" in chart
    assert "task group of 3 calls" in chart
    assert chart.count(" --> ") == 3 + 1 + 1
    chart = explained("parallel", llm, format="mermaid")
    assert chart.count(" -. ") == 0
    chart = compile(ask("{x}", llm) | opaque | llm).explain({"x": "it"}, format="mermaid")
    assert "{{" in chart
    assert "opaque at " in chart


@pytest.mark.model
def test_analyze_on_the_real_engine(base_url: str) -> None:
    """The three summaries share their instruction, and the prefix cache has at least most of it."""
    llm = ChatParrot(base_url=base_url, temperature=0, max_tokens=12)
    told = json.loads(explained("map reduce", llm, analyze=True, format="json"))
    calls = told["run"]["calls"]
    assert all(call["fate"].startswith("claimed") for call in calls)
    assert calls[3]["fate"] == "claimed, dependent"
    assert all(0 < call["answer_tokens"] <= 12 for call in calls)
    assert all(call["shared_tokens"] < call["prompt_tokens"] for call in calls)
    assert calls[0]["predicted_tokens"] == 0
    assert calls[1]["predicted_tokens"] > 0
    assert sum(call["shared_tokens"] for call in calls[:3]) > 0
