"""The kinds of servers: which one it is, and what that kind tells of itself on its own routes."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from parrot_backend.endpoints.upstream import dialect as dialects
from parrot_backend.endpoints.upstream.client import Client
from parrot_backend.endpoints.upstream.dialect import Dialect
from parrot_backend.endpoints.upstream.metrics import metrics_of

_NUM_CTX = re.compile(r"^num_ctx\s+(\d{1,9})\b", re.M)
_MOST_SLOTS = 4096
# From this version on it tells logprobs; before, it says nothing and tells none.
_OLLAMA_LOGPROBS = (0, 12, 11)


@dataclass(frozen=True, slots=True)
class Found:
    """What one kind of server tells of itself."""

    dialect: Dialect
    version: str = ""
    context: int | None = None
    slots: int | None = None
    kv_tokens: int | None = None


async def found_out(client: Client, model: str, entry: Mapping[str, Any]) -> Found:
    """What a server is. The list of models (`entry` is one in it) tells most kinds; of the others
    one of their own routes does."""
    owner = entry.get("owned_by")
    known = {"vllm": _vllm, "sglang": _sglang, "llamacpp": _llama_cpp, "parrot": _parrot}
    if isinstance(owner, str) and owner in known:
        return await known[owner](client, model)
    ollama, studio, props, sglang = await asyncio.gather(
        client.found("/api/version"),
        client.found("/api/v0/models"),
        client.found("/props"),
        client.found("/get_server_info"),
    )
    if "total_slots" in props:
        return await _llama_cpp(client, model)
    if "max_total_num_tokens" in sglang or "schedule_policy" in sglang:
        return await _sglang(client, model)
    if isinstance(studio.get("data"), list):
        return _lm_studio([table(each) for each in studio["data"]], model)
    if "version" in ollama:
        return await _ollama(client, model, str(ollama["version"]))
    return Found(_generic(client))


def _generic(client: Client) -> Dialect:
    if client.address.place.partition(":")[0] == "api.openai.com":
        return dialects.OPENAI
    return dialects.GENERIC if client.key is None else dialects.CLOUD


async def _vllm(client: Client, _: str) -> Found:
    version, described, metrics = await asyncio.gather(
        client.found("/version"), client.found("/openapi.json"), metrics_of(client)
    )
    dialect = dialects.VLLM
    schemas = table(table(described.get("components")).get("schemas"))
    if takes := table(table(schemas.get("ChatCompletionRequest")).get("properties")):
        for extra in ("priority", "cache_salt", "return_token_ids"):
            dialect = dialect if extra in takes else dialect.without(extra)
        if "structured_outputs" not in takes:
            dialect = replace(dialect, structured="response_format", styles=False)
    return Found(dialect, str(version.get("version", "")), kv_tokens=metrics.kv_tokens)


async def _sglang(client: Client, _: str) -> Found:
    """Newer ones tell of themselves only to those with an admin's key; then we know less."""
    told = await client.found("/get_server_info") or await client.found("/server_info")
    dialect = dialects.SGLANG
    if told.get("enable_priority_scheduling"):
        lower = told.get("schedule_low_priority_values_first")
        dialect = replace(dialect, priority="lower_first" if lower else "higher_first")
    if told and not told.get("tool_call_parser"):
        dialect = replace(dialect, tools="none")
    if told:
        dialect = replace(dialect, tells_cached=bool(told.get("enable_cache_report")))
    return Found(
        dialect,
        str(told.get("version", "")),
        context=number(told.get("context_length")),
        slots=number(told.get("max_running_requests"), most=_MOST_SLOTS),
        kv_tokens=number(told.get("max_total_num_tokens")),
    )


async def _llama_cpp(client: Client, _: str) -> Found:
    props = await client.found("/props")
    slots = number(props.get("total_slots"), most=_MOST_SLOTS)
    context = number(table(props.get("default_generation_settings")).get("n_ctx"))
    return Found(
        dialects.LLAMA_CPP,
        str(props.get("build_info", "")),
        context=context,
        slots=slots,
        kv_tokens=context * slots if context and slots else None,
    )


async def _ollama(client: Client, model: str, version: str) -> Found:
    """The context is that of the model as it is loaded, or as its file says. `model_info` tells what
    the model could have; it mostly gets less, and prompts beyond that are cut without a word."""
    shown, loaded = await asyncio.gather(
        client.found("/api/show", {"model": model}), client.found("/api/ps")
    )
    dialect = dialects.OLLAMA
    capabilities = shown.get("capabilities")
    if isinstance(capabilities, list) and "tools" not in capabilities:
        dialect = replace(dialect, tools="none")
    numbers = tuple(int(n) for n in re.findall(r"\d{1,9}", version)[:3])
    dialect = replace(dialect, logprobs=numbers >= _OLLAMA_LOGPROBS)
    running = [m for m in map(table, rows(loaded.get("models"))) if m.get("name") == model]
    context = number(running[0].get("context_length")) if running else None
    if context is None and (said := _NUM_CTX.search(str(shown.get("parameters") or ""))):
        context = int(said[1])
    return Found(dialect, version, context=context)


def _lm_studio(entries: Sequence[Mapping[str, Any]], model: str) -> Found:
    entry = next((entry for entry in entries if entry.get("id") == model), {})
    context = number(entry.get("loaded_context_length") or entry.get("max_context_length"))
    return Found(dialects.LM_STUDIO, context=context)


async def _parrot(client: Client, _: str) -> Found:
    health, stats = await asyncio.gather(client.found("/health"), client.found("/v1/stats"))
    kv_tokens = number(stats.get("kv_capacity_tokens"))
    return Found(dialects.PARROT, str(health.get("version", "")), kv_tokens=kv_tokens)


def table(value: Any) -> Mapping[str, Any]:
    """An object, or an empty one: a server can answer anything."""
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> Sequence[Any]:
    """A list, or an empty one."""
    return value if isinstance(value, list) else ()


def number(value: Any, *, most: int = 2**31) -> int | None:
    """A positive one, not above `most`; or none."""
    good = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return min(value, most) if good else None
