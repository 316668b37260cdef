"""Greedy output equals transformers' generate on tiny random models of several architectures."""

from collections.abc import Callable
from typing import Any

import pytest
from transformers import (
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from parrot_backend.engines.base import Sampling
from parrot_backend.engines.torch_engine.load.loader import load_model


def gpt2(shape: dict[str, Any]) -> GPT2Config:
    return GPT2Config(
        vocab_size=shape["vocab_size"], n_embd=64, n_layer=3, n_head=4, n_positions=512,
        eos_token_id=0, bos_token_id=0,
    )  # fmt: skip


CONFIGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "qwen2": lambda shape: Qwen2Config(**shape, num_key_value_heads=2),
    "qwen3": lambda shape: Qwen3Config(**shape, num_key_value_heads=2, head_dim=32),
    "mistral": lambda shape: MistralConfig(**shape, num_key_value_heads=1, sliding_window=None),
    "mixtral": lambda shape: MixtralConfig(**shape, num_key_value_heads=2, num_local_experts=4),
    "gemma": lambda shape: GemmaConfig(**shape, num_key_value_heads=1, head_dim=32),
    "gpt_neox": lambda shape: GPTNeoXConfig(**shape),
    "phi": lambda shape: PhiConfig(**shape, num_key_value_heads=4),
    "olmo2": lambda shape: Olmo2Config(**shape, num_key_value_heads=2),
    "gpt2": gpt2,
}


@pytest.mark.parametrize("architecture", CONFIGS)
def test_greedy_equals_generate(
    make_tiny: Callable[[Any], str],
    make_stepper: Callable[..., Any],
    make_reference: Callable[[str], Any],
    tiny_shape: dict[str, Any],
    architecture: str,
) -> None:
    path = make_tiny(CONFIGS[architecture](tiny_shape))
    reference = make_reference(path)
    stepper = make_stepper(slots=300, loaded=load_model(path), prefill_budget=24)
    shared = list(range(40, 90))
    prompts = [[*shared, 100 + i] for i in range(3)] + [[7 + i] * (1 + 20 * i) for i in range(4)]
    clients = [stepper.add(prompt, Sampling(temperature=0, max_tokens=16)) for prompt in prompts]
    stepper.run()
    for client in clients:
        reference.check(client.prompt, client.tokens, 16)
