"""The engine as asyncio sees it: streams, cancellation, refusals, the end."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from parrot_backend.engines.base import Delta, Engine, EngineStats, GenerationRequest, Sampling
from parrot_backend.engines.torch_engine import TorchEngine
from parrot_backend.engines.torch_engine.errors import KVMemoryError, ModelLoadError
from parrot_backend.engines.torch_engine.forward.cpu.llama import CpuLlama
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel
from parrot_backend.engines.torch_engine.memory.kv_cache import token_bytes
from parrot_backend.wire.errors import (
    ContextLengthError,
    EngineError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
)
from parrot_backend.wire.messages import ChatMessage

SLOTS = 2048


def start(loaded: LoadedModel, slots: int = SLOTS, **options: Any) -> TorchEngine:
    per_token = token_bytes(loaded.shapes, loaded.forward.kv_dtype)
    return TorchEngine.start(loaded, "tiny", kv_memory=slots * per_token, **options)


@pytest.fixture
async def engine(tiny: LoadedModel) -> AsyncIterator[TorchEngine]:
    engine = start(tiny)
    yield engine
    await engine.aclose()


def request(prompt: list[int], count: int | None = 8, **options: Any) -> GenerationRequest:
    return GenerationRequest(prompt, Sampling(temperature=0, max_tokens=count), **options)


async def collect(engine: Engine, wanted: GenerationRequest) -> list[Delta]:
    return [delta async for delta in engine.generate(wanted)]


def tokens_of(deltas: list[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.tokens]


async def until(engine: Engine, condition: Callable[[EngineStats], bool]) -> EngineStats:
    for _ in range(1000):
        if condition(stats := engine.stats()):
            return stats
        await asyncio.sleep(0.005)
    raise AssertionError(f"it never came to that: {engine.stats()}")


def idle(stats: EngineStats) -> bool:
    return (stats.running, stats.waiting, stats.kv_used_tokens) == (0, 0, 0)


async def until_cancelled(engine: Engine) -> None:
    """All is free again long before the generation, of some 400 tokens, would have ended."""
    stats = await until(engine, idle)
    assert 1 <= stats.tokens_generated < 100


async def test_a_generation_streams_one_token_at_a_time(
    engine: TorchEngine, tiny_reference: Any, tiny: LoadedModel
) -> None:
    deltas = await collect(engine, request([5, 6, 7]))
    tiny_reference.check([5, 6, 7], tokens_of(deltas), 8)
    assert [len(delta.tokens) for delta in deltas] == [1] * 8
    assert [delta.finish_reason for delta in deltas] == [None] * 7 + ["length"]
    text = tiny.tokenizer.decode(tokens_of(deltas), skip_special_tokens=True)
    assert "".join(delta.text for delta in deltas) == text


async def test_what_ends_an_answer_is_no_repetition_where_the_prompt_has_it(
    engine: TorchEngine, tiny: LoadedModel
) -> None:
    """A chat's template writes it after each message."""
    (end,) = tiny.end_tokens
    wanted = Sampling(temperature=0, logit_bias={end: 50}, repetition_penalty=100, max_tokens=8)
    deltas = await collect(engine, GenerationRequest([5, end, 6], wanted))
    assert [delta.finish_reason for delta in deltas] == ["stop"]
    assert tokens_of(deltas) == [end]


@pytest.mark.parametrize("drafting", [True, False])
async def test_a_draft_gives_several_tokens_at_once_and_can_be_switched_off(
    tiny: LoadedModel, tiny_reference: Any, drafting: bool
) -> None:
    known = tiny_reference.greedy([5, 6, 7], 12)
    engine = start(tiny, drafting=drafting)
    deltas = await collect(engine, request([5, 6, 7], 12, draft=known))
    assert tokens_of(deltas) == known
    assert (len(deltas) < 5) == drafting
    stats = engine.stats()
    assert (stats.tokens_drafted >= stats.tokens_accepted > 0) == drafting
    await engine.aclose()


async def test_many_at_once_each_get_their_own_and_the_counts_add_up(
    engine: TorchEngine, tiny_reference: Any
) -> None:
    prompts = [[2 + i, *range(40, 80), 3 + i] for i in range(20)]
    answers = await asyncio.gather(*(collect(engine, request(prompt)) for prompt in prompts))
    for prompt, deltas in zip(prompts, answers, strict=True):
        tiny_reference.check(prompt, tokens_of(deltas), 8)
    stats = engine.stats()
    assert idle(stats)
    assert stats.kv_capacity_tokens == SLOTS
    assert stats.tokens_generated == 20 * 8
    assert stats.tokens_prefilled + stats.tokens_shared == sum(len(prompt) for prompt in prompts)
    assert stats.kv_cached_tokens == 20 * (42 + 7)


