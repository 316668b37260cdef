"""Ends of generations, and failures that stay with the one that they belong to."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from parrot_backend.engines.base import Sampling
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel
from parrot_backend.wire.errors import EngineError

Make = Callable[..., Any]


def greedy(count: int, *stop: str) -> Sampling:
    return Sampling(temperature=0, max_tokens=count, stop=stop)


def text_of(tiny: LoadedModel, tokens: list[int]) -> str:
    return str(tiny.tokenizer.decode(tokens, skip_special_tokens=True))


def test_max_tokens_end_a_generation(make_stepper: Make) -> None:
    stepper = make_stepper()
    client = stepper.add([5, 6, 7], greedy(4))
    stepper.run()
    assert (len(client.tokens), client.last.finish_reason) == (4, "length")


def test_without_max_tokens_the_context_is_the_end(make_stepper: Make, tiny: LoadedModel) -> None:
    stepper = make_stepper()
    client = stepper.add([5] * 500, greedy(10_000))
    endless = stepper.add([7] * 490, Sampling(temperature=0))
    stepper.run()
    assert len(client.prompt + client.tokens) == tiny.context_length == 512
    assert len(endless.prompt + endless.tokens) == 512
    assert endless.last.finish_reason == "length"


def test_an_end_token_ends_a_generation_and_gives_no_text(
    make_stepper: Make, tiny: LoadedModel
) -> None:
    stepper = make_stepper()
    free = stepper.add([5, 6, 7], greedy(6))
    stepper.run()
    end = free.tokens[3]
    assert end not in free.tokens[:3]
    ended = replace(tiny, end_tokens=frozenset({0, end}))
    stepper = make_stepper(loaded=ended)
    client = stepper.add([5, 6, 7], greedy(6))
    stepper.run()
    assert client.tokens == free.tokens[:4]
    assert client.last.finish_reason == "stop"
    assert client.text == text_of(tiny, free.tokens[:3])


def test_a_stop_string_across_tokens_ends_the_text_before_it(
    make_stepper: Make, tiny: LoadedModel
) -> None:
    prompt = list(range(60, 80))
    stepper = make_stepper()
    free = stepper.add(prompt, greedy(24))
    stepper.run()
    stop = free.text[6:9]
    cut = free.text.index(stop)
    stepper = make_stepper()
    client = stepper.add(prompt, greedy(24, "never", stop))
    stepper.run()
    assert client.text == free.text[:cut]
    assert client.last.finish_reason == "stop"
    assert len(client.tokens) < 24


def test_a_cancelled_sequence_frees_its_slots_at_once(make_stepper: Make) -> None:
    stepper = make_stepper()
    running = stepper.add([5] * 50, greedy(100))
    waiting = stepper.add([5] * 60, greedy(100))
    stepper.step()
    assert stepper.memory.used == 50
    stepper.cancel(running)
    stepper.cancel(waiting)
    stats = stepper.stepper.stats
    assert (stats.running, stats.waiting, stats.kv_used_tokens) == (0, 0, 0)
    assert stats.kv_cached_tokens == 50


def test_logits_that_are_not_numbers_fail_their_own_request(
    make_stepper: Make, tiny_reference: Any, tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepper = make_stepper()
    bad = stepper.add([5] * 40, greedy(10))
    good = stepper.add([9, 8, 7, 6], greedy(10))
    stepper.step()
    keys = stepper.cache.keys[1]
    for run in bad.sequence.holding.runs:
        keys[:, run.start : run.start + run.length] = torch.nan
    stepper.run()
    assert isinstance(bad.last, EngineError)
    assert "not finite" in str(bad.last)
    tiny_reference.check(good.prompt, good.tokens, 10)
    again = stepper.add([5] * 40, greedy(10))
    stepper.run()
    tiny_reference.check(again.prompt, again.tokens, 10)


def test_an_error_in_sampling_fails_its_own_request(
    make_stepper: Make, tiny_reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepper = make_stepper()
    bad = stepper.add([5, 6], Sampling(temperature=1.0, max_tokens=5))
    good = stepper.add([9, 8, 7, 6], greedy(10))

    def broken(row: int) -> int:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(bad.sequence.sampler, "next_draw", broken)
    stepper.run()
    assert isinstance(bad.last, EngineError)
    assert "out of luck" in str(bad.last)
    tiny_reference.check(good.prompt, good.tokens, 10)


def test_a_forward_that_fails_fails_what_runs_and_nothing_after(
    make_stepper: Make, tiny_reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepper = make_stepper(max_batch=2)
    clients = [stepper.add([5 + i, 6, 7], greedy(8)) for i in range(3)]
    stepper.step()

    def broken(chunks: object) -> torch.Tensor:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(stepper.step_model, "forward", broken)
        stepper.step()
    stepper.run()
    assert [isinstance(client.last, EngineError) for client in clients] == [True, True, False]
    assert "out of memory" in str(clients[0].last)
    tiny_reference.check(clients[2].prompt, clients[2].tokens, 8)


def test_a_step_without_anything_to_do_is_refused(make_stepper: Make) -> None:
    with pytest.raises(RuntimeError, match="nothing"):
        make_stepper().step()
