"""Logprobs are the model's own: those of its logits, whatever is drawn from them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch

from parrot_backend.engines.base import GenerationRequest, Sampling, TokenLogprobs
from parrot_backend.engines.torch_engine import TorchEngine
from parrot_backend.engines.torch_engine.choose.logprobs import LogprobsTeller
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel

PROMPT = [5, 6, 7]


@pytest.fixture
async def engine(tiny: LoadedModel) -> AsyncIterator[TorchEngine]:
    engine = TorchEngine.start(tiny, "tiny", kv_memory=10**6)
    yield engine
    await engine.aclose()


async def told(engine: TorchEngine, **sampling: Any) -> list[TokenLogprobs]:
    request = GenerationRequest(PROMPT, Sampling(max_tokens=8, **sampling))
    return [told async for delta in engine.generate(request) for told in delta.logprobs]


async def test_they_are_those_of_the_model_s_logits(
    engine: TorchEngine, tiny_reference: Any
) -> None:
    penalized = {"temperature": 1.5, "seed": 1, "frequency_penalty": 2.0, "top_k": 5}
    for sampling in ({"temperature": 0}, penalized):
        tokens = await told(engine, logprobs=3, **sampling)
        ids = torch.tensor([PROMPT + [token.chosen.token for token in tokens]])
        with torch.inference_mode():
            expected = tiny_reference.model(ids).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
        for row, token in zip(expected, tokens, strict=True):
            assert token.chosen.logprob == pytest.approx(float(row[token.chosen.token]), abs=1e-3)
            values = row.topk(3).values.tolist()
            assert [other.logprob for other in token.top] == pytest.approx(values, abs=1e-3)


async def test_greedy_chooses_the_first_alternative(engine: TorchEngine) -> None:
    for token in await told(engine, temperature=0, logprobs=1):
        assert token.top == (token.chosen,)


async def test_nobody_is_told_who_did_not_ask(engine: TorchEngine) -> None:
    assert await told(engine, temperature=0) == []
    assert [token.top for token in await told(engine, temperature=0, logprobs=0)] == [()] * 8


async def test_the_bytes_of_all_tokens_are_those_of_the_text(
    engine: TorchEngine, tiny: LoadedModel
) -> None:
    tokens = await told(engine, temperature=0, logprobs=0)
    ids = [token.chosen.token for token in tokens]
    content = b"".join(token.chosen.content for token in tokens)
    assert content.decode(errors="replace") == tiny.tokenizer.decode(ids)


async def test_the_token_that_ends_is_left_out(engine: TorchEngine) -> None:
    assert await told(engine, temperature=0, logprobs=2, logit_bias={0: 100}) == []


def test_an_impossible_token_has_a_number() -> None:
    teller = LogprobsTeller(9, lambda token: bytes([token]))
    told = teller.tell(torch.tensor([0.0, -torch.inf]), 1)
    assert told.chosen.logprob == -9999.0
    assert [other.logprob for other in told.top] == [0.0, -9999.0]
