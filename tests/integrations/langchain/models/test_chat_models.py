import asyncio
import copy
import pickle
import subprocess
import sys

import httpx
import pytest
from langchain_core import exceptions
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from pydantic import SecretStr, ValidationError

from parrot_backend.engines.base import ModelCard
from parrot_backend.wire.parameters import GenerationConfig
from parrot_backend.wire.protocol import ChatRequest
from parrot_integrations import langchain
from parrot_integrations.client import errors
from parrot_integrations.langchain import ChatParrot
from tests.doubles import ScriptedEngine
from tests.integrations.replies import Reply, events, failure, replying
from tests.servers import eventually, serving

MESSAGES = [SystemMessage("be "), HumanMessage("good")]


@pytest.fixture
def llm(scripted_url):
    return ChatParrot(base_url=scripted_url, temperature=0)


# The request


def test_every_way_asks_for_the_same(llm):
    body = llm.request_body(MESSAGES, ["x"], seed=1)
    assert body == {
        "messages": [{"role": "system", "content": "be "}, {"role": "user", "content": "good"}],
        "temperature": 0,
        "stop": ["x"],
        "seed": 1,
    }
    streamed = llm._stream_body(MESSAGES, ["x"], seed=1)
    assert ChatRequest(**streamed).claim_key() == ChatRequest(**body).claim_key()


def test_all_parameters():
    llm = ChatParrot(
        base_url="http://127.0.0.1:1",
        model="m",
        temperature=0.5,
        max_tokens=7,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        repetition_penalty=1,
        seed=3,
        stop="end",
        model_kwargs={"user": "me"},
    )
    own = {
        "model": "m",
        "temperature": 0.5,
        "max_tokens": 7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "repetition_penalty": 1,
        "seed": 3,
        "stop": "end",
        "user": "me",
    }
    assert llm.parameters() == own
    call = llm.parameters(["a"], temperature=0, max_completion_tokens=9, seed=None, model="n")
    assert call == {k: v for k, v in own.items() if k != "seed"} | {
        "temperature": 0,
        "max_tokens": 9,
        "stop": ["a"],
        "model": "n",
    }
    assert llm.parameters(stream=True, stream_usage=False) == own


def test_a_managed_backend_is_asked_for_no_model():
    llm = ChatParrot(model="some/folder")
    assert "model" not in llm.parameters()
    assert llm.parameters(model="other")["model"] == "other"
    assert llm._get_ls_params()["ls_model_name"] == "some/folder"
    assert llm.client.key != ChatParrot(model="another").client.key


def test_aliases():
    llm = ChatParrot(
        model_name="m", max_completion_tokens=5, stop_sequences=["s"], request_timeout=3
    )
    assert (llm.model, llm.model_name, llm.max_tokens) == ("m", "m", 5)
    assert (llm.stop, llm.timeout) == (["s"], 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0},
        {"timeout": (1,)},
        {"timeout": (1, "x")},
        {"max_retries": -1},
        {"temperature": "hot"},
        {"http_client": httpx.AsyncClient()},
        {"http_async_client": "no client"},
    ],
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ChatParrot(**wrong)


def test_unknown_call_arguments_are_refused_by_the_server(llm):
    with pytest.raises(exceptions.ModelInvalidRequestError, match="unheard_of"):
        llm.invoke("abc", unheard_of=1)


# The answer


