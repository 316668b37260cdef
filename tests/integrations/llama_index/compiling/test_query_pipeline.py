"""Query pipelines: planned component by component, otherwise as LlamaIndex left them, bug for bug."""

import asyncio
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.prompts import PromptTemplate

from parrot_integrations.llama_index import Parrot, PlannedSession, compile
from tests.doubles import ScriptedEngine
from tests.integrations.llama_index.compiling import comparing
from tests.integrations.llama_index.compiling.comparing import Bench, compiling
from tests.integrations.llama_index.compiling.watching import assert_equal, left_behind
from tests.servers import eventually, serving

pipelines = pytest.importorskip(
    "llama_index.core.query_pipeline", reason="LlamaIndex has query pipelines only before 0.13"
)
FnComponent, InputComponent = pipelines.FnComponent, pipelines.InputComponent
pytestmark = left_behind


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def llm(engine: ScriptedEngine) -> Iterator[Parrot]:
    with serving(engine) as url:
        yield Parrot(base_url=url, temperature=0, max_tokens=20)


@pytest.fixture
def sessions() -> list[PlannedSession]:
    return []


def pipeline(*links: tuple[Any, ...], **modules: Any) -> Any:
    """A pipeline of these modules and links, without the warning that it is deprecated."""
    with warnings.catch_warnings(record=True):
        made = pipelines.QueryPipeline(modules=modules)
    for src, dest, *options in links:
        made.add_link(src, dest, **(options[0] if options else {}))
    return made


def chain(*modules: Any) -> Any:
    with warnings.catch_warnings(record=True):
        return pipelines.QueryPipeline(chain=modules)


def said(output: Any) -> str:
    return output.message.content if isinstance(output, ChatResponse) else str(output)


def fan(llm: Parrot, width: int) -> Any:
    """A root, so many prompts beside each other, and a join."""
    made = pipeline(root=InputComponent())
    for n in range(width):
        made.add_modules({f"prompt{n}": PromptTemplate(f"{n}{{x}}"), f"llm{n}": llm})
        made.add_link("root", f"prompt{n}")
        made.add_link(f"prompt{n}", f"llm{n}")
    names = {f"llm{n}" for n in range(width)}
    made.add(
        "join", FnComponent(fn=lambda **all_: sorted(map(said, all_.values())), req_params=names)
    )
    for name in names:
        made.add_link(name, "join", dest_key=name)
    return made


def both(made: Any, run: Callable[[Any], Any], sessions: list[PlannedSession]) -> Any:
    """What the pipeline gives, which it gives compiled as well; an error as its type and text."""
    expected, found = (
        _outcome(run, each) for each in (made, compile(made, on_session=sessions.append))
    )
    assert found == expected
    return found


def _outcome(run: Callable[[Any], Any], made: Any) -> Any:
    try:
        result = run(made)
        return _plain(asyncio.run(result) if asyncio.iscoroutine(result) else result)
    except Exception as error:
        return type(error).__name__, str(error)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [*map(_plain, value)]
    if isinstance(value, ChatResponse):
        return "ChatResponse", said(value)
    if hasattr(value, "inputs") and hasattr(value, "outputs"):
        return _plain(value.inputs), _plain(value.outputs)
    return value


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with comparing.bench() as bench:
        yield bench


@pytest.mark.parametrize("seed", range(100, 140))
def test_it_does_the_same_compiled(bench: Bench, sessions: list[PlannedSession], seed: int) -> None:
    """More than of what all releases have, which `test_differential` draws."""
    expected, case = bench.run("query pipeline", seed)
    found, _ = bench.run("query pipeline", seed, compiling(sessions))
    assert_equal(found, expected, concurrent=case.concurrent)


# What is planned


