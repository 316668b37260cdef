"""The session executor over a scripted engine: what happens when is decided by the test."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from parrot_backend.endpoints.base import Job
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.endpoints.process import frames
from parrot_backend.engines.base import Delta
from parrot_backend.program.transforms import LONGEST_TEXT
from parrot_backend.serving.call import Call
from parrot_backend.serving.core import ServingCore
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.sessions.session import Session
from parrot_backend.wire.errors import (
    ConflictError,
    ContextLengthError,
    DeadlineError,
    DependencyError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    ParrotError,
    QuotaError,
)
from parrot_backend.wire.protocol import CallScope, Output, Program
from parrot_backend.wire.transforms import Transform
from tests.doubles import ScriptedEngine
from tests.programs import call, join, request, text


async def text_of(call: Call) -> str:
    return "".join([delta.text async for delta in call.read()])


def kinds(session: Session, name: str) -> list[str]:
    return [event.kind for event in session.events(0) if event.name == name]


def seq(session: Session, kind: str, name: str) -> int:
    return next(e.seq for e in session.events(0) if (e.kind, e.name) == (kind, name))


MAP_REDUCE = Program(
    variables={"one": "abc", "two": "xyz"},
    transforms=[join("both", "+", "{a.out}", "{b.out}")],
    calls=[call("a", "1:{one}"), call("b", "2:{two}"), call("c", "sum {both}")],
    outputs=[Output(variable="c.out")],
)


async def test_a_program_runs_by_itself(session: Session) -> None:
    await session.submit(MAP_REDUCE)
    assert await session.read_variable("c.out", 5) == "sum cba:1+zyx:2"[::-1]
    view = session.view()
    assert (view.planned, view.done, view.claimed, view.unclaimed) == (3, 3, 0, 3)


async def test_equal_requests_claim_and_others_run_anew(session: Session) -> None:
    await session.submit(MAP_REDUCE)
    await session.read_variable("c.out", 5)
    claimed = session.take(request("1:abc"))
    assert (claimed.id, claimed.claimed, await text_of(claimed)) == ("a", True, "cba:1")
    again = session.take(request("1:abc"))
    assert not again.claimed, "a planned call is claimed once"
    hotter = session.take(request("2:xyz", temperature=0.5))
    assert not hotter.claimed, "other parameters are another request"
    assert await text_of(again) == "cba:1"
    assert await text_of(hotter) == "zyx:2"
    assert session.view().unplanned == 2


async def test_the_model_s_default_and_its_name_are_one_request(session: Session) -> None:
    await session.submit(MAP_REDUCE)
    assert session.take(request("1:abc", model="scripted")).claimed


async def test_a_claim_streams_a_call_that_is_still_running(
    session: Session, engine: ScriptedEngine
) -> None:
    release = engine.hold("1:abc")
    await session.submit(MAP_REDUCE)
    running = session.take(request("1:abc"))
    async with aclosing(running.read()) as deltas:
        assert [(await anext(deltas)).text for _ in range(4)] == list("cba:")
        release.set()
        assert [delta.text async for delta in deltas] == ["1"]


async def test_a_slow_reader_misses_nothing(core: ServingCore) -> None:
    running = core.tenancy().run(request("slow"))
    deltas = running.read()
    first = await anext(deltas)
    await asyncio.sleep(0.05)
    assert running.ended
    assert first.text + "".join([delta.text async for delta in deltas]) == "wols"


async def test_who_holds_an_output_finds_the_next_call_started(
    session: Session, engine: ScriptedEngine
) -> None:
    """The protocol's one promise: dependents are dispatched before an answer is seen to end."""
    release = engine.hold("1:abc")
    await session.submit(
        Program(variables={"one": "abc"}, calls=[call("a", "1:{one}"), call("b", "{a.out}!")])
    )
    first = session.take(request("1:abc"))
    release.set()
    output = await text_of(first)
    second = session.take(request(output + "!"))
    assert second.claimed
    assert seq(session, "call_started", "b") < seq(session, "call_claimed", "b")


async def test_a_failure_fails_exactly_what_depends_on_it(session: Session) -> None:
    await session.submit(
        Program(
            transforms=[join("both", " ", "{bad.out}", "{good.out}")],
            calls=[
                call("bad", "FAIL"),
                call("good", "fine"),
                call("after-good", "{good.out}"),
                call("after-bad", "{both}"),
                call("last", "{after-bad.out}"),
            ],
        )
    )
    assert await session.read_variable("after-good.out", 5) == "fine"
    with pytest.raises(DependencyError, match="call 'bad' failed: 4 tokens do not fit"):
        await session.read_variable("last.out", 5)
    view = session.view()
    assert (view.done, view.failed) == (2, 3)


