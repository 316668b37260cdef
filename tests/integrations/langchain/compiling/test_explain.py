"""`explain`: what is planned, as text and as a flowchart, and what came of it."""

import re
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import pytest

from parrot_integrations.langchain import ChatParrot, compile
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling.chains import CHAINS
from tests.servers import serving


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(lambda prompt: prompt[::-1][:40])) as url:
        yield ChatParrot(base_url=url, temperature=0)


def explained(name: str, llm: ChatParrot, **options: Any) -> str:
    chain = CHAINS[name]
    return compile(chain.build(llm)).explain(chain.input, **options)


def test_of_each_call_it_tells_prompt_objective_group_and_sharing(llm: ChatParrot) -> None:
    lines = explained("map reduce", llm).splitlines()
    place = lines.index(
        "  call-2: [system] You summarize. [user] Summarize: {text.2} -> {answer-2}"
    )
    assert lines[place + 1].strip() == (
        "throughput, 2 calls to the end, task group call-4.inputs (3 calls), "
        "shares 25 characters with call-1"
    )
    place = lines.index("  call-4: [user] Combine: {joined-1} -> {answer-4}")
    assert lines[place + 1].strip() == "latency, the last call"


def test_before_a_break_no_call_is_the_last(llm: ChatParrot) -> None:
    told = explained("a lambda in between", llm)
    assert "latency, nothing planned reads it" in told
    assert "the last call" not in told


def test_one_is_not_several(llm: ChatParrot) -> None:
    told = explained("one call", llm)
    assert "1 planned call, " in told
    assert "0 graph breaks" in told
    assert re.search(r"\b1 \w+( \w+)?s\b", told) is None


def test_an_item_that_is_not_there_is_named(llm: ChatParrot) -> None:
    told = compile(itemgetter("chunks") | llm).explain({"texts": []})
    assert "  itemgetter('chunks'): the input lacks it." in told


def test_of_each_break_it_tells_reason_and_remedy(llm: ChatParrot) -> None:
    told = explained("a lambda in between", llm)
    assert re.search(r"\n  \S+: is a function of yours.*\. \S.*join_texts\(", told)


_NODE = re.compile(r'^  (n\d+)(?:\(\["|\["|\[/"|\{\{")([^"<>]|<br/>)*(?:"\]\)|"\]|"/\]|"\}\})$')
_EDGE = re.compile(r"^  (n\d+) (?:-->|-\. \d+ characters? \.-) (n\d+)$")
_GROUP = re.compile(r'^  subgraph (n\d+)\["[^"]*"\]$')


@pytest.mark.parametrize("analyze", [False, True])
@pytest.mark.parametrize("name", CHAINS)
def test_the_flowchart_is_well_formed(name: str, analyze: bool, llm: ChatParrot) -> None:
    """Every line is a node, an edge between nodes that there are, or a subgraph that is closed."""
    first, *lines = explained(name, llm, format="mermaid", analyze=analyze).splitlines()
    assert first == "flowchart TD"
    nodes = [found[1] for line in lines if (found := _NODE.match(line))]
    edges = [found.groups() for line in lines if (found := _EDGE.match(line))]
    groups = [line for line in lines if _GROUP.match(line)]
    assert len(nodes) == len(set(nodes))
    assert {node for edge in edges for node in edge} <= set(nodes)
    assert lines.count("  end") == len(groups)
    assert len(lines) == len(nodes) + len(edges) + 2 * len(groups)


def test_the_flowchart_has_the_plan_s_edges_and_groups(llm: ChatParrot) -> None:
    chart = explained("map reduce", llm, format="mermaid")
    assert "task group call-4.inputs" in chart
    assert chart.count(" --> ") == 3 + 3 + 1
    assert chart.count("-. 25 characters .-") == 2
    assert "function of yours" in explained("a lambda in between", llm, format="mermaid")


def test_analyze_runs_and_tells_what_came_of_it(llm: ChatParrot) -> None:
    told = explained("map reduce", llm, analyze=True)
    assert "4 calls planned, 4 of them claimed, 0 not foreseen" in told
    assert re.search(r"Critical path: call-[123] \(.*\) -> call-4 \(.*\): \d", told)
    assert "Speculation wasted: 0 calls" in told
    assert "task group call-4.inputs (3 calls)" in told


def test_analyze_follows_a_plan_over_a_break(llm: ChatParrot) -> None:
    told = explained("a lambda in between", llm, analyze=True)
    assert re.search(r"Critical path: call-1 .* -> (call-2|request-1) ", told)


def test_without_a_plan_there_is_nothing_to_analyze(llm: ChatParrot) -> None:
    compiled = compile(llm | (lambda message: message.text))
    without_calls = compile(str.upper)
    assert "Run (" in compiled.explain("hi", analyze=True)
    assert "0 planned calls" in without_calls.explain("hi", analyze=True)


def test_an_unknown_format_is_refused(llm: ChatParrot) -> None:
    with pytest.raises(ValueError, match="'text' or 'mermaid', not 'dot'"):
        explained("one call", llm, format="dot")


@pytest.mark.model
def test_analyze_on_the_real_engine(base_url: str) -> None:
    """The three summaries share their instruction, and the prefix cache has at least most of it."""
    llm = ChatParrot(base_url=base_url, temperature=0, max_tokens=12)
    told = explained("map reduce", llm, analyze=True)
    rows = [
        line.split() for line in told.splitlines() if line.startswith("  call-") and " s " in line
    ]
    assert [row[-1] for row in rows] == ["claimed"] * 4
    prompts, shared, predicted, answers = (
        [int(row[place]) for row in rows] for place in (-5, -4, -3, -2)
    )
    assert all(0 < answer <= 12 for answer in answers)
    assert all(s < p for s, p in zip(shared, prompts, strict=True))
    assert predicted[0] == 0
    assert predicted[1] > 0
    assert sum(shared[:3]) > 0
