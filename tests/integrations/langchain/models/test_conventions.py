"""What users of `ChatOpenAI` take for granted of a chat model."""

import asyncio
import copy
import gc
import pickle
import weakref
from typing import Any, TypedDict

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseLanguageModel
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import LLMResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from parrot_backend.engines.base import ModelCard
from parrot_integrations.langchain import ChatParrot, ParrotLLM, ParrotTimeoutError, compile
from parrot_integrations.planning.session import PlannedSession
from tests.integrations.langchain.compiling.watching import submitting
from tests.integrations.replies import Reply, events, replying

MODELS = [ChatParrot, ParrotLLM]
FINGERPRINT = ModelCard("scripted", 1000).fingerprint


def said(text: str) -> Reply:
    choice = {"message": {"content": text}, "text": text, "finish_reason": "stop", "logprobs": None}
    return Reply(body=httpx.Response(200, json={"model": "m", "choices": [choice]}).content)


class Bird(BaseModel):
    """A bird."""

    name: str


class Tree(TypedDict):
    """A tree."""

    name: str


# How it is sent


@pytest.mark.parametrize("kind", MODELS)
def test_every_form_of_timeout_is_kept_as_plain_numbers(kind: type) -> None:
    forms = {None: None, 5: 5.0, (2, 30): (2, 30, None, None)}
    for given, kept in [*forms.items(), (httpx.Timeout(7, connect=1), (1, 7, 7, 7))]:
        llm = kind(timeout=given)
        assert llm.timeout == kept
        assert kind(request_timeout=given).client is llm.client
        assert type(llm).model_validate_json(llm.model_dump_json()).timeout == kept
    assert kind(timeout=None).client.timeout.read is None
    assert kind(max_retries=None).client.max_retries == 2
    assert kind().client is kind(timeout=600, max_retries=None).client


@pytest.mark.parametrize("kind", MODELS)
def test_headers_and_further_fields_go_with_every_request(kind: type) -> None:
    with replying(said("a"), said("b"), events("[DONE]")) as server:
        llm = kind(
            base_url=server.url,
            default_headers={"x-team": "birds"},
            extra_body={"min_p": 0.1, "seed": 2},
            seed=1,
            logit_bias={7: -100},
        )
        llm.invoke("abc")
        asyncio.run(_ask(llm, "abc"))
        list(llm.stream("abc", extra_body={"top_k": 3}, extra_headers={"X-Team": "bees"}))
    (_, _, headers, body), (_, _, aheaders, abody), (_, _, called, last) = server.requests
    assert headers["x-team"] == aheaders["x-team"] == "birds"
    assert body == abody
    assert (body["min_p"], body["seed"], body["logit_bias"]) == (0.1, 2, {"7": -100.0})
    assert called["x-team"] == "bees"
    assert (last["top_k"], last["seed"]) == (3, 1)
    assert "min_p" not in last


async def _ask(llm: BaseLanguageModel, text: str) -> None:
    await llm.ainvoke(text)
    await llm.client.aclose()


def test_a_call_may_have_a_timeout_of_its_own(scripted_engine: Any, scripted_url: str) -> None:
    scripted_engine.hold("slow")
    llm = ChatParrot(base_url=scripted_url)
    with pytest.raises(ParrotTimeoutError, match="within the timeout"):
        llm.invoke("slow", timeout=0.2)


@pytest.mark.parametrize("kind", MODELS)
def test_httpx_clients_of_ones_own(kind: type, scripted_url: str) -> None:
    requests: list[httpx.Request] = []
    with httpx.Client(event_hooks={"request": [requests.append]}) as http:
        llm = kind(base_url=scripted_url, http_client=http, max_tokens=3)
        llm.invoke("abc")
        list(llm.stream("abc"))
        llm.client.close()
        llm.invoke("abc")
        assert len(requests) == 3
        assert (copy.copy(llm).http_client, llm.model_copy().client) == (http, llm.client)
        twin = copy.deepcopy(llm)
        assert (twin == llm, twin.http_client) == (True, http)
        assert pickle.loads(pickle.dumps(llm)).http_client is None
        assert llm.http_client is http
        assert "http_client" not in dumps(llm)
        assert kind(base_url=scripted_url, max_tokens=3).client is not llm.client
        gone = weakref.ref(http)
    del http, llm, twin
    requests.clear()
    gc.collect()
    assert gone() is None


