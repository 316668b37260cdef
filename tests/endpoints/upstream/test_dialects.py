"""What is asked and read in each dialect, and what is refused in it."""

import asyncio
from typing import Any

import pytest

from parrot_backend.endpoints.base import Job
from parrot_backend.endpoints.tool_calls import assembled
from parrot_backend.endpoints.upstream import dialect as dialects
from parrot_backend.endpoints.upstream.dialect import Dialect
from parrot_backend.endpoints.upstream.requests import body_of
from parrot_backend.engines.base import Delta
from parrot_backend.wire.errors import EndpointLostError, InvalidRequestError
from parrot_backend.wire.text_protocol import PromptRequest
from tests.endpoints.process.children import deltas_of, eventually
from tests.endpoints.upstream.servers import Asked, delta, hello, job, scripted, upstream, usage
from tests.endpoints.upstream.test_recognize import kind_of_server, recorded, streaming

CHAT = "/v1/chat/completions"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SCHEMA = {"type": "object", "title": "T", "properties": {"n": {"type": "integer"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
NARROW = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "additionalProperties": False,
}


def body(dialect: Dialect, **parameters: Any) -> dict[str, Any]:
    return body_of(job(**parameters), "m", dialect, None)


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def counted(deltas: list[Delta]) -> int:
    return sum(len(delta.tokens) + delta.untold_tokens for delta in deltas)


# What is read


@pytest.mark.parametrize(
    ("kind", "model", "stream", "text", "tokens", "prompt", "cached"),
    [
        ("vllm", None, "vllm-chat.sse", "The capital of France is Paris.", 8, 37, 0),
        ("sglang", None, "sglang-chat.sse", "The capital is Paris.", 8, 30, 16),
        ("llamacpp", None, "llamacpp-chat.sse", "L'Étoile,", 6, 37, 0),
        ("ollama", "llama3.2", "ollama-chat.sse", "The capital.", 4, 32, 0),
        ("ollama", "llama3.2", "ollama-thinking.sse", "51", 4, 26, 22),
    ],
)
async def test_text_tokens_and_usage_are_read(
    kind: str, model: str | None, stream: str, text: str, tokens: int, prompt: int, cached: int
) -> None:
    async with kind_of_server(kind) as server, upstream(server, model=model) as endpoint:
        server.routes[CHAT] = streaming(stream)
        deltas = await deltas_of(endpoint, job())
        assert text_of(deltas) == text
        assert counted(deltas) == tokens
        assert (deltas[-1].prompt_tokens, deltas[-1].cached_tokens) == (prompt, cached)
        assert [d.finish_reason for d in deltas[:-1]] == [None] * (len(deltas) - 1)
        stats = endpoint.stats()
        assert (stats.tokens_generated, stats.tokens_shared) == (tokens, cached)


async def test_vllm_tells_tokens_and_the_length_of_the_prompt_from_the_first_on() -> None:
    async with kind_of_server("vllm") as server, upstream(server) as endpoint:
        server.routes[CHAT] = streaming("vllm-chat.sse")
        deltas = await deltas_of(endpoint, job())
        assert server.jobs[0].body["return_token_ids"] is True
        assert [t for d in deltas for t in d.tokens] == [504, 3575, 282, 4649, 314, 7042, 30, 2]
        assert deltas[0].prompt_tokens == 37
        assert not any(d.untold_tokens for d in deltas)


async def test_a_raw_prompt_goes_to_completions_with_its_tokens_and_logprobs() -> None:
    async with kind_of_server("vllm") as server, upstream(server) as endpoint:
        server.routes["/v1/completions"] = streaming("vllm-completion.sse")
        request = PromptRequest(
            prompt=[504, 3575, 282], max_tokens=3, logprobs=True, top_logprobs=1
        )
        deltas = await deltas_of(endpoint, Job(request))
        assert text_of(deltas) == " the United States"
        assert [t for d in deltas for t in d.tokens] == [260, 1797, 1918]
        assert deltas[-1].prompt_tokens == 3
        told = [token for d in deltas for token in d.logprobs]
        assert [token.chosen.content for token in told] == [b" the", b" United", b" States"]
        assert told[0].top[0].logprob == pytest.approx(-2.18448281)
        assert server.jobs[0].body["prompt"] == [504, 3575, 282]
        assert server.jobs[0].body["logprobs"] == 1


async def test_logprobs_are_those_of_the_text_and_not_of_its_end() -> None:
    def entry(token: str) -> dict[str, Any]:
        told = {"token": token, "bytes": list(token.encode()), "logprob": -0.5}
        return {**told, "top_logprobs": [told]}

    def chunk(content: str, token: str, reason: str | None = None) -> dict[str, Any]:
        told = delta(content, reason)
        told["choices"][0]["logprobs"] = {"content": [entry(token)]}
        return told

    async def answer(asked: Asked) -> None:
        await asked.events(chunk("Hi", "Hi"), chunk("", "<|end|>", "stop"), usage(1, 2))

    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        deltas = await deltas_of(endpoint, job(logprobs=True, top_logprobs=1))
        (only,) = [token for d in deltas for token in d.logprobs]
        assert (only.chosen.content, only.chosen.logprob) == (b"Hi", -0.5)
        assert only.top[0].content == b"Hi"
        assert counted(deltas) == 2


async def test_llama_cpp_tells_the_ids_of_tokens_with_their_logprobs() -> None:
    async with kind_of_server("llamacpp") as server, upstream(server) as endpoint:
        server.routes[CHAT] = streaming("llamacpp-chat.sse")
        deltas = await deltas_of(endpoint, job(logprobs=True, top_logprobs=1))
        told = [token.chosen for d in deltas for token in d.logprobs]
        assert [c.token for c in told] == [60, 23, 39614, 1141, 552, 28]
        assert told[2].content == "É".encode()


@pytest.mark.parametrize(
    ("kind", "model", "stream", "calls"),
    [
        ("sglang", None, "sglang-tools.sse", [("weather", '{"city": "Paris"}')]),
        (
            "ollama",
            "llama3.2",
            "ollama-tools.sse",
            [("weather", '{"city":"Tokyo"}'), ("weather", '{"city":"Paris"}')],
        ),
        (
            "lmstudio",
            "qwen2.5-7b-instruct",
            "openai-tools.sse",
            [("weather", '{"city":"Rome"}'), ("weather", "{}")],
        ),
    ],
)
async def test_tool_calls_are_read_however_they_are_cut(
    kind: str, model: str | None, stream: str, calls: list[tuple[str, str]]
) -> None:
    async with kind_of_server(kind) as server, upstream(server, model=model) as endpoint:
        server.routes[CHAT] = streaming(stream)
        deltas = await deltas_of(endpoint, job(tools=[WEATHER]))
        told = assembled(piece for d in deltas for piece in d.tool_calls)
        assert [(call.function.name, call.function.arguments) for call in told] == calls
        assert len({call.id for call in told}) == len(calls)
        assert deltas[-1].finish_reason == "tool_calls"
        assert server.jobs[-1].body["tools"] == [WEATHER]


@pytest.mark.parametrize("empty", ["", None])
async def test_pieces_of_a_call_without_its_id_and_name_are_of_that_call(empty: str | None) -> None:
    def piece(call_id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
        told = {"name": name, "arguments": arguments}
        return {"index": 0, "id": call_id, "type": "function", "function": told}

    async def answer(asked: Asked) -> None:
        await asked.events(
            delta(tool_calls=[piece("one", "weather", "")]),
            delta(tool_calls=[piece(empty, empty, '{"city": ')]),
            delta(tool_calls=[piece(empty, empty, '"Rome"}')]),
            delta("", "tool_calls"),
        )

    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        deltas = await deltas_of(endpoint, job(tools=[WEATHER]))
        (call,) = assembled(piece for d in deltas for piece in d.tool_calls)
        assert call.id == "one"
        assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Rome"}')


async def test_a_call_of_no_tool_is_no_answer() -> None:
    async def answer(asked: Asked) -> None:
        told = {"index": 0, "id": "one", "function": {"name": None, "arguments": "{}"}}
        await asked.events(delta(tool_calls=[told]), delta("", "tool_calls"))

    async with scripted() as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        with pytest.raises(EndpointLostError, match="no answer"):
            await deltas_of(endpoint, job(tools=[WEATHER]))


# What is asked


@pytest.mark.parametrize(
    ("dialect", "priority"),
    [
        (dialects.VLLM, -7),
        (dialects.SGLANG, None),
        (dialects.SGLANG.measured({"priority": "higher_first"}), 7),
        (dialects.GENERIC, None),
    ],
)
def test_a_priority_goes_the_right_way(dialect: Dialect, priority: int | None) -> None:
    assert body(dialect, priority=7).get("priority") == priority
    assert "priority" not in body(dialect)


async def test_a_tenant_has_a_salt_of_its_own_that_does_not_tell_it() -> None:
    async with kind_of_server("vllm") as server, upstream(server) as endpoint:
        for tenant in "alice", "bob", "alice", "":
            await deltas_of(endpoint, job(tenant=tenant))
        alice, bob, again, nobody = (asked.body.get("cache_salt") for asked in server.jobs)
        assert alice == again != bob
        assert nobody is None
        assert len(alice) == 64
        assert "alice" not in alice


@pytest.mark.parametrize(
    ("dialect", "form"),
    [
        (
            dialects.SGLANG,
            {"type": "json_schema", "json_schema": {"name": "a", "schema": NARROW}},
        ),
        (
            dialects.LLAMA_CPP,
            {"type": "json_schema", "json_schema": {"name": "a", "schema": NARROW}},
        ),
        (dialects.GENERIC, {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}),
        (dialects.PARROT, {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}),
    ],
)
def test_a_schema_is_asked_for_as_response_format(dialect: Dialect, form: dict[str, Any]) -> None:
    assert body(dialect, response_format=FORMAT)["response_format"] == form


def test_vllm_is_told_how_json_is_written() -> None:
    told = body(dialects.VLLM, response_format=FORMAT)["structured_outputs"]["json"]
    assert told.pop("x-guidance")["whitespace_flexible"] is False
    assert told == NARROW


@pytest.mark.parametrize(
    ("dialect", "outputs", "told"),
    [
        (dialects.VLLM, {"choice": ["a", "b"]}, {"structured_outputs": {"choice": ["a", "b"]}}),
        (dialects.VLLM, {"regex": "a+"}, {"structured_outputs": {"regex": "a+"}}),
        (dialects.VLLM, {"grammar": "start: A"}, {"structured_outputs": {"grammar": "start: A"}}),
        (dialects.SGLANG, {"regex": "a+"}, {"regex": "a+"}),
        (dialects.SGLANG, {"choice": ["a.", "b"]}, {"regex": r"(a\.|b)"}),
        (dialects.LLAMA_CPP, {"choice": ["é", 'b"']}, {"grammar": r'root ::= "é" | "b\""'}),
    ],
)
def test_other_forms_are_asked_for_in_the_servers_words(
    dialect: Dialect, outputs: dict[str, Any], told: dict[str, Any]
) -> None:
    asked = body(dialect, structured_outputs=outputs)
    assert {name: asked[name] for name in told} == told


@pytest.mark.parametrize(
    ("dialect", "parameters", "param"),
    [
        (dialects.OLLAMA, {"logit_bias": {5: 1}}, "logit_bias"),
        (dialects.OLLAMA, {"min_p": 0.1}, "min_p"),
        (dialects.OLLAMA, {"top_k": 3}, "top_k"),
        (dialects.OLLAMA, {"logprobs": True}, "logprobs"),
        (dialects.OLLAMA, {"structured_outputs": {"regex": "a"}}, "structured_outputs"),
        (dialects.OLLAMA, {"tools": [WEATHER], "tool_choice": "required"}, "tool_choice"),
        (
            dialects.OLLAMA,
            {"tools": [WEATHER], "parallel_tool_calls": False},
            "parallel_tool_calls",
        ),
        (dialects.OLLAMA.measured({"tools": "none"}), {"tools": [WEATHER]}, "tools"),
        (dialects.LLAMA_CPP.measured({"tools": "ours"}), {"tools": [WEATHER]}, "tools"),
        (dialects.GENERIC, {"repetition_penalty": 1.1}, "repetition_penalty"),
        (dialects.GENERIC, {"structured_outputs": {"choice": ["a"]}}, "structured_outputs"),
        (dialects.SGLANG, {"structured_outputs": {"grammar": "start: A"}}, "structured_outputs"),
        (dialects.LLAMA_CPP, {"structured_outputs": {"regex": "a"}}, "structured_outputs"),
        (
            dialects.GENERIC.measured({"structured": "none"}),
            {"response_format": FORMAT},
            "response_format",
        ),
    ],
)
def test_what_a_dialect_can_not_say_is_refused_by_name(
    dialect: Dialect, parameters: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequestError, match="is not offered by what runs this model") as told:
        body(dialect, **parameters)
    assert told.value.param == param


@pytest.mark.parametrize(
    ("dialect", "prompt"), [(dialects.OLLAMA, "text"), (dialects.GENERIC, [1, 2])]
)
def test_a_prompt_that_can_not_be_sent_is_refused(dialect: Dialect, prompt: Any) -> None:
    with pytest.raises(InvalidRequestError) as told:
        body_of(Job(PromptRequest(prompt=prompt)), "m", dialect, None)
    assert told.value.param == "prompt"


def test_what_nobody_asked_for_is_left_to_the_server() -> None:
    sent = body(dialects.GENERIC)
    assert set(sent) == {"model", "messages", "stream", "stream_options"}


def test_parameters_have_the_servers_names() -> None:
    assert body(dialects.LLAMA_CPP, repetition_penalty=1.5)["repeat_penalty"] == 1.5
    assert body(dialects.OPENAI, max_tokens=5)["max_completion_tokens"] == 5
    assert body(dialects.VLLM, max_tokens=5)["max_tokens"] == 5


def test_a_named_tool_is_the_only_one_where_none_can_be_named() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    choice = {"type": "function", "function": {"name": "weather"}}
    native = dialects.LLAMA_CPP.measured({"tools": "native"})
    sent = body(native, tools=[other, WEATHER], tool_choice=choice)
    assert (sent["tools"], sent["tool_choice"]) == ([WEATHER], "required")
    assert body(dialects.GENERIC, tools=[WEATHER], tool_choice=choice)["tool_choice"] == choice


# What is learned


async def test_tools_are_ours_where_the_server_refuses_them() -> None:
    calls = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'

    async def answer(asked: Asked) -> None:
        if "tools" in asked.body:
            await asked.json(recorded("vllm-tools-refused.json"), 400)
        else:
            await asked.events(
                delta(calls[:30]), delta(calls[30:]), delta("", "stop"), usage(9, 20)
            )

    async with kind_of_server("vllm") as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        for _ in range(2):
            deltas = await deltas_of(endpoint, job("Weather in Paris?", tools=[WEATHER]))
            (call,) = assembled(piece for d in deltas for piece in d.tool_calls)
            assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Paris"}')
            assert deltas[-1].finish_reason == "tool_calls"
        assert len(server.jobs) == 4  # it is asked once, and whether it takes our grammar
        asked, tried, first = server.jobs[:3]
        assert "tools" in asked.body
        assert tried.body["structured_outputs"]["grammar"].startswith("%llguidance")
        assert "You may call one or more functions" in first.body["messages"][0]["content"]
        assert first.body["structured_outputs"]["grammar"].startswith("%llguidance")


async def test_tools_are_the_servers_where_it_takes_them() -> None:
    async def answer(asked: Asked) -> None:
        if asked.body.get("stream"):
            await streaming("openai-tools.sse")(asked)
        else:
            prompt = 60 if "tools" in asked.body else 10
            await asked.json({"choices": [], "usage": {"prompt_tokens": prompt}})

    async with kind_of_server("vllm") as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        deltas = await deltas_of(endpoint, job(tools=[WEATHER]))
        assert deltas[-1].finish_reason == "tool_calls"
        assert server.jobs[-1].body["tools"] == [WEATHER]


async def test_tools_that_a_server_drops_without_a_word_are_refused() -> None:
    async def answer(asked: Asked) -> None:
        await asked.json({"choices": [], "usage": {"prompt_tokens": 10}})

    async with kind_of_server("llamacpp") as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        with pytest.raises(InvalidRequestError, match="chat template that knows tools") as told:
            await deltas_of(endpoint, job(tools=[WEATHER]))
        assert told.value.param == "tools"


@pytest.mark.parametrize("extra", ["priority", "cache_salt", "return_token_ids", "stream_options"])
async def test_a_field_of_ours_that_is_refused_is_left_out_for_good(extra: str) -> None:
    async def answer(asked: Asked) -> None:
        if extra in asked.body:
            await asked.json({"error": {"message": f"{extra} is not enabled"}}, 400)
        else:
            await hello(asked)

    async with kind_of_server("vllm") as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        for _ in range(2):
            deltas = await deltas_of(endpoint, job(priority=1, tenant="a"))
            assert text_of(deltas) == "Hello"
        assert [extra in asked.body for asked in server.jobs] == [True, False, False]


async def test_a_tenant_can_not_switch_off_a_salt_by_having_it_quoted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def answer(asked: Asked) -> None:
        if "structured_outputs" in asked.body:
            words = f"Invalid grammar: {asked.body['structured_outputs']['regex']}"
            await asked.json({"error": {"message": words, "code": 400}}, 400)
        else:
            await hello(asked)

    async with kind_of_server("vllm") as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        for quoted in "cache_salt(", "return_token_ids(":
            outputs = {"regex": quoted}
            with pytest.raises(InvalidRequestError, match="Invalid grammar"):
                await deltas_of(endpoint, job(tenant="mallory", structured_outputs=outputs))
        assert all("cache_salt" in asked.body for asked in server.jobs)
        await deltas_of(endpoint, job(tenant="victim"))
        assert {"cache_salt", "return_token_ids"} <= server.jobs[-1].body.keys()
        assert not caplog.records


async def test_a_refusal_that_passes_does_not_switch_off_a_salt_either() -> None:
    """Words quote the name, and the same request is taken the second time."""

    async def answer(asked: Asked) -> None:
        if len(server.jobs) == 1:
            await asked.json({"error": {"message": "no time for CACHE_SALT cache_salt"}}, 400)
        else:
            await hello(asked)

    async with kind_of_server("vllm") as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        with pytest.raises(InvalidRequestError, match="no time"):
            await deltas_of(endpoint, job("Cache_Salt", tenant="mallory"))
        await deltas_of(endpoint, job(tenant="victim"))
        assert "cache_salt" in server.jobs[-1].body


@pytest.mark.parametrize(
    "refusal",
    [
        {"error": {"message": "Extra inputs are not permitted", "param": "cache_salt"}},
        {"detail": [{"loc": ["body", "cache_salt"], "msg": "Extra inputs are not permitted"}]},
    ],
)
async def test_a_salt_that_a_server_points_at_is_left_out_with_a_warning(
    refusal: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(asked: Asked) -> None:
        if "cache_salt" in asked.body:
            await asked.json(refusal, 400)
        else:
            await hello(asked)

    async with kind_of_server("vllm") as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        for _ in range(2):
            await deltas_of(endpoint, job("what is a cache_salt?", tenant="a"))
        assert ["cache_salt" in asked.body for asked in server.jobs] == [True, False, False]
    (warning,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert "tenants share its cached prefixes" in warning.getMessage()


async def test_the_question_for_tools_is_one_and_ends_with_the_server() -> None:
    async def never(_: Asked) -> None:
        await asyncio.sleep(60)

    async def failing(asked: Asked) -> None:
        await asked.json("out of order", 500)

    async with kind_of_server("vllm") as server, upstream(server) as endpoint:
        server.routes[CHAT] = never
        running = [
            asyncio.create_task(deltas_of(endpoint, job(f"{i}", tools=[WEATHER]))) for i in range(5)
        ]
        await eventually(lambda: bool(server.jobs))
        server.routes["/v1/models"] = failing
        async with asyncio.timeout(10):
            ends = await asyncio.gather(*running, return_exceptions=True)
        assert [type(end) for end in ends] == [EndpointLostError] * 5
        assert len(server.jobs) == 1


async def test_who_asks_for_tools_and_leaves_does_not_take_the_question_along() -> None:
    asked_for = asyncio.Event()

    async def answer(asked: Asked) -> None:
        if asked.body.get("stream"):
            return await hello(asked)
        await asked_for.wait()
        return await asked.json({"usage": {"prompt_tokens": 60 if "tools" in asked.body else 10}})

    async with kind_of_server("vllm") as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        one, other = (
            asyncio.create_task(deltas_of(endpoint, job(f"{i}", tools=[WEATHER]))) for i in range(2)
        )
        await eventually(lambda: bool(server.jobs))
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        asked_for.set()
        assert text_of(await other) == "Hello"
        assert len(server.jobs) == 3


@pytest.mark.parametrize(
    ("status", "words", "error"),
    [
        (500, "out of memory", EndpointLostError),
        (403, "no", EndpointLostError),
        (429, "slow down", None),
    ],
)
async def test_what_is_no_answer_to_the_question_for_tools_is_not_taken_for_one(
    status: int, words: str, error: type[Exception] | None
) -> None:
    async def answer(asked: Asked) -> None:
        if asked.body.get("stream"):
            await hello(asked)
        elif len(server.jobs) == 1:
            await asked.json({"error": {"message": words}}, status)
        else:
            await asked.json({"usage": {"prompt_tokens": 60 if "tools" in asked.body else 10}})

    async with kind_of_server("vllm") as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        if error is None:
            assert text_of(await deltas_of(endpoint, job(tools=[WEATHER]))) == "Hello"
        else:
            with pytest.raises(error):
                await deltas_of(endpoint, job(tools=[WEATHER]))
        assert endpoint.known.dialect.tools == ("ask" if error else "native")


async def test_llama_cpp_without_its_templates_refuses_tools_with_a_500() -> None:
    async def answer(asked: Asked) -> None:
        await asked.json({"error": {"message": "tools param requires --jinja flag"}}, 500)

    async with kind_of_server("llamacpp") as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        with pytest.raises(InvalidRequestError, match="chat template that knows tools"):
            await deltas_of(endpoint, job(tools=[WEATHER]))


@pytest.mark.parametrize("status", [200, 400, 500])
async def test_vllm_without_a_parser_has_tools_where_it_takes_our_grammar(status: int) -> None:
    """Its xgrammar backend fails each such request with a 500, and is well otherwise."""

    async def answer(asked: Asked) -> None:
        if asked.body.get("stream"):
            await hello(asked)
        elif "tools" in asked.body:
            await asked.json({"error": {"message": '"auto" needs --tool-call-parser'}}, 400)
        else:
            assert asked.body["structured_outputs"]["grammar"].startswith("%llguidance")
            broken = {"error": {"message": "Internal server error"}}
            await asked.json({"usage": {}} if status == 200 else broken, status)

    async with kind_of_server("vllm") as server, upstream(server) as endpoint:
        server.routes[CHAT] = answer
        if status == 200:
            assert text_of(await deltas_of(endpoint, job(tools=[WEATHER]))) == "Hello"
        else:
            with pytest.raises(InvalidRequestError, match="--structured-outputs-config") as told:
                await deltas_of(endpoint, job(tools=[WEATHER]))
            assert told.value.param == "tools"
            chosen_none = job(tools=[WEATHER], tool_choice="none")
            assert text_of(await deltas_of(endpoint, chosen_none)) == "Hello"


# Slots of llama.cpp


async def test_a_prefix_stays_on_its_slot_and_no_tenant_has_anothers() -> None:
    long = "a long document " * 100
    async with kind_of_server("llamacpp") as server, upstream(server) as endpoint:
        for content, tenant in (
            (long + "one", "a"),
            ("another", "a"),
            (long + "two", "a"),
            (long + "one", "b"),
            (long + "three", "a"),
            ("x", "c"),
            ("y", "d"),
        ):
            await deltas_of(endpoint, job(content, tenant=tenant))
        slots = [asked.body["id_slot"] for asked in server.jobs]
        reused = [asked.body["cache_prompt"] for asked in server.jobs]
        assert slots[0] == slots[2] == slots[4]
        assert len({slots[0], slots[1], slots[3], slots[5]}) == 4
        assert reused == [False, False, True, False, True, False, False]


async def test_what_has_no_slot_waits_for_one() -> None:
    running = most = 0

    async def answer(asked: Asked) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        await hello(asked)
        running -= 1

    async with kind_of_server("llamacpp") as server, upstream(server, slots=20) as endpoint:
        server.routes[CHAT] = answer
        jobs = (deltas_of(endpoint, job(f"{i}", tenant=f"{i % 3}")) for i in range(12))
        answers = await asyncio.gather(*jobs)
        assert [text_of(deltas) for deltas in answers] == ["Hello"] * 12
        assert {asked.body["id_slot"] for asked in server.jobs} == {0, 1, 2, 3}
        assert most == 4