def test_a_chain_is_handed_over_whole(llm: Parrot, sessions: list[PlannedSession]) -> None:
    made = chain(
        PromptTemplate("a{x}"), llm, PromptTemplate("b{x}"), llm, PromptTemplate("c{x}"), llm
    )
    assert both(made, lambda p: p.run(x="1"), sessions) == ("ChatResponse", "b1ac")
    (session,) = sessions
    assert session.final is not None
    assert (session.final.planned, session.final.claimed, session.final.unclaimed) == (3, 3, 0)


def test_what_runs_in_turn_is_under_way_at_once(llm: Parrot, engine: ScriptedEngine) -> None:
    held = [engine.hold(f"{n}x") for n in range(7)]
    runner = threading.Thread(target=compile(fan(llm, 7)).run, kwargs={"x": "x"})
    runner.start()
    assert eventually(lambda: engine.running == 7)
    engine.held.clear()
    for event in held:
        event.set()
    runner.join(timeout=30)
    assert not runner.is_alive()
    assert len(engine.started) == 7


async def test_four_run_at_once_as_they_are_and_all_when_compiled(
    llm: Parrot, engine: ScriptedEngine
) -> None:
    for made, most in ((fan(llm, 7), 4), (compile(fan(llm, 7)), 7)):
        engine.started.clear()
        held = [engine.hold(f"{n}x") for n in range(7)]
        run = asyncio.create_task(made.arun(x="x"))
        assert await asyncio.to_thread(eventually, lambda most=most: engine.running == most)
        await asyncio.sleep(0.1)
        assert engine.running == most
        engine.held.clear()
        for event in held:
            event.set()
        assert await run == sorted(f"x{n}" for n in range(7))


def test_what_a_function_gives_is_planned_with_before_the_next_component_runs(
    llm: Parrot, engine: ScriptedEngine
) -> None:
    made = pipeline(
        ("root", "shout"),
        ("root", "ask"),
        ("ask", "slow"),
        ("shout", "then"),
        ("then", "last"),
        root=InputComponent(),
        shout=FnComponent(fn=lambda x: x.upper()),
        ask=PromptTemplate("slow {x}"),
        slow=llm,
        then=PromptTemplate("then {x}"),
        last=llm,
    )
    slow = engine.hold("slow go")
    runner = threading.Thread(target=compile(made).run_multi, args=({"root": {"x": "go"}},))
    runner.start()
    assert eventually(lambda: "then GO" in engine.started)
    engine.held.clear()
    slow.set()
    runner.join(timeout=30)
    assert sorted(engine.started) == ["slow go", "then GO"]


@pytest.mark.parametrize("where", ["outside of a loop", "in a loop", "asynchronously"])
def test_a_batch_is_one_session(llm: Parrot, sessions: list[PlannedSession], where: str) -> None:
    made = chain(PromptTemplate("a{x}"), llm, FnComponent(fn=said), PromptTemplate("b{x}"), llm)

    def run(compiled: Any) -> Any:
        async def inside() -> Any:
            return compiled.run(x=["1", "2", "3"], batch=True)

        if where == "asynchronously":
            return compiled.arun(x=["1", "2", "3"], batch=True)
        return inside() if where == "in a loop" else compiled.run(x=["1", "2", "3"], batch=True)

    found = both(made, run, sessions)
    assert found == [("ChatResponse", f"a{n}b") for n in "123"]
    (session,) = sessions
    assert session.final is not None
    assert session.final.claimed >= 3
    assert session.final.unclaimed == 0


def test_a_pipeline_in_a_pipeline(llm: Parrot, sessions: list[PlannedSession]) -> None:
    inner = chain(PromptTemplate("b{y}"), llm)
    made = chain(PromptTemplate("a{x}"), llm, inner, PromptTemplate("c{z}"), llm)
    assert both(made, lambda p: p.run(x="1"), sessions) == ("ChatResponse", "b1ac")
    (session,) = sessions
    assert session.final is not None
    assert (session.final.planned, session.final.claimed) == (3, 3)