def test_an_async_client_of_ones_own(scripted_url: str) -> None:
    requests: list[httpx.Request] = []

    async def note(request: httpx.Request) -> None:
        requests.append(request)

    async def ask() -> None:
        async with httpx.AsyncClient(event_hooks={"request": [note]}) as http:
            llm = ChatParrot(base_url=scripted_url, http_async_client=http)
            await llm.ainvoke("abc")
            assert [chunk async for chunk in llm.astream("abc")]
            await llm.abatch(["a", "b"])
            assert not http.is_closed

    asyncio.run(ask())
    assert len(requests) == 4


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("kind", MODELS)
def test_all_of_it_is_serialized(kind: type) -> None:
    llm = kind(
        base_url="http://127.0.0.1:1",
        timeout=(1, 2),
        default_headers={"x": "y"},
        extra_body={"min_p": 0.1},
        logit_bias={7: -1},
    )
    names = {"allowed_objects": [kind], "valid_namespaces": ["parrot_integrations"]}
    assert loads(dumps(llm), **names) == llm


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_key_that_no_header_can_carry_is_an_error_that_names_it(
    kind: type, compiled: bool, scripted_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    llm = kind(base_url=scripted_url, api_key="schlüssel")
    chain = compile(llm) if compiled else llm
    with pytest.raises(ValueError, match=r"^api_key can't be sent in a header"):
        chain.invoke("abc")
    with pytest.raises(ValueError, match=r"^api_key can't be sent in a header"):
        asyncio.run(chain.ainvoke("abc"))
    with pytest.raises(ValueError, match=r"^api_key can't be sent in a header"):
        list(chain.stream("abc"))
    assert "planning failed" not in caplog.text
    errors = chain.batch(["abc", "de"], return_exceptions=True)
    assert {str(error)[:21] for error in errors} == {"api_key can't be sent"}
    assert chain.with_fallbacks([kind(base_url=scripted_url)]).invoke("abc")


# What is asked


@pytest.mark.parametrize("kind", MODELS)
def test_unknown_arguments_warn_and_go_with_the_request(kind: type) -> None:
    with pytest.warns(UserWarning, match="^eighth, ninth: no argument") as warned:
        llm = kind(eighth=8, ninth=9, model_kwargs={"user": "me"})
    assert warned[0].filename == __file__
    assert llm.model_kwargs == {"eighth": 8, "ninth": 9, "user": "me"}
    assert llm.parameters()["ninth"] == 9
    given = {"temperature": 0.5}
    with pytest.warns(UserWarning, match="^temperature: give it as an argument"):
        llm = kind(model_kwargs=given)
    assert (llm.temperature, llm.model_kwargs) == (0.5, {})
    assert given == {"temperature": 0.5}
    with pytest.raises(ValueError, match="seed: given as an argument and in model_kwargs"):
        kind(seed=1, model_kwargs={"seed": 2})


def test_a_key_under_another_name_is_not_sent() -> None:
    with pytest.raises(ValueError, match="openai_api_key is called api_key here") as raised:
        ChatParrot(openai_api_key="hunter2")
    assert "hunter2" not in str(raised.value)


def test_the_warning_is_where_chatopenai_warns() -> None:
    with pytest.warns(UserWarning, match="ninth") as ours:
        ChatParrot(ninth=9)
    with pytest.warns(UserWarning, match="ninth") as theirs:
        ChatOpenAI(ninth=9, api_key="k")
    assert ours[0].category is theirs[0].category


def test_a_subclass_has_arguments_of_its_own() -> None:
    class Named(ChatParrot):
        nickname: str = ""

    assert Named(nickname="polly").model_kwargs == {}


@pytest.mark.parametrize("schema", [Bird, Tree])
def test_a_class_bound_as_response_format(schema: type) -> None:
    with replying(said('{"name": "owl"}')) as server:
        llm = ChatParrot(base_url=server.url)
        assert llm.bind(response_format=schema).invoke("Name a bird.").text == '{"name": "owl"}'
        llm.invoke("Name a bird.", response_format=schema)
        llm.with_structured_output(schema).invoke("Name a bird.")
        with pytest.warns(UserWarning, match="response_format"):
            ChatParrot(base_url=server.url, response_format=schema).invoke("Name a bird.")
    asked = [body for _, _, _, body in server.requests]
    assert asked[0] == asked[1] == asked[2] == asked[3]
    assert asked[0]["response_format"]["type"] == "json_schema"


def test_what_is_bound_is_planned_and_claimed(scripted_url: str) -> None:
    sessions: list[PlannedSession] = []
    llm = ChatParrot(
        base_url=scripted_url,
        default_headers={"x-team": "birds"},
        extra_body={"min_p": 0.1},
        logit_bias={7: -100},
    )
    first = ChatPromptTemplate.from_template("one {word}") | llm.bind(timeout=20)
    chain = first | (lambda m: m.text) | llm.bind(extra_body={"top_k": 5})
    requests: list[httpx.Request] = []
    with httpx.Client(event_hooks={"request": [requests.append]}) as http:
        own = llm.model_copy(update={"http_client": http})
        for each in (chain, ChatPromptTemplate.from_template("two {word}") | own):
            assert submitting(each, sessions.append).invoke({"word": "abc"})
            final = sessions[-1].view()
            assert (final.claimed, final.unplanned) == (final.planned, 0)
        asked = [(request.method, request.url.path.split("/")[2]) for request in requests]
        assert sorted(asked) == [("DELETE", "sessions"), ("POST", "chat"), ("POST", "sessions")]


def test_an_async_client_alone_takes_no_plan(scripted_url: str) -> None:
    sessions: list[PlannedSession] = []
    requests: list[httpx.Request] = []

    async def note(request: httpx.Request) -> None:
        requests.append(request)

    async def ask(**sync: Any) -> None:
        async with httpx.AsyncClient(event_hooks={"request": [note]}) as http:
            llm = ChatParrot(base_url=scripted_url, http_async_client=http, **sync)
            chain = submitting(llm | (lambda message: message.text) | llm, sessions.append)
            assert (await chain.ainvoke("abc")).text == "abc"
            assert ("http_async_client" in chain.explain("abc")) == (not sync)

    asyncio.run(ask())
    assert (sessions, len(requests)) == ([], 2)
    with httpx.Client() as http:
        asyncio.run(ask(http_client=http))
        assert {request.url.path for request in requests} == {"/v1/chat/completions"}
        assert sessions[0].view().claimed > 0


def test_a_class_given_to_the_call_is_not_asked_for_its_schema_by_the_plan() -> None:
    chain = compile(ChatParrot(base_url="http://127.0.0.1:1"))
    assert "Bind it to the model" in chain.explain("abc", response_format=Bird)


# What comes back


class Ends(BaseCallbackHandler):
    def __init__(self) -> None:
        self.outputs: list[dict[str, Any] | None] = []

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        self.outputs.append(response.llm_output)


def test_llm_output_has_the_tokens_and_who_answered(scripted_url: str) -> None:
    llm = ChatParrot(base_url=scripted_url)
    seen = Ends()
    prompts = [[("human", "abc")], [("human", "de")]]
    messages = [ChatPromptTemplate.from_messages(p).format_messages() for p in prompts]
    whole = llm.generate(messages, callbacks=[seen])
    awhole = asyncio.run(llm.agenerate(messages))
    for result in (whole, awhole):
        assert result.llm_output == {
            "token_usage": {
                "prompt_tokens": 5,
                "completion_tokens": 5,
                "total_tokens": 10,
                "prompt_tokens_details": {"cached_tokens": 0},
            },
            "model_name": "scripted",
            "model_provider": "parrot",
            "system_fingerprint": FINGERPRINT,
        }
    assert [output["token_usage"]["total_tokens"] for output in seen.outputs] == [6, 4]
    assert len({output["id"] for output in seen.outputs}) == 2


def test_an_answer_says_which_one_it_is(scripted_url: str) -> None:
    llm = ChatParrot(base_url=scripted_url)

    async def astreamed() -> AIMessageChunk:
        return sum([chunk async for chunk in llm.astream("abc")], AIMessageChunk(""))

    streamed = sum(llm.stream("abc"), AIMessageChunk(""))
    answers = llm.invoke("abc"), streamed, asyncio.run(llm.ainvoke("abc")), asyncio.run(astreamed())
    for answer in answers:
        assert answer.response_metadata["system_fingerprint"] == FINGERPRINT
        assert answer.response_metadata["model_name"] == "scripted"
        assert answer.response_metadata["token_usage"]["total_tokens"] == 6
        assert answer.response_metadata["generation_config"]["temperature"] == 1
    assert len({answer.response_metadata["id"] for answer in answers}) == 4


def test_a_completion_says_which_one_it_is(scripted_url: str) -> None:
    llm = ParrotLLM(base_url=scripted_url)
    whole = llm.generate(["abc", "de"]).llm_output
    assert (whole["token_usage"]["total_tokens"], whole["model_name"]) == (10, "scripted")
    assert whole["system_fingerprint"] == FINGERPRINT
    assert whole["generation_config"]["max_tokens"] == 256
    ended: list[dict[str, Any]] = []

    class Last(BaseCallbackHandler):
        def on_llm_end(self, response: LLMResult, **_: Any) -> None:
            ended.append(response.generations[0][0].generation_info)

    list(llm.stream("abc", config={"callbacks": [Last()]}))
    assert ended[0]["system_fingerprint"] == FINGERPRINT
    assert ended[0]["generation_config"] == whole["generation_config"]
    assert ended[0]["token_usage"]["total_tokens"] == 6
    assert ended[0]["id"] != whole["id"]
