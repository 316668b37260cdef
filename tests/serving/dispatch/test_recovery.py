"""Endpoints die under calls: what a reader gets is what it would have got."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_backend.endpoints.tool_calls import assembled
from parrot_backend.engines.base import Candidate, Delta, TokenLogprobs, ToolCallDelta
from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.dispatcher import Dispatcher
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.serving.limits import Limits
from parrot_backend.wire.errors import EndpointLostError
from tests.serving.dispatch.conftest import MakeDispatcher
from tests.serving.dispatch.doubles import (
    StagedEndpoint,
    a_call,
    enter,
    nothing_left,
    settle,
)


class Reader:
    """Reads a call in a task of its own."""

    def __init__(self, call: Call) -> None:
        self.deltas: list[Delta] = []
        self.task = asyncio.create_task(self._read(call))

    async def _read(self, call: Call) -> None:
        async for delta in call.read():
            self.deltas.append(delta)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)


async def lose(endpoint: StagedEndpoint) -> None:
    endpoint.die()
    await settle()
    endpoint.become("ready")
    await settle()


async def told_and_lost(
    dispatcher: Dispatcher, endpoint: StagedEndpoint, call: Call, text: str = "abc"
) -> Reader:
    """Who reads a call that has told so much of its answer, then lost its endpoint, and runs again."""
    enter(dispatcher, call)
    reader = Reader(call)
    await settle()
    endpoint.answer(call.id, text, last=False)
    await settle()
    await lose(endpoint)
    return reader


async def test_a_lost_call_runs_again_when_the_endpoint_is_back(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(1)
    dispatcher = dispatch(endpoint)
    call = a_call("a")
    enter(dispatcher, call)
    await settle()
    endpoint.die()
    await settle()
    assert call.state == "queued"
    endpoint.become("starting")
    await settle()
    assert call.state == "queued"
    endpoint.become("ready")
    await settle()
    endpoint.answer("a", "fine")
    await settle()
    assert (call.state, call.text, call.attempts) == ("done", "fine", 2)


async def test_it_is_tried_so_often_and_no_more(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(1)
    dispatcher = dispatch(endpoint, attempts=3)
    call = a_call("a")
    enter(dispatcher, call)
    await settle()
    for _ in range(3):
        assert call.state == "running"
        await lose(endpoint)
    assert isinstance(call.error, EndpointLostError)
    assert call.error.code == "endpoint_lost"
    assert len(endpoint.started) == 3
    assert nothing_left(dispatcher)


async def test_a_greedy_stream_goes_on_where_it_stood(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(1)
    call = a_call("a")
    reader = await told_and_lost(dispatch(endpoint), endpoint, call)
    for piece in ("ab", "cde"):
        endpoint.answer("a", piece, last=False)
    endpoint.answer("a", "f")
    await settle()
    assert [delta.text for delta in reader.deltas] == ["abc", "de", "f"]
    assert call.completion_tokens == 6
    assert endpoint.jobs[0].request.seed is None


async def test_a_sampled_stream_is_seeded_so_that_it_can_go_on(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(2)
    call, other = a_call("a", temperature=None), a_call("b", temperature=0.5)
    dispatcher = dispatch(endpoint)
    enter(dispatcher, other)
    reader = await told_and_lost(dispatcher, endpoint, call, "ab")
    assert call.request is not None
    assert call.request.seed is None  # what was asked for stays what it is
    endpoint.answer("a", "abc")
    await settle()
    assert reader.text == "abc"
    seeds = [job.request.seed for job in endpoint.jobs]
    assert None not in seeds
    assert seeds[0] == seeds[2] != seeds[1] == seeds[3]


async def test_the_clients_seed_is_kept(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(1)
    enter(dispatch(endpoint), a_call("a", temperature=1, seed=5))
    await settle()
    assert endpoint.jobs[0].request.seed == 5


async def test_another_answer_than_was_told_is_an_error(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(1)
    reader = await told_and_lost(dispatch(endpoint), endpoint, a_call("a"))
    endpoint.answer("a", "abX", last=False)
    await settle()
    with pytest.raises(EndpointLostError) as failure:
        await reader.task
    assert failure.value.code == "answer_diverged"
    assert reader.text == "abc"
    assert endpoint.runs == []


async def test_a_shorter_answer_than_was_told_is_an_error(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(1)
    reader = await told_and_lost(dispatch(endpoint), endpoint, a_call("a"))
    endpoint.answer("a", "ab")
    await settle()
    with pytest.raises(EndpointLostError, match="another answer"):
        await reader.task


async def test_unrepeatable_starts_again_where_nobody_has_seen_anything(
    dispatch: MakeDispatcher,
) -> None:
    endpoint = StagedEndpoint(1, repeatable=False)
    call = a_call("a", temperature=1)
    enter(dispatch(endpoint), call)
    await settle()
    endpoint.answer("a", "abc", last=False)
    await settle()
    await lose(endpoint)
    assert endpoint.jobs[1].request.seed is None
    reader = Reader(call)
    endpoint.answer("a", "xyz")
    await settle()
    assert (reader.text, call.completion_tokens) == ("xyz", 3)


async def test_unrepeatable_that_is_wanted_as_a_whole_starts_again(
    dispatch: MakeDispatcher,
) -> None:
    """Who waits for all of it has seen nothing of what is lost."""
    endpoint = StagedEndpoint(1, repeatable=False)
    call = a_call("a", temperature=1)
    enter(dispatch(endpoint), call)
    waiting = asyncio.create_task(call.wait())
    await settle()
    endpoint.answer("a", "abc", last=False)
    await settle()
    await lose(endpoint)
    endpoint.answer("a", "xyz")
    await settle()
    await waiting
    assert (call.text, call.completion_tokens, call.attempts) == ("xyz", 3, 2)


async def test_unrepeatable_that_was_read_ends_with_a_typed_error(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(1, repeatable=False)
    call, greedy = a_call("a", temperature=1), a_call("b")
    dispatcher = dispatch(endpoint)
    reader = await told_and_lost(dispatcher, endpoint, call)
    with pytest.raises(EndpointLostError) as failure:
        await reader.task
    assert failure.value.code == "not_repeatable"
    reader = await told_and_lost(dispatcher, endpoint, greedy)  # a greedy one has a chance
    endpoint.answer("b", "abcd")
    await settle()
    assert reader.text == "abcd"


async def test_a_call_that_ended_meanwhile_does_not_come_back(dispatch: MakeDispatcher) -> None:
    endpoint = StagedEndpoint(1)
    call = a_call("a")
    enter(dispatch(endpoint), call)
    await settle()
    endpoint.die()
    call.end("cancelled")
    await settle()
    endpoint.become("ready")
    await settle()
    assert call.state == "cancelled"
    assert endpoint.started == ["a"]


# Any answer, in any pieces, lost anywhere


@dataclass(frozen=True)
class Answer:
    """What a model says: the pieces that it comes in are another matter."""

    text: str
    tokens: tuple[int, ...]
    logprobs: bool
    tools: tuple[tuple[str, str], ...]


def logprobs_of(tokens: Sequence[int]) -> tuple[TokenLogprobs, ...]:
    return tuple(TokenLogprobs(Candidate(token, b"x", -0.1 * token)) for token in tokens)


ANSWERS = st.builds(
    Answer,
    st.text("ab😀 ", max_size=12),
    st.lists(st.integers(0, 9), min_size=1, max_size=12).map(tuple),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(["f", "g"]), st.text("{}1", max_size=5)), max_size=3).map(
        tuple
    ),
)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Answer, list[tuple[list[Delta], int | None]]]:
    """An answer, and several runs of it: the deltas of each, and after how many of them it is lost."""
    answer = draw(ANSWERS)
    found: list[tuple[list[Delta], int | None]] = []
    for number in range(draw(st.integers(1, 4))):
        deltas = draw(split(answer, number))
        found.append((deltas, draw(st.integers(0, len(deltas) - 1))))
    return answer, [*found[:-1], (found[-1][0], None)]


@st.composite
def split(draw: st.DrawFn, answer: Answer, run: int) -> list[Delta]:
    """The answer in random pieces; its text may come later than its tokens, or in other pieces."""
    count = draw(st.integers(1, 6))

    def cuts(length: int) -> list[int]:
        inner = draw(st.lists(st.integers(0, length), min_size=count - 1, max_size=count - 1))
        return [0, *sorted(inner), length]

    fragments: list[ToolCallDelta] = []
    for index, (name, arguments) in enumerate(answer.tools):
        at = draw(st.integers(0, len(arguments)))
        fragments.append(ToolCallDelta(index, "", id=f"run-{run}-{index}", name=name))
        fragments += [ToolCallDelta(index, p) for p in (arguments[:at], arguments[at:]) if p]
    text, tokens, tools = cuts(len(answer.text)), cuts(len(answer.tokens)), cuts(len(fragments))
    return [
        Delta(
            answer.text[text[i] : text[i + 1]],
            (piece := answer.tokens[tokens[i] : tokens[i + 1]]),
            0,
            "stop" if i == count - 1 else None,
            logprobs_of(piece) if answer.logprobs else (),
            tool_calls=tuple(fragments[tools[i] : tools[i + 1]]),
        )
        for i in range(count)
    ]


@settings(max_examples=200, deadline=None)
@given(runs(), st.booleans())
def test_a_reader_gets_what_it_would_have_got(
    case: tuple[Answer, list[tuple[list[Delta], int | None]]], read_from_the_start: bool
) -> None:
    answer, plan = case

    async def scenario() -> None:
        endpoint = StagedEndpoint(1)
        dispatcher = Dispatcher(Fleet(Member("one", endpoint)), Limits(attempts=len(plan)))
        call = a_call("a")
        reader = Reader(call) if read_from_the_start else None
        enter(dispatcher, call)
        for deltas, lost_after in plan:
            await settle()
            for delta in deltas[:lost_after]:
                endpoint.run_of("a").steps.put_nowait(delta)
                await settle(6)
            if lost_after is not None:
                await lose(endpoint)
        await settle()
        reader = reader or Reader(call)
        await reader.task
        deltas = reader.deltas
        assert reader.text == answer.text == call.text
        assert tuple(token for delta in deltas for token in delta.tokens) == answer.tokens
        told = tuple(one for delta in deltas for one in delta.logprobs)
        assert told == (logprobs_of(answer.tokens) if answer.logprobs else ())
        tools = assembled(piece for delta in deltas for piece in delta.tool_calls)
        named = tuple((tool.function.name, tool.function.arguments) for tool in tools)
        assert named == answer.tools
        assert len({tool.id for tool in tools}) == len(tools)
        assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + ["stop"]
        assert call.completion_tokens == len(answer.tokens)
        await settle()
        assert nothing_left(dispatcher)

    asyncio.run(scenario())
