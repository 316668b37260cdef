"""llama.cpp's server inside xllamacpp, over a GGUF file: `--slots N`, and `--unified` for one KV cache.

A slot starts from what it ran before, so with few slots a shared prefix is computed seldom, and with
many the batch is large. Requests go over HTTP, as xllamacpp's own call gives back no token ids.
"""

import argparse
import json
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import xllamacpp
from worker import Generate, Request, Result, serve

SLOT_TOKENS = 2048


def _settings() -> argparse.Namespace:
    options = argparse.ArgumentParser()
    options.add_argument("path")
    options.add_argument("--slots", type=int, default=16)
    options.add_argument("--unified", action="store_true")
    return options.parse_args()


def load(path: str) -> tuple[str, Generate]:
    """See `worker.serve`; `path` is a GGUF file."""
    args = _settings()
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel, params.n_ctx = args.slots, SLOT_TOKENS * args.slots
    params.kv_unified = args.unified
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = len(os.sched_getaffinity(0))
    server = xllamacpp.Server(params)

    def one(request: Request) -> dict[str, Any]:
        body = {
            "prompt": request.prompt,
            "n_predict": request.length,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": True,
            "return_tokens": True,
        }
        url = f"{server.listening_address}/completion"
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())) as got:
            answer: dict[str, Any] = json.load(got)
        return answer

    def generate(requests: list[Request]) -> Result:
        with ThreadPoolExecutor(len(requests)) as pool:
            answers = list(pool.map(one, requests))
        return Result(
            [answer["tokens"] for answer in answers],
            shared=sum(answer["timings"]["cache_n"] for answer in answers),
        )

    slots = f"{args.slots} slots, KV cache {'unified' if args.unified else 'per slot'}"
    return f"xllamacpp {version('xllamacpp')}, {path.rpartition('/')[2]}, {slots}", generate


serve(load)
