"""The compiled forward pass: transformers' logits, and the same bits however a text is computed."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, Qwen2Config, Qwen3Config

from parrot_backend.engines.torch_engine.forward.cpu.llama import CpuLlama
from parrot_backend.engines.torch_engine.forward.forward_pass import Chunk, ForwardPass, StepModel
from parrot_backend.engines.torch_engine.forward.transformers_forward import TransformersForward
from parrot_backend.engines.torch_engine.load.examined import Examined, examine
from parrot_backend.engines.torch_engine.load.gptq import install, quantize
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache
from parrot_backend.engines.torch_engine.memory.slots import Run

CPU = torch.device("cpu")
TEXT = [(7 * i * i + 3 * i) % 250 for i in range(160)]


def configs(shape: dict[str, Any]) -> dict[str, Any]:
    grouped = shape | {"num_key_value_heads": 2}
    return {
        "llama": LlamaConfig(**grouped),
        "tied": LlamaConfig(**grouped, tie_word_embeddings=True),
        "biases": LlamaConfig(**grouped, attention_bias=True, mlp_bias=True),
        "odd widths": LlamaConfig(**grouped | {"vocab_size": 261, "intermediate_size": 90}),
        "qwen2": Qwen2Config(**grouped),
        "qwen3": Qwen3Config(**grouped, head_dim=32),
    }


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "int8"])
def int8(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module", params=["llama", "tied", "biases", "odd widths", "qwen2", "qwen3"])
def loaded(
    request: pytest.FixtureRequest,
    make_tiny: Callable[[Any], str],
    tiny_shape: dict[str, Any],
    int8: bool,
) -> Examined:
    """A model of its own for each way to compute, as one of them changes it."""
    loaded = examine(make_tiny(configs(tiny_shape)[request.param]))
    for name, values in loaded.model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            values.data.normal_(1.0)
    return loaded


@pytest.fixture(scope="module")
def computed(loaded: Examined, int8: bool) -> tuple[ForwardPass, Tensor]:
    """The forward pass, and transformers' own logits of the text by the same weights."""
    rounded = quantize(loaded.model, loaded.shapes, TEXT) if int8 else {}
    expected = own_logits(loaded)
    install(loaded.model, rounded)
    forward = loaded.forward()
    assert isinstance(forward, CpuLlama)
    assert forward.kv_dtype == (torch.float16 if int8 else torch.float32)
    return forward, expected


@pytest.fixture(scope="module")
def neighbours() -> Iterator[None]:
    """One busy process for each core."""
    loop = [sys.executable, "-c", "while True: pass"]
    started = [subprocess.Popen(loop) for _ in os.sched_getaffinity(0)]
    yield
    for process in started:
        process.kill()
        process.wait()


def own_logits(loaded: Examined) -> Tensor:
    loaded.model.set_attn_implementation("eager")
    with torch.inference_mode():
        logits: Tensor = loaded.model(torch.tensor([TEXT])).logits[0]
    loaded.model.set_attn_implementation("parrot")
    return logits


@pytest.fixture(scope="module")
def forward(computed: tuple[ForwardPass, Tensor]) -> ForwardPass:
    return computed[0]


def whole_text(forward: ForwardPass, loaded: Examined) -> Tensor:
    cache = KVCache(loaded.shapes, len(TEXT), forward.kv_dtype, CPU)
    chunk = Chunk(TEXT, 0, [Run(0, len(TEXT))], len(TEXT))
    return StepModel(forward, cache).forward([chunk])


def test_logits_are_those_of_transformers(
    computed: tuple[ForwardPass, Tensor], loaded: Examined, int8: bool
) -> None:
    forward, expected = computed
    got = whole_text(forward, loaded)
    if int8:  # rows have 16 bits, keys and values are float16
        assert (got - expected).norm() < 0.01 * expected.norm()
    else:
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=2e-3)


def test_a_token_is_the_same_bits_however_it_is_computed(
    forward: ForwardPass, loaded: Examined
) -> None:
    """In chunks, one by one, behind a shared prefix in scattered slots, beside other sequences."""
    expected = whole_text(forward, loaded)
    cache = KVCache(loaded.shapes, 600, forward.kv_dtype, CPU)
    model = StepModel(forward, cache)
    prefix, other = [Run(300, 40), Run(20, 23)], [(5 * t + 1) % 250 for t in TEXT]

    first = model.forward(
        [Chunk(TEXT[:63], 0, prefix, 63), Chunk(other[:31], 0, [Run(400, 31)], 1)]
    )
    assert torch.equal(first[:63], expected[:63])
    runs, beside = [*prefix, Run(100, 90)], [*prefix, Run(200, 50)]
    for start, stop in ((63, 64), (64, 65), (65, 100), (100, 101)):
        logits = model.forward(
            [
                Chunk(other[31:32], 31, [Run(400, 32)], 1),
                Chunk(TEXT[start:stop], start, _beginning(runs, stop), stop - start),
                Chunk(other[63 : stop + 9], 63, _beginning(beside, stop + 9), 1),
            ]
        )
        assert torch.equal(logits[1:-1], expected[start:stop])


@pytest.mark.parametrize("threads", ["1", "2", "3"])
@pytest.mark.usefixtures("neighbours")
def test_a_token_is_the_same_bits_with_any_number_of_threads_on_a_busy_machine(
    computed: tuple[ForwardPass, Tensor],
    loaded: Examined,
    threads: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    expected = whole_text(computed[0], loaded)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    for _ in range(5):
        assert torch.equal(whole_text(computed[0], loaded), expected)


def _beginning(runs: list[Run], tokens: int) -> list[Run]:
    return [*runs[:2], Run(runs[2].start, tokens - 63)]


def test_heads_that_no_kernel_fits_have_another_path(
    make_tiny: Callable[[Any], str], tiny_shape: dict[str, Any]
) -> None:
    config = LlamaConfig(**tiny_shape | {"num_attention_heads": 8}, num_key_value_heads=4)
    loaded = examine(make_tiny(config))
    forward = loaded.forward()
    assert isinstance(forward, TransformersForward)
    torch.testing.assert_close(
        whole_text(forward, loaded), own_logits(loaded), rtol=1e-3, atol=2e-3
    )


def test_weights_are_in_memory_once(loaded: Examined, forward: ForwardPass, int8: bool) -> None:
    """Panels are padded to whole columns, which small models feel most."""
    model = loaded.model
    tied = model.config.tie_word_embeddings
    modules = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    numbers = sum(m.weight.numel() for m in modules)
    embeddings = 0 if tied else 4 * model.model.embed_tokens.weight.numel()
    weights = numbers * (1 if int8 else 4) + embeddings
    assert isinstance(forward, CpuLlama)
    assert weights <= forward.weight_bytes <= 1.2 * weights
