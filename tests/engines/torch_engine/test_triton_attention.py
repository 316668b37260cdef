"""Triton's attention: its cases in the interpreter and on CUDA, and its kernels compiled for CUDA."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, LlamaConfig

from parrot_backend.engines.base import Sampling
from parrot_backend.engines.torch_engine.attention import PlainAttention, Span
from parrot_backend.engines.torch_engine.kv_cache import KVCache, LayerShape
from parrot_backend.engines.torch_engine.loader import load_model
from parrot_backend.engines.torch_engine.slots import Run
from parrot_backend.engines.torch_engine.step_attention import step_attention

triton = pytest.importorskip("triton", reason="there is no Triton for this platform")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from parrot_backend.engines.torch_engine.triton_attention import STAGES, Geometry  # noqa: E402
from parrot_backend.engines.torch_engine.triton_kernels import (  # noqa: E402
    attend_tile,
    merge_parts,
)

CASES = Path(__file__).with_name("triton_cases.py")
# What a block of threads can have since compute capability 8.6, in bytes; older ones have more.
SHARED_MEMORY = 99 * 1024


def needs_cuda(test: Any) -> Any:
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
    return pytest.mark.gpu(skip(test))


def run_cases(**variables: str) -> None:
    """The cases in a process of their own, whose report is shown when one fails."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | variables
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", CASES],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_cases_in_the_interpreter() -> None:
    run_cases(TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


@needs_cuda
def test_the_cases_on_cuda() -> None:
    run_cases()


def compiled(
    kernel: Any, capability: int, pointers: dict[str, str], constants: dict[str, int]
) -> Any:
    """A kernel as machine code; arguments that are neither pointers nor constants are strides."""
    names = kernel.arg_names
    signature = dict.fromkeys(names, "i32") | pointers | dict.fromkeys(constants, "constexpr")
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if signature[name].startswith(("*", "i"))
    }
    source = ASTSource(
        kernel, signature, {(names.index(name),): v for name, v in constants.items()}, aligned
    )
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_stages": STAGES})


@pytest.mark.parametrize(
    ("dtype", "dim", "capability"),
    [("bf16", 128, 80), ("bf16", 128, 90), ("fp16", 80, 89), ("fp32", 128, 80)],
)
def test_the_kernels_compile_for_cuda(
    dtype: str, dim: int, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Triton's own compiler, which needs no device; what they need of one is there."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    geometry = Geometry(4, dim, dim, 4 if dtype == "fp32" else 2)
    numbers = dict.fromkeys(["query", "keys", "values"], f"*{dtype}")
    tables = dict.fromkeys(["tiles", "runs", "entries"], "*i64")
    parts = {"parts": "*fp32", "lses": "*fp32"}
    for width in (geometry.narrow, geometry.wide):
        pointers = numbers | tables | parts | {"scale": "fp32", "keys_head": "i64"}
        kernel = compiled(attend_tile, capability, pointers, geometry.constants(width))
        assert kernel.asm["cubin"]
        assert kernel.metadata.shared <= SHARED_MEMORY
    constants = {"value_dim": dim, "value_block": 128, "part_block": 16}
    pointers = parts | {"bounds": "*i64", "output": f"*{dtype}"}
    assert compiled(merge_parts, capability, pointers, constants).asm["cubin"]


def test_the_cpu_attends_without_triton() -> None:
    cache = KVCache([LayerShape(1, 8, 8)], 8, torch.float32, torch.device("cpu"))
    attention = step_attention(cache, [Span(0, 1, [Run(0, 1)])])
    assert isinstance(attention, PlainAttention)


@needs_cuda
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_greedy_on_cuda_equals_generate(
    make_tiny: Callable[[Any], str],
    make_stepper: Callable[..., Any],
    make_reference: Callable[[str], Any],
    tiny_shape: dict[str, Any],
    architecture: str,
) -> None:
    """Shared beginnings, prompts in chunks among decoding rows, preemption."""
    config = {"llama": LlamaConfig, "gpt_neox": GPTNeoXConfig}[architecture]
    path = make_tiny(config(**tiny_shape))
    reference = make_reference(path)
    reference.model.to("cuda")
    stepper = make_stepper(slots=200, loaded=load_model(path, "cuda"), prefill_budget=24)
    shared = list(range(40, 90))
    prompts = [[*shared, 100 + i] for i in range(4)] + [[7 + i] * (1 + 20 * i) for i in range(4)]
    clients = [stepper.add(prompt, Sampling(temperature=0, max_tokens=16)) for prompt in prompts]
    stepper.run()
    for client in clients:
        reference.check(client.prompt, client.tokens, 16)
