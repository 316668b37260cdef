"""Parrot's own engine, through its asyncio interface, with end tokens ignored."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
import transformers
from worker import Job, serve

from parrot_backend import __version__
from parrot_backend.engines.base import GenerationRequest, Sampling
from parrot_backend.engines.torch_engine import TorchEngine
from parrot_backend.engines.torch_engine.loader import load_model


def _start(path: str) -> TorchEngine:
    loaded = replace(load_model(path, "cpu"), end_tokens=frozenset())
    return TorchEngine.start(loaded, "benchmark", kv_memory=4 << 30)


def load(path: str) -> tuple[str, Callable[[Job], list[list[int]]]]:
    """See `worker.serve`."""
    with ThreadPoolExecutor(1) as loading:  # as `TorchEngine.load` does, and says why
        engine = loading.submit(_start, path).result()

    async def one(prompt: list[int], count: int) -> list[int]:
        request = GenerationRequest(prompt, Sampling(temperature=0, max_tokens=count))
        return [token async for delta in engine.generate(request) for token in delta.tokens]

    async def all_of(job: Job) -> list[list[int]]:
        return await asyncio.gather(*(one(prompt, count) for prompt, count in job))

    version = (
        f"parrot {__version__}, torch {torch.__version__}, transformers {transformers.__version__}"
    )
    return version, lambda job: asyncio.run(all_of(job))


serve(load)