async def test_the_model_card(engine: TorchEngine) -> None:
    assert (engine.model.name, engine.model.context_length) == ("tiny", 512)


async def test_load_takes_a_path(tiny_path: str) -> None:
    engine = TorchEngine.load(tiny_path, "mine", kv_memory=10**6)
    assert engine.model.name == "mine"
    assert len(await collect(engine, request([5, 6, 7], 2))) == 2
    await engine.aclose()


def test_a_memory_without_room_for_a_token_is_refused(tiny: LoadedModel) -> None:
    with pytest.raises(ModelLoadError, match="kv_memory is 100 bytes and 'tiny' takes 768"):
        TorchEngine.start(tiny, "tiny", kv_memory=100)


async def test_closing_the_stream_frees_its_memory(engine: TorchEngine) -> None:
    stream = engine.generate(request([5] * 100, None))
    await anext(stream)
    assert engine.stats().kv_used_tokens >= 100
    await stream.aclose()
    await until_cancelled(engine)


async def test_cancelling_the_task_frees_its_memory(engine: TorchEngine) -> None:
    task = asyncio.create_task(collect(engine, request([5] * 100, None)))
    await until(engine, lambda stats: stats.tokens_generated > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_cancelled(engine)


async def test_dropping_the_stream_frees_its_memory(engine: TorchEngine) -> None:
    stream = engine.generate(request([5] * 100, None))
    await anext(stream)
    del stream
    gc.collect()
    await until_cancelled(engine)


async def test_cancelling_one_that_waits_takes_it_out(tiny: LoadedModel) -> None:
    engine = start(tiny, max_batch=1)
    running = engine.generate(request([5] * 10, None))
    await anext(running)
    waiting = asyncio.create_task(collect(engine, request([6] * 10, None)))
    await until(engine, lambda stats: stats.waiting == 1)
    waiting.cancel()
    stats = await until(engine, lambda stats: stats.waiting == 0)
    assert stats.running == 1
    await running.aclose()
    await engine.aclose()


async def test_neighbours_do_not_notice_a_cancellation(
    engine: TorchEngine, tiny_reference: Any
) -> None:
    shared = list(range(30, 60))
    prompts = [[*shared, 70 + i] for i in range(8)]
    leaving = [engine.generate(request([*shared, 100 + i], None)) for i in range(4)]
    staying = [asyncio.create_task(collect(engine, request(p, 30))) for p in prompts]
    for stream in leaving:
        await anext(stream)
        await stream.aclose()
    for prompt, task in zip(prompts, staying, strict=True):
        tiny_reference.check(prompt, tokens_of(await task), 30)


def test_a_client_whose_event_loop_is_gone_is_dropped(tiny: LoadedModel) -> None:
    engine = start(tiny)
    streams = []

    async def begin() -> None:
        streams.append(engine.generate(request([5] * 10, None)))
        await anext(streams[0])

    # Not asyncio.run: that would close the stream orderly.
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    deadline = time.monotonic() + 10
    while not idle(engine.stats()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert idle(engine.stats())
    asyncio.run(engine.aclose())


async def test_a_full_queue_refuses_and_the_others_go_on(tiny: LoadedModel) -> None:
    engine = start(tiny, max_batch=1, max_waiting=2)
    tasks = []
    for number in range(3):
        tasks.append(asyncio.create_task(collect(engine, request([5 + number] * 5, 60))))
        await until(engine, lambda stats: stats.running == 1)
    await until(engine, lambda stats: stats.waiting == 2)
    with pytest.raises(OverloadedError, match="2 generations are waiting"):
        await collect(engine, request([9] * 5))
    assert [len(tokens_of(deltas)) for deltas in await asyncio.gather(*tasks)] == [60] * 3
    await engine.aclose()


async def test_a_burst_beyond_the_queue_is_refused(tiny: LoadedModel) -> None:
    engine = start(tiny, max_batch=1, max_waiting=2)
    burst = [collect(engine, request([5 + i] * 5, 60)) for i in range(20)]
    results = await asyncio.gather(*burst, return_exceptions=True)
    refused = [result for result in results if isinstance(result, OverloadedError)]
    assert len(refused) >= 17
    assert idle(engine.stats())
    await engine.aclose()


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        (request([]), InvalidRequestError, "the prompt is empty"),
        (request([5, 258]), InvalidRequestError, "from 0 to 257"),
        (request([5, -1]), InvalidRequestError, "from 0 to 257"),
        (request([5], draft=[258]), InvalidRequestError, "from 0 to 257"),
        (request([5] * 512), ContextLengthError, "has 512 tokens; 'tiny' has a context of 512"),
        (
            GenerationRequest([5], Sampling(stop=("x", ""))),
            InvalidRequestError,
            "a stop string is empty",
        ),
        (request([5], 0), InvalidRequestError, "max_tokens is 0"),
        (
            GenerationRequest([5], Sampling(logit_bias={5: 1, 258: 1})),
            InvalidRequestError,
            "names token 258",
        ),
        (GenerationRequest([5], Sampling(logit_bias={-1: 1})), InvalidRequestError, "token -1"),
    ],
)
async def test_bad_requests_are_refused(
    engine: TorchEngine, wanted: GenerationRequest, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await collect(engine, wanted)
    assert len(await collect(engine, request([5, 6]))) == 8


async def test_a_prompt_longer_than_the_memory_is_refused_with_numbers(tiny: LoadedModel) -> None:
    engine = start(tiny, slots=64)
    with pytest.raises(KVMemoryError, match=r"has 100 tokens .* KV memory for 64"):
        await collect(engine, request([5] * 100))
    with pytest.raises(KVMemoryError, match=r"has 20 tokens .* KV memory for 16"):
        await collect(engine, request([5] * 20, kv_share=0.25))
    await engine.aclose()


async def test_a_step_that_fails_fails_what_is_there_and_the_engine_goes_on(
    engine: TorchEngine, tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch, tiny_reference: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(CpuLlama, "__call__", lambda *_: 1 / 0)
        results = await asyncio.gather(
            *(collect(engine, request([5 + i, 6, 7])) for i in range(3)), return_exceptions=True
        )
    assert all(isinstance(result, EngineError) for result in results)
    assert "division by zero" in str(results[0])
    assert idle(engine.stats())
    tiny_reference.check([5, 6, 7], tokens_of(await collect(engine, request([5, 6, 7]))), 8)


def engine_threads() -> int:
    return sum(thread.name == "parrot-engine" for thread in threading.enumerate())


async def test_closing_ends_what_runs_and_what_waits(tiny: LoadedModel) -> None:
    threads = engine_threads()
    engine = start(tiny, max_batch=1)
    assert engine_threads() == threads + 1
    tasks = [asyncio.create_task(collect(engine, request([5 + i] * 5, None))) for i in range(3)]
    await until(engine, lambda stats: stats.waiting == 2)
    await engine.aclose()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, UnavailableError) for result in results)
    with pytest.raises(UnavailableError):
        await collect(engine, request([5]))
    await engine.aclose()
    assert engine_threads() == threads