def test_a_function_around_a_pipeline(llm: Parrot, sessions: list[PlannedSession]) -> None:
    made = chain(PromptTemplate("a{x}"), llm, PromptTemplate("b{x}"), llm)
    run = compile(lambda: said(made.run(x="1")), on_session=sessions.append)
    assert run() == "a1b"
    (session,) = sessions
    assert session.final is not None
    assert session.final.claimed == 2


# What is not


def test_the_users_code_runs_once_and_not_ahead(llm: Parrot, engine: ScriptedEngine) -> None:
    asked: list[str] = []

    def noting(name: str, result: Any = None) -> Callable[[Any], Any]:
        def note(x: Any) -> Any:
            asked.append(f"{name} {said(x)}")
            return said(x) if result is None else result

        return note

    def made(prompt: str) -> Any:
        return compile(
            pipeline(
                ("ask", "llm"),
                ("llm", "f", {"condition_fn": noting("if", True), "input_fn": noting("to")}),
                ("f", "again"),
                ("again", "last"),
                ask=PromptTemplate(prompt),
                llm=llm,
                f=FnComponent(fn=noting("f")),
                again=PromptTemplate("again {x}"),
                last=llm,
            )
        )

    assert said(made("a{x}").run(x="1")) == "a1 niaga"
    assert sorted(asked) == ["f 1a", "if 1a", "to 1a"]
    asked.clear()
    with pytest.raises(Exception, match="do not fit"):
        made("FAIL {x}").run(x="1")
    assert asked == []


@pytest.mark.parametrize("asynchronously", [False, True])
def test_only_the_branch_that_is_taken_is_asked(
    llm: Parrot,
    engine: ScriptedEngine,
    sessions: list[PlannedSession],
    asynchronously: bool,
) -> None:
    made = pipeline(
        ("root", "left", {"condition_fn": lambda x: x == "l"}),
        ("root", "right", {"condition_fn": lambda x: x != "l"}),
        ("left", "of left"),
        ("right", "of right"),
        ("of right", "more"),
        ("more", "of more"),
        root=InputComponent(),
        left=PromptTemplate("left {x}"),
        right=PromptTemplate("right {x}"),
        more=PromptTemplate("more {x}"),
        **{"of left": llm, "of right": llm, "of more": llm},
    )
    found = both(made, lambda p: p.arun(x="r") if asynchronously else p.run(x="r"), sessions)
    assert found == ("ChatResponse", "right r erom")
    assert engine.started[2:] == engine.started[:2] == ["right r", "more r thgir"]
    (session,) = sessions
    assert session.final is not None
    assert (session.final.unplanned, session.final.unclaimed) == (0, 0)


def test_a_component_of_the_users_is_not_asked_for_its_keys_ahead(llm: Parrot) -> None:
    asked: list[str] = []

    class Twice(pipelines.CustomQueryComponent):
        @property
        def _input_keys(self) -> set[str]:
            asked.append(threading.current_thread().name)
            return {"x"}

        @property
        def _output_keys(self) -> set[str]:
            return {"output"}

        def _run_component(self, **kwargs: Any) -> Any:
            return {"output": 2 * said(kwargs["x"])}

    made = chain(PromptTemplate("a{x}"), llm, Twice(), PromptTemplate("b{x}"), llm)
    assert said(compile(made).run(x="1")) == "a1a1b"
    assert "parrot-shadow" not in asked


def test_compiling_warns_of_nothing_and_leaves_the_original(llm: Parrot) -> None:
    made = chain(PromptTemplate("a{x}"), llm)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = compile(made)
    assert type(compiled).__name__ == type(made).__name__ == "QueryPipeline"
    assert type(made) is pipelines.QueryPipeline
    assert isinstance(compiled, pipelines.QueryPipeline)
    assert compiled.module_dict is not made.module_dict or compiled.module_dict == made.module_dict


# As they are, bug for bug