def test_invoke(llm):
    message = llm.invoke("abc")
    assert message.content == "cba"
    assert message.usage_metadata == {
        "input_tokens": 3,
        "output_tokens": 3,
        "total_tokens": 6,
        "input_token_details": {"cache_read": 0},
    }
    assert message.response_metadata.pop("id").startswith("chat-")
    assert message.response_metadata == {
        "finish_reason": "stop",
        "model_name": "scripted",
        "model_provider": "parrot",
        "system_fingerprint": ModelCard("scripted", 1000).fingerprint,
        "generation_config": GenerationConfig(temperature=0).model_dump(),
        "token_usage": {
            "prompt_tokens": 3,
            "completion_tokens": 3,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }
    assert message.id.startswith("lc_run-")


async def test_all_four_ways_give_the_same(llm):
    whole = llm.invoke(MESSAGES)
    merged = sum(llm.stream(MESSAGES), AIMessageChunk(""))
    amerged = AIMessageChunk("")
    async for chunk in llm.astream(MESSAGES):
        amerged += chunk
    ids = {whole.response_metadata.pop("id")}
    for other in (await llm.ainvoke(MESSAGES), merged, amerged):
        ids.add(other.response_metadata.pop("id"))
        assert other.content == whole.content == "doog eb"
        assert other.usage_metadata == whole.usage_metadata
        assert other.response_metadata == whole.response_metadata
    assert len(ids) == 4


def test_stream_is_text_and_then_one_last_chunk(llm):
    *text, last = llm.stream("abc")
    assert [chunk.content for chunk in text] == ["c", "b", "a"]
    assert [chunk.usage_metadata for chunk in text] == [None] * 3
    assert (last.content, last.chunk_position) == ("", "last")
    assert last.usage_metadata["total_tokens"] == 6


def test_stream_usage_can_be_left_out(llm, scripted_url):
    quiet = ChatParrot(base_url=scripted_url, stream_usage=False)
    for chunks in (quiet.stream("abc"), llm.stream("abc", stream_usage=False)):
        assert not any(chunk.usage_metadata for chunk in chunks)


def test_a_long_answer_of_many_chunks_is_put_together():
    words = [f"w{n} " for n in range(3000)]
    chunks = [{"model": "m", "choices": [{"delta": {"content": word}}]} for word in words]
    chunks.append({"model": "m", "choices": [{"delta": {}, "finish_reason": "length"}]})
    with replying(events(*chunks, "[DONE]")) as server:
        streamed = list(ChatParrot(base_url=server.url).stream("x"))
    assert "".join(chunk.content for chunk in streamed) == "".join(words)
    assert streamed[-1].response_metadata == {
        "finish_reason": "length",
        "model_name": "m",
        "model_provider": "parrot",
    }


def test_an_empty_answer():
    chunk = {"model": "m", "choices": [{"delta": {"content": ""}, "finish_reason": "stop"}]}
    with replying(events(chunk, "[DONE]")) as server:
        assert [c.content for c in ChatParrot(base_url=server.url).stream("x")] == [""]


class Tokens(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[str] = []

    def on_llm_new_token(self, token: str, **_) -> None:
        self.tokens.append(token)


def test_streaming_calls_token_callbacks_on_invoke(scripted_url):
    handler = Tokens()
    llm = ChatParrot(base_url=scripted_url, streaming=True)
    assert llm.invoke("abc", config={"callbacks": [handler]}).content == "cba"
    assert handler.tokens == ["c", "b", "a", ""]


def test_usage_callback(llm):
    handler = UsageMetadataCallbackHandler()
    llm.batch(["abc", "de"], config={"callbacks": [handler]})
    assert handler.usage_metadata["scripted"]["total_tokens"] == 10


def test_in_a_chain(llm):
    chain = ChatPromptTemplate.from_template("say {word}") | llm | StrOutputParser()
    assert chain.batch([{"word": "a"}, {"word": "b"}]) == ["a yas", "b yas"]
    assert "".join(chain.stream({"word": "ab"})) == "ba yas"


# Cancelling


def test_a_stream_that_is_left_ends_the_call(llm, scripted_engine):
    scripted_engine.hold("long")
    stream = llm.stream("long")
    next(stream)
    stream.close()
    assert eventually(lambda: scripted_engine.running == 0)


async def test_an_async_stream_that_is_left_ends_the_call(llm, scripted_engine):
    scripted_engine.hold("long")
    async for _ in llm.astream("long"):
        break
    await asyncio.sleep(0.05)
    assert eventually(lambda: scripted_engine.running == 0)


async def test_a_cancelled_task_ends_the_call(llm, scripted_engine):
    scripted_engine.hold("long")
    task = asyncio.create_task(llm.ainvoke("long"))
    await asyncio.to_thread(eventually, lambda: scripted_engine.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert eventually(lambda: scripted_engine.running == 0)


# Errors


@pytest.mark.parametrize(
    ("reply", "ours", "theirs"),
    [
        (failure(400), errors.InvalidRequestError, exceptions.ModelInvalidRequestError),
        (
            failure(400, "context_length_exceeded"),
            errors.ContextLengthError,
            exceptions.ContextOverflowError,
        ),
        (failure(401), errors.AuthenticationError, exceptions.ModelAuthenticationError),
        (failure(403), errors.PermissionDeniedError, exceptions.ModelPermissionDeniedError),
        (failure(404), errors.NotFoundError, exceptions.ModelNotFoundError),
        (failure(408), errors.BackendTimeoutError, exceptions.ModelTimeoutError),
        (failure(421), errors.PermissionDeniedError, exceptions.ModelPermissionDeniedError),
        (failure(429), errors.QuotaError, exceptions.ModelRateLimitError),
        (failure(500), errors.ServerError, exceptions.ModelAPIError),
        (failure(503, "overloaded"), errors.OverloadedError, exceptions.ModelAPIError),
        (failure(503, "endpoint_lost"), errors.ServerError, exceptions.ModelAPIError),
        (failure(504), errors.BackendTimeoutError, exceptions.ModelTimeoutError),
        (Reply(None), errors.BackendConnectionError, exceptions.ModelConnectionError),
    ],
)
async def test_errors_are_ours_and_langchains(reply, ours, theirs):
    with replying(reply) as server:
        llm = ChatParrot(base_url=server.url, max_retries=0)
        for ask in (llm.invoke, lambda text: list(llm.stream(text))):
            with pytest.raises(theirs) as raised:
                ask("abc")
            assert isinstance(raised.value, ours)
            assert type(raised.value.__cause__) is ours
            assert vars(langchain)[type(raised.value).__name__] is type(raised.value)
            assert raised.value.code == raised.value.__cause__.code
        with pytest.raises(theirs):
            await llm.ainvoke("abc")
        with pytest.raises(theirs):
            await anext(llm.astream("abc"))
        await llm.client.aclose()


def test_an_error_in_mid_stream_keeps_what_came_before():
    first = {"model": "m", "choices": [{"delta": {"content": "a"}}]}
    error = {"error": {"message": "gone", "type": "server_error", "code": "not_repeatable"}}
    with replying(events(first, error, "[DONE]")) as server:
        stream = ChatParrot(base_url=server.url).stream("x")
        assert next(stream).content == "a"
        with pytest.raises(exceptions.ModelAPIError, match="gone") as raised:
            next(stream)
        assert raised.value.code == "not_repeatable"
        assert len(server.requests) == 1


def test_nobody_there():
    with pytest.raises(exceptions.ModelConnectionError, match="`parrot serve`"):
        ChatParrot(base_url="http://127.0.0.1:9", max_retries=0).invoke("abc")


# As an object


def test_settings_from_the_environment(monkeypatch):
    with serving(ScriptedEngine(), api_key="hunter2") as url:
        monkeypatch.setenv("PARROT_BASE_URL", url + "/v1")
        with pytest.raises(exceptions.ModelAuthenticationError):
            ChatParrot().invoke("abc")
        monkeypatch.setenv("PARROT_API_KEY", "hunter2")
        llm = ChatParrot()
        assert llm.invoke("abc").content == "cba"
        llm.client.close()
    assert "hunter2" not in repr(llm) + str(llm) + dumps(llm)


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_serialization(llm):
    llm = ChatParrot(base_url=llm.base_url, api_key=SecretStr("k"), max_tokens=3)
    again = loads(
        dumps(llm),
        allowed_objects=[ChatParrot],
        valid_namespaces=["parrot_integrations"],
        secrets_map={"PARROT_API_KEY": "k"},
    )
    assert again == llm
    assert again.invoke("abc").content == "cba"


def test_copies_work_and_are_equal(llm):
    llm.invoke("abc")
    for twin in (pickle.loads(pickle.dumps(llm)), copy.deepcopy(llm), llm.model_copy()):
        assert twin == llm
        assert twin.invoke("abc").content == "cba"
    moved = llm.model_copy(update={"base_url": "http://127.0.0.1:9"})
    assert moved.client is not llm.client


def test_models_with_the_same_settings_share_connections(scripted_url):
    one, two = (ChatParrot(base_url=scripted_url, temperature=t) for t in (0, 1))
    assert one.client is two.client


def test_the_version_is_in_the_trace(llm):
    assert set(llm.metadata["lc_versions"]) >= {"langchain-core", "parrot-integrations"}


def test_without_langchain_core_the_import_says_what_to_install():
    code = "import sys; sys.modules['langchain_core'] = None; import parrot_integrations.langchain"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stderr.splitlines()[-1] == (
        "ImportError: parrot_integrations.langchain needs langchain-core. "
        "Run `pip install 'parrot-integrations[langchain]'`."
    )