async def test_a_long_chain_fails_to_its_end(session: Session) -> None:
    chain = [call(f"c{i}", f"{{c{i - 1}.out}}") for i in range(1, 1000)]
    await session.submit(Program(calls=[call("c0", "FAIL"), *chain]))
    with pytest.raises(DependencyError, match="call 'c0' failed"):
        await session.read_variable("c999.out", 5)
    assert session.view().failed == 1000


async def test_a_message_that_is_too_long_fails_its_call(session: Session) -> None:
    half = "x" * (LONGEST_TEXT // 2 + 1)
    await session.submit(
        Program(
            variables={"half": half, "later": None},
            calls=[call("now", "{half}{half}"), call("then", "{half}{half}{later}")],
        )
    )
    with pytest.raises(DependencyError, match="'now' would come to 4194306 characters, over"):
        await session.read_variable("now.out", 5)
    session.set_variable("later", "!")
    with pytest.raises(DependencyError, match="'then' would come to 4194307 characters"):
        await session.read_variable("then.out", 5)


async def test_a_call_is_dependent_where_another_s_end_made_it_ready(session: Session) -> None:
    await session.submit(
        Program(
            variables={"later": None},
            transforms=[join("joined", "+", "{a.out}")],
            calls=[call("a", "1"), call("b", "{joined}"), call("c", "{a.out}{later}")],
        )
    )
    await session.read_variable("b.out", 5)
    session.set_variable("later", "!")
    await session.submit(Program(calls=[call("d", "{a.out}d")]))
    await session.read_variable("d.out", 5)
    dependent = {view.id: view.dependent for view in session.graph().calls}
    assert dependent == {"a": False, "b": True, "c": False, "d": False}
    assert session.view().dependent == 0, "nobody has asked for it"
    assert session.take(request("1")).claimed
    assert (session.view().claimed, session.view().dependent) == (1, 0)


async def test_claims_say_when_and_count_as_dependent_or_ahead(
    session: Session, engine: ScriptedEngine
) -> None:
    release = engine.hold("now")
    await session.submit(Program(calls=[call("now", "now"), call("next", "{now.out}")]))
    assert session.take(request("now")).claimed
    await session.submit(Program(calls=[call("ahead", "ahead")]))
    release.set()
    await session.read_variable("next.out", 5)
    await asyncio.sleep(0.02)
    for content in ("won", "ahead", "new"):
        await text_of(session.take(request(content)))
    counts = session.view()
    assert (counts.claimed, counts.dependent, counts.ahead, counts.unplanned) == (3, 1, 1, 1)
    for view in session.graph().calls:
        assert (view.claimed_at is not None) is view.claimed
        assert view.claimed_at is None or view.claimed_at >= (view.queued or 0)


async def test_a_call_that_waits_for_room_is_not_ahead(
    session: Session, engine: ScriptedEngine
) -> None:
    release = engine.hold("a")
    calls = [call(name, name).model_copy(update={"concurrency": ["g"]}) for name in "ab"]
    await session.submit(Program(calls=calls, concurrency={"g": 1}))
    await asyncio.sleep(0.02)
    claimed = session.take(request("b"))
    release.set()
    await text_of(claimed)
    assert (session.view().claimed, session.view().ahead) == (1, 0)


async def test_a_transform_that_fails_fails_what_reads_it(session: Session) -> None:
    field = Transform(op="json_field", inputs=[text("{a.out}")], path=["x"], output="field")
    await session.submit(
        Program(transforms=[field], calls=[call("a", "abc"), call("b", "{field}")])
    )
    with pytest.raises(DependencyError, match="transform 'field' finds no json field x"):
        await session.read_variable("b.out", 5)
    assert (session.view().done, session.view().failed) == (1, 1)


async def test_a_failed_prediction_is_no_answer(session: Session) -> None:
    await session.submit(Program(calls=[call("bad", "FAIL")]))
    with pytest.raises(DependencyError):
        await session.read_variable("bad.out", 5)
    fresh = session.take(request("FAIL"))
    assert not fresh.claimed
    with pytest.raises(ContextLengthError):
        await text_of(fresh)


async def test_closing_cancels_and_counts(
    core: ServingCore, session: Session, engine: ScriptedEngine
) -> None:
    engine.hold("1:abc")
    await session.submit(MAP_REDUCE)
    await session.read_variable("b.out", 5)
    core.tenancy().close(session.id)
    view = session.view()
    assert (view.done, view.cancelled, view.failed, view.closed) == (1, 2, 0, True)
    with pytest.raises(NotFoundError):
        core.tenancy().get(session.id)
    assert core.tenancy().inspect(session.id) is session
    await asyncio.sleep(0.05)
    assert engine.running == 0


async def test_variables_can_be_set_later_and_waits_end(session: Session) -> None:
    await session.submit(Program(variables={"x": None}, calls=[call("a", "<{x}>")]))
    with pytest.raises(DeadlineError, match=r"'a\.out' had no value after 0\.01 s"):
        await session.read_variable("a.out", 0.01)
    session.set_variable("x", "12")
    assert await session.read_variable("a.out", 5) == ">21<"
    with pytest.raises(ConflictError):
        session.set_variable("x", "13")
    with pytest.raises(NotFoundError):
        session.set_variable("y", "13")


async def test_a_call_s_variable_cannot_be_set(session: Session, engine: ScriptedEngine) -> None:
    engine.hold("1")
    await session.submit(Program(calls=[call("a", "1")]))
    with pytest.raises(ConflictError, match="written by call 'a'"):
        session.set_variable("a.out", "mine")


async def test_a_program_can_be_extended(session: Session) -> None:
    await session.submit(Program(calls=[call("a", "12")]))
    await session.read_variable("a.out", 5)
    await session.submit(Program(calls=[call("b", "{a.out}3")]))
    assert await session.read_variable("b.out", 5) == "312"


async def test_transforms_settle_once_whatever_the_order(session: Session) -> None:
    await session.submit(
        Program(
            variables={"x": "1"},
            transforms=[join("c", "", "{b}", "{a}"), join("b", "", "{a}{a}"), join("a", "", "{x}")],
        )
    )
    assert await session.read_variable("c", 5) == "111"


async def test_the_answer_that_a_call_refines_is_its_draft(
    session: Session, engine: ScriptedEngine
) -> None:
    await session.submit(MAP_REDUCE)
    await session.submit(Program(calls=[call("d", "{c.out} with more")]))
    await session.read_variable("d.out", 5)
    answer = "2:xyz+1:abc mus"
    assert engine.drafts == {
        "1:abc": "",
        "2:xyz": "",
        "sum cba:1+zyx:2": "",
        f"{answer} with more": answer,
    }


async def test_a_call_with_a_draft_can_be_sent_to_another_process(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []
    generate = LocalEndpoint.generate

    def noted(endpoint: LocalEndpoint, job: Job) -> AsyncGenerator[Delta, None]:
        jobs.append(job)
        return generate(endpoint, job)

    monkeypatch.setattr(LocalEndpoint, "generate", noted)
    await session.submit(Program(calls=[call("a", "1"), call("b", "{a.out} with more")]))
    await session.read_variable("b.out", 5)
    assert [len(job.draft) for job in jobs] == [0, 1]
    assert all(frames.encoded(frames.Generate(1, job)) for job in jobs)


@pytest.mark.parametrize(
    ("limits", "program"),
    [
        (Limits(calls_per_session=2), MAP_REDUCE),
        (Limits(variables_per_session=5), MAP_REDUCE),
    ],
)
async def test_a_session_is_bounded(
    engine: ScriptedEngine, limits: Limits, program: Program
) -> None:
    core = ServingCore(Fleet(Member("local", LocalEndpoint(engine))), limits)
    session = core.tenancy().open()
    with pytest.raises(InvalidRequestError, match="over the limit"):
        await session.submit(program)
    assert session.view().planned == 0
    await core.aclose()


async def test_the_queue_is_bounded_and_loses_nothing_else(engine: ScriptedEngine) -> None:
    core = ServingCore(Fleet(Member("local", LocalEndpoint(engine))), Limits(unfinished_calls=1))
    release = engine.hold("1")
    first = core.tenancy().run(request("1"))
    with pytest.raises(OverloadedError):
        core.tenancy().run(request("2"))
    release.set()
    assert await text_of(first) == "1"
    await core.aclose()


async def test_sessions_are_bounded_and_expire_when_idle(engine: ScriptedEngine) -> None:
    core = ServingCore(
        Fleet(Member("local", LocalEndpoint(engine))), Limits(sessions=1, session_idle_seconds=0.05)
    )
    session = core.tenancy().open()
    with pytest.raises(QuotaError):
        core.tenancy().open()
    engine.hold("1")
    await session.submit(Program(calls=[call("a", "1")]))
    expiry = asyncio.create_task(core.expire_idle())
    await asyncio.sleep(0.3)
    expiry.cancel()
    assert session.closed
    assert engine.running == 0
    core.tenancy().open()
    await core.aclose()


async def test_an_unknown_model_is_refused(session: Session) -> None:
    with pytest.raises(NotFoundError, match="serves 'scripted'"):
        session.take(request("x", model="other"))
    with pytest.raises(ParrotError) as caught:
        await session.submit(Program(calls=[call("a", "x").model_copy(update={"model": "other"})]))
    assert caught.value.param == "calls.0.model"


async def test_an_extension_tells_more_of_who_waits(
    session: Session, engine: ScriptedEngine
) -> None:
    """Calls that have not started yet are placed anew when the program grows."""
    release = engine.hold("slow")
    await session.submit(
        Program(calls=[call("slow", "slow"), call("a", "a{slow.out}"), call("b", "b{slow.out}")])
    )
    assert session.graph().groups == []
    await session.submit(
        Program(calls=[call("c", "{a.out}{b.out}")], outputs=[Output(variable="c.out")])
    )
    (group,) = session.graph().groups
    assert (group.name, group.calls) == ("c.inputs", ["a", "b"])
    release.set()
    await session.read_variable("c.out", 5)
    assert engine.priorities["awols"] == engine.priorities["bwols"]
    assert [view.path for view in session.graph().calls] == [2, 2, 2, 1]


async def test_a_request_is_placed_by_its_scope(session: Session, engine: ScriptedEngine) -> None:
    calls = [
        session.take(request(text), scope)
        for text, scope in (("now", CallScope()), ("bulk", CallScope(objective="throughput")))
    ]
    for running in calls:
        await text_of(running)
    assert engine.priorities["now"] > engine.priorities["bulk"]
    assert [view.objective for view in session.graph().calls] == ["latency", "throughput"]


async def test_an_answer_that_gives_no_valid_text_fails_what_reads_it_alone(
    session: Session, engine: ScriptedEngine
) -> None:
    """JSON may have half a surrogate pair: the call that answered it is answered."""
    engine.script = lambda prompt: '{"a": "x\\ud83d", "b": "fine"}' if "json" in prompt else prompt
    fields = [
        Transform(op="json_field", inputs=[text("{out}")], path=[name], output=name)
        for name in "ab"
    ]
    calls = [call("j", "json", "out"), call("ca", "A {a}", "oa"), call("cb", "B {b}", "ob")]
    await session.submit(Program(calls=calls, transforms=fields))
    assert await session.read_variable("ob", 5) == "B fine"
    states = {view.id: view.state for view in session.graph().calls}
    assert states == {"j": "done", "ca": "failed", "cb": "done"}
    with pytest.raises((DependencyError, InvalidRequestError)):
        await session.read_variable("oa", 5)


async def test_values_of_a_session_are_bounded_together(session: Session) -> None:
    await session.submit(Program(variables=dict.fromkeys(f"v{n}" for n in range(9))))
    with pytest.raises(InvalidRequestError, match="not valid Unicode"):
        session.set_variable("v8", "\ud800")
    for n in range(8):
        session.set_variable(f"v{n}", "x" * 2**22)
    with pytest.raises(InvalidRequestError, match="would come to more than"):
        session.set_variable("v8", "x")


async def test_closing_leaves_the_requests_that_are_being_answered(
    core: ServingCore, session: Session, engine: ScriptedEngine
) -> None:
    held = [engine.hold(prompt) for prompt in ("1:abc", "new")]
    await session.submit(MAP_REDUCE)
    claimed, new = session.take(request("1:abc")), session.take(request("new"))
    reading = [asyncio.create_task(text_of(each)) for each in (claimed, new)]
    await asyncio.sleep(0.05)
    core.tenancy().close(session.id)
    for each in held:
        each.set()
    assert await asyncio.gather(*reading) == ["cba:1", "wen"]