async def test_an_engine_that_has_nothing_left_to_do_logs_no_error(
    engine: TorchEngine, caplog: pytest.LogCaptureFixture
) -> None:
    await collect(engine, request([5, 6], 2))
    stream = engine.generate(request([7, 8], None))
    await anext(stream)
    await stream.aclose()
    await until(engine, lambda stats: stats.running == 0)
    await collect(engine, request([5, 6], 2))
    assert caplog.records == []


async def test_an_idle_engine_uses_no_processor_time(engine: TorchEngine) -> None:
    await collect(engine, request([5, 6, 7]))
    before = time.process_time()
    await asyncio.sleep(0.5)
    assert time.process_time() - before < 0.1


def message(role: Any, content: str) -> ChatMessage:
    return ChatMessage(role=role, content=content)


def test_encode_applies_the_chat_template(tiny: LoadedModel, engine: TorchEngine) -> None:
    tokens = engine.encode([message("system", "be brief"), message("user", "hi 🦜")])
    text = "<system>be brief</system><user>hi 🦜</user><assistant>"
    assert tiny.tokenizer.decode(tokens) == text


def test_encode_says_why_the_template_refuses(engine: TorchEngine) -> None:
    with pytest.raises(InvalidRequestError, match="no names here"):
        engine.encode([ChatMessage(role="user", content="hi", name="Ann")])


def test_encode_refuses_text_that_is_not_unicode(engine: TorchEngine) -> None:
    with pytest.raises(InvalidRequestError, match="not valid Unicode"):
        engine.encode([ChatMessage.model_construct(role="user", content="\ud800")])


async def test_encode_works_in_many_threads_while_the_engine_runs(engine: TorchEngine) -> None:
    running = asyncio.create_task(collect(engine, request([5] * 10, None)))
    texts = [f"number {i} " * 50 for i in range(40)]
    expected = [engine.encode([message("user", text)]) for text in texts]
    calls = (asyncio.to_thread(engine.encode, [message("user", text)]) for text in texts)
    assert await asyncio.gather(*calls) == expected
    assert await running


def test_a_process_can_end_while_the_engine_computes(tiny_path: str) -> None:
    program = f"""
import asyncio
from parrot_backend.engines.base import GenerationRequest
from parrot_backend.engines.torch_engine import TorchEngine
engine = TorchEngine.load({tiny_path!r}, "tiny", kv_memory=10**6)
stream = engine.generate(GenerationRequest([5, 6, 7]))
asyncio.new_event_loop().run_until_complete(anext(stream))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, "terminate" in ended.stderr) == (0, False)
