"""Parrot's own engine, through its asyncio interface, with end tokens ignored.

`--int8` quantizes it, `--drafting` lets it draft.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace

import torch
import transformers
from worker import Generate, Request, Result, serve

from parrot_backend import __version__
from parrot_backend.engines.base import EngineStats, GenerationRequest, Sampling
from parrot_backend.engines.torch_engine import TorchEngine
from parrot_backend.engines.torch_engine.load.loader import load_model

INT8, DRAFTING = "--int8" in sys.argv, "--drafting" in sys.argv


def _start(path: str) -> tuple[TorchEngine, frozenset[int]]:
    loaded = load_model(path, "int8" if INT8 else None)
    endless = replace(loaded, end_tokens=frozenset())
    engine = TorchEngine.start(endless, "benchmark", kv_memory=4 << 30, drafting=DRAFTING)
    return engine, loaded.end_tokens


def load(path: str) -> tuple[str, Generate]:
    """See `worker.serve`."""
    with ThreadPoolExecutor(1) as loading:  # as `TorchEngine.load` does, and says why
        engine, ends = loading.submit(_start, path).result()

    async def one(request: Request) -> list[int]:
        sampling = Sampling(temperature=request.temperature, max_tokens=request.length, seed=0)
        generation = GenerationRequest(request.prompt, sampling, draft=request.draft)
        tokens: list[int] = []
        async with aclosing(engine.generate(generation)) as deltas:
            async for delta in deltas:
                for token in delta.tokens:
                    if request.until_end and token in ends:
                        return tokens
                    tokens.append(token)
        return tokens

    async def together(requests: list[Request]) -> list[list[int]]:
        return await asyncio.gather(*map(one, requests))

    def generate(requests: list[Request]) -> Result:
        before = engine.stats()
        return _result(asyncio.run(together(requests)), before, engine.stats())

    settings = f"{'int8' if INT8 else 'fp32'}, drafting {'on' if DRAFTING else 'off'}"
    libraries = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"parrot {__version__}, {libraries}, {settings}", generate


def _result(tokens: list[list[int]], before: EngineStats, after: EngineStats) -> Result:
    return Result(
        tokens,
        shared=after.tokens_shared - before.tokens_shared,
        drafted=after.tokens_drafted - before.tokens_drafted,
        accepted=after.tokens_accepted - before.tokens_accepted,
    )


serve(load)
