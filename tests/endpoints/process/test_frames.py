"""Whatever the two processes tell each other arrives as it was sent."""

import asyncio
import struct
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.endpoints.base import Card, Job
from parrot_backend.endpoints.process import frames
from parrot_backend.endpoints.process.troubles import Trouble
from parrot_backend.engines.base import (
    Candidate,
    Delta,
    EngineStats,
    ModelCard,
    TokenLogprobs,
    ToolCallDelta,
)
from parrot_backend.wire.protocol import ChatRequest
from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest
from tests.tools import ORDER, WEATHER

numbers = st.integers(0, 2**63 - 1)
logarithms = st.floats(allow_nan=False)
candidates = st.builds(Candidate, numbers, st.binary(), logarithms)
deltas = st.builds(
    Delta,
    text=st.text(),
    tokens=st.lists(numbers).map(tuple),
    cached_tokens=numbers,
    finish_reason=st.sampled_from([None, "stop", "length", "tool_calls"]),
    logprobs=st.lists(
        st.builds(TokenLogprobs, candidates, st.lists(candidates, max_size=3).map(tuple)),
        max_size=3,
    ).map(tuple),
    started=st.none() | st.floats(0, 1e12),
    tool_calls=st.lists(
        st.builds(ToolCallDelta, numbers, st.text(), st.none() | st.text(), st.none() | st.text()),
        max_size=3,
    ).map(tuple),
    prompt_tokens=numbers,
)
stats = st.builds(
    EngineStats,
    **{
        field.name: st.floats(0, 1e9) if field.name.startswith("seconds") else numbers
        for field in fields(EngineStats)
    },
)
troubles = st.builds(Trouble, st.text(), st.text(), st.none() | st.text(), st.none() | st.text())

SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": [None, True, 1.5, "\U0001f99c"]}, "b": {"const": None}},
    "default": None,
}
parameters = st.fixed_dictionaries(
    {},
    optional={
        "model": st.text(),
        "max_tokens": st.integers(1, 2**31 - 1),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1, exclude_min=True),
        "logit_bias": st.dictionaries(st.integers(0, 2**31 - 1), st.floats(-100, 100), max_size=3),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "stop": st.lists(st.text(), max_size=3),
        "logprobs": st.just(True),
        "response_format": st.sampled_from(
            [
                {"type": "json_object"},
                {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
            ]
        ),
    },
)
tools = st.fixed_dictionaries(
    {},
    optional={
        "tools": st.just([WEATHER, ORDER]),
        "parallel_tool_calls": st.booleans(),
        "stream": st.booleans(),
    },
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(min_size=1)}
    ),
    min_size=1,
    max_size=3,
)
chats = st.builds(
    lambda messages, *more: ChatRequest.model_validate(
        {"messages": messages, **more[0], **more[1]}
    ),
    messages,
    parameters,
    tools,
)
prompts = st.builds(
    lambda prompt, more, outputs: PromptRequest.model_validate(
        {"prompt": prompt, **(more if not outputs else {"structured_outputs": outputs})}
    ),
    st.text() | st.lists(st.integers(0, 2**31 - 1), min_size=1),
    parameters,
    st.sampled_from([None, {"json": SCHEMA}, {"regex": "a+"}, {"choice": ["a", "é"]}]),
)
requests: st.SearchStrategy[LLMRequest] = chats | prompts
jobs = st.builds(
    Job,
    requests,
    priority=st.integers(-(2**63), 2**63 - 1),
    tenant=st.text(),
    draft=st.lists(numbers),
)
every_frame = st.one_of(
    st.builds(frames.Generate, numbers, jobs),
    st.builds(frames.Tokenize, numbers, requests),
    st.builds(frames.Cancel, numbers),
    st.builds(frames.Expect, numbers, st.lists(requests, max_size=2), st.text()),
    st.builds(frames.Forget, numbers),
    st.builds(frames.Loading),
    st.builds(
        frames.Ready,
        st.builds(Card, st.builds(ModelCard, st.text(), numbers, st.none() | st.text()), numbers),
        stats,
    ),
    st.builds(frames.NotStarted, troubles),
    st.builds(
        frames.Progress,
        stats,
        deltas=st.lists(st.tuples(numbers, deltas), max_size=3),
        tokenized=st.lists(st.tuples(numbers, st.lists(numbers)), max_size=3),
        failed=st.lists(st.tuples(numbers, troubles), max_size=3),
    ),
)


def read(sent: bytes) -> frames.Frame | None:
    async def reading() -> frames.Frame | None:
        reader = asyncio.StreamReader()
        reader.feed_data(sent)
        reader.feed_eof()
        return await frames.read(reader)

    return asyncio.run(reading())


@given(every_frame)
def test_a_frame_arrives_as_it_was_sent(frame: frames.Frame) -> None:
    if isinstance(frame, frames.Generate):  # a draft that is left out is a tuple
        frame = replace(frame, job=replace(frame.job, draft=frame.job.draft or ()))
    sent = frames.encoded(frame)
    assert read(sent) == frame
    assert read(sent[:-1]) is None


def test_a_default_job_arrives_too() -> None:
    frame = frames.Generate(0, Job(PromptRequest(prompt="x")))
    assert read(frames.encoded(frame)) == frame


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">IB", 2**32 - 1, 0),
        struct.pack(">IB", 2, 99) + b"{}",
        struct.pack(">IB", 2, 2) + b"{}",
        struct.pack(">IB", 3, 2) + b"{{{",
        struct.pack(">IB", 16, 2) + b'{"number": "one"',
    ],
)
def test_what_is_no_frame_is_refused(sent: bytes) -> None:
    with pytest.raises(frames.FrameError):
        read(sent)


def test_the_end_is_none() -> None:
    assert read(b"") is None
    assert read(b"\0\0") is None


def test_what_is_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 100)
    frames.encoded(frames.Cancel(1))
    with pytest.raises(frames.FrameError, match="the most are 100"):
        frames.encoded(frames.Tokenize(1, PromptRequest(prompt="x" * 100)))


def test_what_is_no_text_is_not_sent() -> None:
    with pytest.raises(frames.FrameError, match="not valid Unicode"):
        frames.encoded(frames.NotStarted(Trouble("EngineError", "\ud800")))
