"""`explain(analyze=True)` and `compare=True`: run against a server, and told in every form."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from parrot_backend.engines.base import Delta, GenerationRequest
from parrot_integrations.langchain import ChatParrot, compile, parrot_session
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling.chains import CHAINS, ask
from tests.servers import eventually, serving

SECONDS = 0.15


class SlowEngine(ScriptedEngine):
    """Each call takes a while, however many there are."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        await asyncio.sleep(SECONDS)
        async for delta in super().generate(request):
            yield delta


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(SlowEngine(lambda prompt: prompt[::-1][:40])) as url:
        yield ChatParrot(base_url=url, temperature=0)


def explained(name: str, llm: ChatParrot, **options: Any) -> str:
    chain = CHAINS[name]
    return compile(chain.build(llm)).explain(chain.input, analyze=True, **options)


def one_after_another(llm: ChatParrot) -> Runnable[Any, Any]:
    """Two calls that do not need each other, which LangChain runs in sequence."""
    both = RunnablePassthrough.assign(a=ask("A {x}", llm)).assign(b=ask("B {x}", llm))
    return both | ask("{a} and {b}", llm)


def test_it_runs_and_tells_what_came_of_it(llm: ChatParrot) -> None:
    told = explained("map reduce", llm)
    assert "4 of 4 planned calls submitted, 4 of them claimed: 1 dependent" in told
    assert re.search(r"Critical path: call-[123] \(.*\) -> call-4 \(.*\): \d", told)
    assert "Speculation wasted: 0 calls" in told
    assert "one of 3 siblings that feed call-4" in told
    assert re.search(r"  call-1 … call-3 +\d.* claimed", told)


def test_it_tells_dependent_calls_and_calls_run_ahead_and_what_they_saved(llm: ChatParrot) -> None:
    run = json.loads(
        compile(one_after_another(llm)).explain({"x": "it"}, analyze=True, format="json")
    )["run"]
    assert [call["fate"] for call in run["calls"]][1:] == ["claimed, ahead", "claimed, dependent"]
    assert run["saved_seconds"] >= 0.8 * SECONDS
    assert run["critical_path"][-1] == "call-3"


def test_the_backend_tells_the_same_in_a_session_s_counts(llm: ChatParrot) -> None:
    sessions: list[Any] = []
    compile(one_after_another(llm), on_session=sessions.append).invoke({"x": "it"})
    final = sessions[0].final
    assert (final.claimed, final.dependent, final.ahead >= 1) == (3, 1, True)
    assert final.saved_seconds >= 0.8 * SECONDS


def test_the_views_of_a_session_tell_it_too(llm: ChatParrot) -> None:
    with parrot_session() as session:
        compile(one_after_another(llm)).invoke({"x": "it"})
        assert eventually(lambda: any(view.closed for view in session.views()))
        (view,) = [view for view in session.views() if view.planned]
    assert view.dependent == 1
    assert view.saved_seconds is not None
    assert view.saved_seconds >= 0.8 * SECONDS


def test_it_follows_a_plan_over_a_break(llm: ChatParrot) -> None:
    first = ask("Name {x}", llm) | ask("Paint {y}", llm)
    chain = first | (lambda text: text.title()) | ask("Draw {z}", llm) | ask("Frame {w}", llm)
    told = compile(chain).explain("it", analyze=True)
    assert re.search(r"Critical path: call-1 .* -> call-2 .* -> call-3 .* -> call-4 ", told)


def test_a_run_that_had_nothing_to_submit_says_so(llm: ChatParrot) -> None:
    """What is analyzed is the run that one gets."""
    told = compile(ask("Name {x}", llm)).explain("it", analyze=True)
    assert "the run: had nothing to submit: no call would have started any earlier" in told
    assert "claimed" not in told


def test_without_calls_there_is_nothing_to_analyze() -> None:
    assert "0 planned calls" in compile(str.upper).explain("hi", analyze=True)


def counted(seen: list[str], llm: ChatParrot) -> Runnable[Any, Any]:
    async def later(value: Any) -> Any:
        seen.append("async")
        return value

    def now(value: Any) -> Any:
        seen.append("sync")
        return value

    return RunnableLambda(now, afunc=later) | one_after_another(llm)


def test_compared_are_planned_and_native_runs_in_turns(llm: ChatParrot) -> None:
    seen: list[str] = []
    told = compile(counted(seen, llm)).explain({"x": "it"}, compare=True)
    assert seen == ["sync"] * 4
    rows = re.findall(r"^  (native|planned) +(\d+\.\d+) s$", told, re.MULTILINE)
    assert [way for way, _ in rows] == ["planned", "native"] * 2
    assert float(rows[2][1]) < float(rows[3][1])
    assert re.search(r"the plan gained 0\.\d+ s \(\d+ %\) in the last pair", told)
    assert "Critical path" in told


def test_the_comparison_is_in_the_json(llm: ChatParrot) -> None:
    told = json.loads(explained("two steps", llm, compare=True, format="json"))
    comparison = told["comparison"]
    assert [run["way"] for run in comparison["runs"]] == ["planned", "native"] * 2
    assert comparison["gained_seconds"] == pytest.approx(
        comparison["runs"][3]["seconds"] - comparison["runs"][2]["seconds"]
    )


def test_aexplain_runs_by_ainvoke_and_tells_the_same(llm: ChatParrot) -> None:
    seen: list[str] = []
    compiled = compile(counted(seen, llm))
    assert asyncio.run(compiled.aexplain({"x": "it"})) == compiled.explain({"x": "it"})
    assert seen == []
    told = asyncio.run(compiled.aexplain({"x": "it"}, analyze=True))
    assert seen == ["async"]
    assert "3 of them claimed: 1 dependent" in told
    asyncio.run(compiled.aexplain({"x": "it"}, compare=True))
    assert seen == ["async"] * 5


def test_a_notebook_is_shown_a_page_with_what_came_of_it(llm: ChatParrot) -> None:
    told: Any = explained("map reduce", llm)
    page = told._repr_mimebundle_()["text/html"]
    assert "<svg" in page
    assert "Critical path" in page


def test_an_unknown_form_is_refused_before_anything_runs(llm: ChatParrot) -> None:
    seen: list[str] = []
    with pytest.raises(ValueError, match="'mermaid', not 'dot'"):
        compile(counted(seen, llm)).explain({"x": "it"}, compare=True, format="dot")
    assert seen == []
