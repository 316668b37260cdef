"""Each kind of server is recognized by what it answers, and asked in its dialect."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from parrot_backend.endpoints.upstream.address import Secret
from parrot_backend.endpoints.upstream.endpoint import UpstreamEndpoint
from parrot_backend.wire.errors import EndpointLostError, InvalidRequestError, ParrotError
from tests.endpoints.process.children import deltas_of
from tests.endpoints.upstream.servers import RECORDED, Asked, Scripted, job, scripted, upstream

KINDS: dict[str, dict[str, str]] = {
    "vllm": {
        "/v1/models": "vllm-models.json",
        "/version": "vllm-version.json",
        "/metrics": "vllm-metrics.txt",
    },
    "sglang": {"/v1/models": "sglang-models.json", "/get_server_info": "sglang-server-info.json"},
    "llamacpp": {"/v1/models": "llamacpp-models.json", "/props": "llamacpp-props.json"},
    "ollama": {
        "/v1/models": "ollama-models.json",
        "/api/version": "ollama-version.json",
        "/api/tags": "ollama-tags.json",
        "/api/show": "ollama-show.json",
        "/api/ps": "ollama-ps.json",
    },
    "lmstudio": {"/v1/models": "lmstudio-models.json", "/api/v0/models": "lmstudio-v0-models.json"},
}


def recorded(name: str) -> Any:
    text = (RECORDED / name).read_text()
    return json.loads(text) if name.endswith(".json") else text


@asynccontextmanager
async def kind_of_server(kind: str) -> AsyncIterator[Scripted]:
    """It answers as that kind does."""
    async with scripted() as server:
        server.routes |= {path: recorded(name) for path, name in KINDS[kind].items()}
        yield server


def streaming(name: str) -> Any:
    """A recorded stream."""

    async def answer(asked: Asked) -> None:
        events = (RECORDED / name).read_text().split("\n\n")
        await asked.events(*(event + "\n\n" for event in events if event))

    return answer


@pytest.mark.parametrize(
    ("kind", "model", "engine", "context", "slots", "sharing", "kv_tokens"),
    [
        ("vllm", None, "vLLM 0.32.0", 4096, 64, "batch", 23296),
        ("sglang", None, "SGLang 0.5.9", 32768, 128, "computed", 20480),
        ("llamacpp", None, "llama.cpp b0-unknown", 4096, 4, "slot", 16384),
        ("ollama", "llama3.2", "Ollama 0.33.3", 4096, 4, "slot", None),
        ("lmstudio", "qwen2.5-7b-instruct", "LM Studio", 16384, 4, "slot", None),
    ],
)
async def test_what_a_server_answers_tells_what_it_is(
    kind: str,
    model: str | None,
    engine: str,
    context: int,
    slots: int,
    sharing: str,
    kv_tokens: int | None,
) -> None:
    async with kind_of_server(kind) as server, upstream(server, model=model) as endpoint:
        card = endpoint.card
        assert card.engine == f"{engine} at 127.0.0.1:{server.port}"
        assert card.model.context_length == context
        assert (card.slots, card.sharing, card.kv_tokens) == (slots, sharing, kv_tokens)
        assert card.model.name in json.dumps(recorded(KINDS[kind]["/v1/models"]))


async def test_what_is_nothing_known_is_taken_by_openais_words() -> None:
    async with scripted() as server, upstream(server) as endpoint:
        assert endpoint.known.dialect.name == "an OpenAI-compatible server"
        assert endpoint.card.model.context_length is None
    async with scripted() as server, upstream(server, key=Secret("sk-1")) as endpoint:
        assert endpoint.known.dialect.probe_seconds == 30


async def test_an_older_vllm_is_not_sent_what_it_does_not_know() -> None:
    properties = {"messages": {}, "priority": {}, "structured_outputs": {}}
    described = {"components": {"schemas": {"ChatCompletionRequest": {"properties": properties}}}}
    async with kind_of_server("vllm") as server:
        server.routes["/openapi.json"] = described
        async with upstream(server) as endpoint:
            dialect = endpoint.known.dialect
            assert (dialect.priority, dialect.salts, dialect.tells_tokens) == (
                "lower_first",
                False,
                False,
            )


@pytest.mark.parametrize(("lower", "priority"), [(False, "higher_first"), (True, "lower_first")])
async def test_sglang_tells_which_priority_goes_first(lower: bool, priority: str) -> None:
    told = recorded("sglang-server-info.json") | {"schedule_low_priority_values_first": lower}
    async with kind_of_server("sglang") as server:
        server.routes["/get_server_info"] = told
        async with upstream(server) as endpoint:
            assert endpoint.known.dialect.priority == priority


async def test_sglang_that_keeps_to_itself_is_one_all_the_same() -> None:
    async with kind_of_server("sglang") as server:
        del server.routes["/get_server_info"]
        async with upstream(server) as endpoint:
            assert endpoint.known.dialect.name == "SGLang"
            assert endpoint.known.dialect.priority == "none"


async def test_the_context_of_ollama_is_what_the_model_gets_and_not_what_it_could_have() -> None:
    async with kind_of_server("ollama") as server:
        server.routes["/api/ps"] = {"models": []}
        async with upstream(server, model="llama3.2") as endpoint:
            assert endpoint.card.model.context_length == 8192
        server.routes["/api/show"] = recorded("ollama-show.json") | {"parameters": ""}
        async with upstream(server, model="llama3.2") as endpoint:
            assert endpoint.card.model.context_length is None


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("other", "does not serve 'other'; it serves: one, two"),
        (None, "serves several models: name one with --model, .* --engines: one, two"),
    ],
)
async def test_the_model_has_to_be_there_and_to_be_one(model: str | None, words: str) -> None:
    async with scripted() as server:
        server.models("one", "two")
        endpoint = UpstreamEndpoint(server.url, model=model)
        with pytest.raises(InvalidRequestError, match=words) as told:
            await endpoint.start()
        assert told.value.param == "model"
        await endpoint.aclose()


async def test_aliases_and_adapters_do_not_make_a_model_several() -> None:
    async with scripted() as server:
        rows = [
            {"id": "base", "root": "/models/base", "parent": None},
            {"id": "alias", "root": "/models/base", "parent": None},
            {"id": "adapter", "root": "/adapters/one", "parent": "base"},
        ]
        server.routes["/v1/models"] = {"data": rows}
        async with upstream(server) as endpoint:
            assert endpoint.card.model.name == "base"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"data": []}, "serves no model"),
        ({"data": None}, "serves no model"),
        ("<html>a page</html>", "lists no models"),
        ({"data": [{"name": "x"}]}, "lists no models"),
        ({"models": []}, "lists no models"),
    ],
)
async def test_what_is_no_engine_is_told_so(answer: Any, words: str) -> None:
    async with scripted() as server:
        server.routes["/v1/models"] = answer
        endpoint = UpstreamEndpoint(server.url)
        with pytest.raises(ParrotError, match=words):
            await endpoint.start()
        await endpoint.aclose()


async def test_one_that_loads_its_model_is_not_ready_yet() -> None:
    async def loading(asked: Asked) -> None:
        await asked.json(recorded("llamacpp-loading.json"), 503)

    async with scripted() as server:
        server.routes["/v1/models"] = loading
        endpoint = UpstreamEndpoint(server.url)
        with pytest.raises(EndpointLostError, match="not ready yet: Loading model"):
            await endpoint.start()
        await endpoint.aclose()


async def test_where_nothing_listens_nothing_is_started() -> None:
    async with scripted() as server:
        url = server.url
    endpoint = UpstreamEndpoint(url)
    with pytest.raises(EndpointLostError, match="nothing answers at 127"):
        await endpoint.start()
    await endpoint.aclose()


async def test_what_was_measured_counts_more_than_the_kind() -> None:
    measured = {"priority": "higher_first", "repeatable": True, "sharing": "computed"}
    async with kind_of_server("vllm") as server, upstream(server, measured=measured) as endpoint:
        assert endpoint.card.repeatable
        assert endpoint.card.sharing == "computed"
        await deltas_of(endpoint, job(priority=3))
        assert server.jobs[0].body["priority"] == 3
    async with scripted() as server:
        endpoint = UpstreamEndpoint(server.url, measured={"speed": 9})
        with pytest.raises(InvalidRequestError, match="'speed', which no dialect has"):
            await endpoint.start()
        await endpoint.aclose()


async def test_the_operators_slots_count_most() -> None:
    async with kind_of_server("llamacpp") as server, upstream(server, slots=2) as endpoint:
        assert endpoint.card.slots == 2


@pytest.mark.parametrize(
    ("kind", "route", "told"),
    [
        ("vllm", "/openapi.json", {"components": [1]}),
        ("vllm", "/openapi.json", {"components": {"schemas": {"ChatCompletionRequest": 1}}}),
        ("vllm", "/metrics", "vllm:kv_cache_usage_perc{} many\nvllm:kv_cache_usage_perc{} nan"),
        ("vllm", "/metrics", 'vllm:cache_config_info{num_gpu_blocks="²",block_size="9"} 1'),
        ("vllm", "/version", {"version": [1]}),
        ("llamacpp", "/props", {"total_slots": [], "default_generation_settings": [1]}),
        ("llamacpp", "/props", {"total_slots": 10**30}),
        ("ollama", "/api/ps", {"models": [1]}),
        ("ollama", "/api/ps", {"models": 1}),
        ("ollama", "/api/show", {"parameters": "num_ctx " + 5000 * "9", "capabilities": 1}),
        ("ollama", "/api/version", {"version": 5000 * "9"}),
        ("lmstudio", "/api/v0/models", {"data": [1]}),
    ],
)
async def test_what_is_nonsense_in_what_a_server_tells_is_not_told(
    kind: str, route: str, told: Any
) -> None:
    models = {"ollama": "llama3.2", "lmstudio": "qwen2.5-7b-instruct"}
    async with kind_of_server(kind) as server:
        server.routes[route] = told
        async with upstream(server, model=models.get(kind)) as endpoint:
            assert 0 < endpoint.card.slots <= 4096
            assert endpoint.stats().kv_used_tokens == 0


async def test_an_owner_that_is_none_is_nobody() -> None:
    async with scripted() as server:
        server.models("a-model", owned_by=["vllm"])
        async with upstream(server) as endpoint:
            assert endpoint.known.dialect.name == "an OpenAI-compatible server"
        server.models("a-model", root={"a": 1})
        endpoint = UpstreamEndpoint(server.url)
        with pytest.raises(EndpointLostError, match="what we don't understand"):
            await endpoint.start()
        await endpoint.aclose()