def test_a_condition_sees_what_a_component_gave_and_the_next_gets_what_is_made_of_it(
    llm: Parrot, sessions: list[PlannedSession]
) -> None:
    seen: list[Any] = []
    edge = {"condition_fn": lambda x: not seen.append(x), "input_fn": lambda x: x + "!"}
    made = pipeline(
        ("root", "ask", edge),
        ("ask", "llm"),
        root=InputComponent(),
        ask=PromptTemplate("a{x}"),
        llm=llm,
    )
    assert both(made, lambda p: p.run(x="1"), sessions) == ("ChatResponse", "!1a")
    assert seen == ["1", "1"]


def test_where_no_condition_holds_the_last_output_is_the_result(
    llm: Parrot, sessions: list[PlannedSession]
) -> None:
    never = {"condition_fn": lambda x: False}
    made = pipeline(
        ("ask", "llm"),
        ("llm", "b", never),
        ("llm", "c", never),
        ask=PromptTemplate("a{x}"),
        llm=llm,
        b=PromptTemplate("b{x}"),
        c=PromptTemplate("c{x}"),
    )
    assert both(made, lambda p: p.run(x="1"), sessions) == ("ChatResponse", "1a")


@pytest.mark.parametrize("asynchronously", [False, True])
def test_the_inputs_of_a_level_are_told_to_be_those_of_its_last_component(
    llm: Parrot, sessions: list[PlannedSession], asynchronously: bool
) -> None:
    made = fan(llm, 2)

    def run(p: Any) -> Any:
        if asynchronously:
            return p.arun_with_intermediates(x="x")
        return p.run_with_intermediates(x="x")

    result, steps = both(made, run, sessions)
    assert result == ["x0", "x1"]
    told = [steps[f"llm{n}"][0]["messages"] for n in range(2)]
    assert told == (["1x", "1x"] if asynchronously else ["0x", "1x"])


@pytest.mark.parametrize("asynchronously", [False, True])
def test_a_pack_of_arguments_is_there_before_its_arguments(
    llm: Parrot, sessions: list[PlannedSession], asynchronously: bool
) -> None:
    made = pipeline(
        ("root", "ask"),
        ("ask", "llm"),
        ("llm", "pack", {"dest_key": "0"}),
        root=InputComponent(),
        ask=PromptTemplate("a{x}"),
        llm=llm,
        pack=pipelines.ArgPackComponent(),
    )
    found = both(made, lambda p: p.arun(x="1") if asynchronously else p.run(x="1"), sessions)
    assert found == ("ValueError", "Only one output is supported.")
    several = both(made, lambda p: p.run_multi({"root": {"x": "1"}}), sessions)
    assert several == {"pack": {"output": []}, "llm": {"output": ("ChatResponse", "1a")}}


ERRORS = {
    "Output dict must have exactly one key.": (
        [("root", "ask")],
        {"root": InputComponent, "ask": lambda: PromptTemplate("{x}")},
    ),
    "Only one root is supported.": (
        [],
        {"root": InputComponent, "other": InputComponent},
    ),
    "Module input keys must have exactly one key if dest_key is not specified. "
    "Remaining keys: in module: ": (
        [("root", "ask", {"src_key": "x"})],
        {"root": InputComponent, "ask": lambda: PromptTemplate("{x} {y}")},
    ),
}


@pytest.mark.parametrize("text", ERRORS)
def test_errors_are_the_frameworks(llm: Parrot, sessions: list[PlannedSession], text: str) -> None:
    links, modules = ERRORS[text]
    made = pipeline(*links, **{name: make() for name, make in modules.items()})
    name, found = both(made, lambda p: p.run(x="1", y="2"), sessions)
    assert name == "ValueError"
    assert found.startswith(text)


def test_partial_inputs_win(llm: Parrot, sessions: list[PlannedSession]) -> None:
    ask = PromptTemplate("{x}{y}").as_query_component(partial={"y": "p"})
    made = pipeline(("ask", "llm"), ask=ask, llm=llm)
    assert both(made, lambda p: p.run(x="1"), sessions) == ("ChatResponse", "p1")
