"""What vLLM's `/metrics` tells of its KV memory."""

import re
from dataclasses import dataclass

import httpx

from parrot_backend.endpoints.upstream.client import Client, Reply

_SAMPLE = re.compile(r"^(vllm:[a-z_]+)(?:\{([^}]*)\})? (\S+)$", re.M)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_SECONDS = 2.0
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Metrics:
    """How many tokens the KV memory holds, and the part of it that those which run use."""

    kv_tokens: int | None = None
    used: float = 0.0


async def metrics_of(client: Client) -> Metrics:
    """They, or nothing where there are none."""
    try:
        reply = await client.get("/metrics", seconds=_SECONDS)
    except (httpx.HTTPError, TimeoutError):
        return Metrics()
    return read_metrics(reply)


def read_metrics(reply: Reply) -> Metrics:
    """Those of all the engines behind one server together."""
    if not reply.good or not isinstance(reply.body, str):
        return Metrics()
    kv_tokens, used = 0, []
    for name, labels, value in _SAMPLE.findall(reply.body):
        if name == "vllm:cache_config_info":
            told = dict(_LABEL.findall(labels))
            kv_tokens += _capacity(told)
        elif name == "vllm:kv_cache_usage_perc":
            used.append(_share(value))
    share = sum(used) / len(used) if used else 0.0
    return Metrics(kv_tokens or None, share)


def _share(value: str) -> float:
    """A part of 1; what is none is nothing."""
    try:
        share = float(value)
    except ValueError:
        return 0.0
    return min(share, 1.0) if share > 0 else 0.0


def _capacity(told: dict[str, str]) -> int:
    """Newer ones tell the tokens, older ones the blocks."""
    if tokens := _count(told.get("kv_cache_size_tokens", "")):
        return tokens
    return _count(told.get("num_gpu_blocks", "")) * _count(told.get("block_size", ""))


def _count(told: str) -> int:
    return int(told) if told.isdecimal() and len(told) < _DIGITS else 0
