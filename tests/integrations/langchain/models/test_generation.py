"""`ChatParrot`: many prompts at once, several answers, logprobs, tokens, retries, profile."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from langchain_core import exceptions
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from parrot_integrations.langchain import ChatParrot
from tests.doubles import ScriptedEngine
from tests.integrations.replies import Reply, failure, replying
from tests.servers import eventually


@pytest.fixture
def llm(scripted_url: str) -> ChatParrot:
    return ChatParrot(base_url=scripted_url, temperature=0)


def prompts(*texts: str) -> list[list[HumanMessage]]:
    return [[HumanMessage(text)] for text in texts]


# Many prompts


def test_generate_submits_all_prompts_at_once(
    llm: ChatParrot, scripted_engine: ScriptedEngine
) -> None:
    held = scripted_engine.hold("first")
    before = len(scripted_engine.started)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(llm.generate, prompts("first", "second", "third"))
        assert eventually(lambda: len(scripted_engine.started) == before + 3)
        assert not asked.done()
        held.set()
        result = asked.result(10)
    assert [each[0].text for each in result.generations] == ["tsrif", "dnoces", "driht"]
    assert len(scripted_engine.started) == before + 3


class Events(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_chat_model_start(self, *_: object, **__: object) -> None:
        self.seen.append("start")

    def on_llm_end(self, *_: object, **__: object) -> None:
        self.seen.append("end")

    def on_llm_error(self, *_: object, **__: object) -> None:
        self.seen.append("error")


def test_generate_calls_back_as_always(llm: ChatParrot) -> None:
    handler = Events()
    llm.generate(prompts("a", "b"), callbacks=[handler])
    assert handler.seen == ["start", "start", "end", "end"]
    with pytest.raises(exceptions.ContextOverflowError):
        llm.generate(prompts("a", "FAIL", "b"), callbacks=[handler])
    assert handler.seen[4:] == ["start", "start", "start", "error"]


@pytest.mark.parametrize("settings", ["cache", "rate_limiter"])
def test_generate_does_not_run_ahead_of_a_cache_or_a_limiter(
    llm: ChatParrot, scripted_engine: ScriptedEngine, settings: str
) -> None:
    limiter = InMemoryRateLimiter(requests_per_second=1000, check_every_n_seconds=0.001)
    value = InMemoryCache() if settings == "cache" else limiter
    careful = llm.model_copy(update={settings: value})
    before = len(scripted_engine.started)
    result = careful.generate(prompts("x", "x", "x"))
    assert [each[0].text for each in result.generations] == ["x"] * 3
    assert len(scripted_engine.started) == before + (1 if settings == "cache" else 3)


def test_generate_without_sessions_asks_one_after_another() -> None:
    with replying(failure(404), good()) as server:
        result = ChatParrot(base_url=server.url).generate(prompts("a", "b"))
        paths = [path for _, path, _, _ in server.requests]
    assert [each[0].text for each in result.generations] == ["y", "y"]
    assert paths == ["/v1/sessions", "/v1/chat/completions", "/v1/chat/completions"]


def test_what_a_plan_does_not_take_is_asked_for_all_the_same(llm: ChatParrot) -> None:
    result = llm.generate(prompts("DEES", "a"), n=2, seed=3)
    assert [[g.text for g in each] for each in result.generations] == [["3", "4"], ["a", "a"]]
    with pytest.raises(ValueError, match="not supported"):
        llm.generate([[HumanMessage([{"type": "audio"}])], *prompts("a")])


async def test_agenerate(llm: ChatParrot) -> None:
    result = await llm.agenerate(prompts("ab", "cd"))
    assert [each[0].text for each in result.generations] == ["ba", "dc"]
    await llm.client.aclose()


# Several answers


def test_several_answers(llm: ChatParrot) -> None:
    several = ChatParrot(base_url=llm.base_url, n=3, seed=5)
    (answers,) = several.generate(prompts("DEES")).generations
    assert [answer.text for answer in answers] == ["5", "6", "7"]
    assert answers[0].message.usage_metadata["output_tokens"] == 3
    assert several.invoke("DEES").content == "5"


async def test_several_answers_where_a_handler_wants_a_stream(llm: ChatParrot) -> None:
    step = RunnableLambda(lambda text: llm.invoke(text, n=2))
    events = [event async for event in step.astream_events("ab", version="v2")]
    assert events[-1]["data"]["output"].content == "ba"
    assert "on_chat_model_stream" not in {event["event"] for event in events}
    streaming = ChatParrot(base_url=llm.base_url, streaming=True, n=2)
    assert streaming.invoke("ab").content == "ba"
    with pytest.raises(ValueError, match="n is 2"):
        list(llm.stream("ab", n=2))
    await llm.client.aclose()


# Logprobs


def test_logprobs(llm: ChatParrot) -> None:
    told = ChatParrot(base_url=llm.base_url, logprobs=True, top_logprobs=2)
    whole = told.invoke("ab").response_metadata["logprobs"]
    assert [token["token"] for token in whole["content"]] == ["b", "a"]
    assert [token["top_logprobs"][1]["logprob"] for token in whole["content"]] == [-1.0, -1.0]
    streamed = sum(told.stream("ab"), AIMessageChunk(""))
    assert streamed.response_metadata["logprobs"] == whole
    assert "logprobs" not in llm.invoke("ab").response_metadata


# Tokens


@tool
def now() -> str:
    """The time."""
    return "noon"


def test_tokens_are_the_model_s(llm: ChatParrot) -> None:
    assert llm.get_token_ids("ab") == [97, 98]
    assert llm.get_num_tokens("") == 0
    assert llm.get_num_tokens_from_messages([SystemMessage("ab"), HumanMessage("c")]) == 3
    own = ChatParrot(base_url=llm.base_url, custom_get_token_ids=lambda text: [len(text)])
    assert own.get_token_ids("abc") == [3]
    with pytest.raises(exceptions.ModelNotFoundError):
        ChatParrot(base_url=llm.base_url, model="another").get_num_tokens("a")


@pytest.mark.model
def test_a_prompt_is_counted_as_the_real_model_gets_it(base_url: str) -> None:
    llm = ChatParrot(base_url=base_url, temperature=0, max_tokens=1)
    messages = [SystemMessage("Be short."), HumanMessage("What time is it?")]
    answer = llm.invoke(messages)
    assert llm.get_num_tokens_from_messages(messages) == answer.usage_metadata["input_tokens"]
    answer = llm.bind_tools([now]).invoke(messages)
    assert (
        llm.get_num_tokens_from_messages(messages, tools=[now])
        == answer.usage_metadata["input_tokens"]
    )


# Retries and time limits


def good() -> Reply:
    return Reply(body=b'{"model":"m","choices":[{"message":{"content":"y"},"finish_reason":"x"}]}')


@pytest.mark.parametrize("bad", [failure(429, **{"Retry-After": "0"}), failure(503), Reply(None)])
def test_what_may_succeed_later_is_asked_again(bad: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parrot_integrations.client.transport.retries._FIRST_DELAY", 0.01)
    with replying(bad, good()) as server:
        assert ChatParrot(base_url=server.url, max_retries=1).invoke("x").content == "y"
        assert len(server.requests) == 2


def test_the_server_says_how_long_to_wait() -> None:
    with replying(failure(429, **{"Retry-After": "0.3"}), good()) as server:
        started = time.monotonic()
        ChatParrot(base_url=server.url, max_retries=1).invoke("x")
        assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_what_will_not_succeed_later_is_asked_once(status: int) -> None:
    with replying(failure(status)) as server:
        with pytest.raises(exceptions.ModelError):
            ChatParrot(base_url=server.url, max_retries=3).invoke("x")
        assert len(server.requests) == 1


def test_a_time_limit(llm: ChatParrot, scripted_engine: ScriptedEngine) -> None:
    scripted_engine.hold("long")
    hasty = ChatParrot(base_url=llm.base_url, timeout=0.2)
    with pytest.raises(exceptions.ModelTimeoutError, match="timeout="):
        hasty.invoke("long")
    assert eventually(lambda: scripted_engine.running == 0)


# Profile


def test_the_profile_says_what_works(llm: ChatParrot) -> None:
    assert llm.profile["tool_calling"]
    assert llm.profile["structured_output"]
    assert "max_input_tokens" not in llm.profile
    assert llm.served_profile() == {
        **llm.profile,
        "max_input_tokens": 1000,
        "max_output_tokens": 1000,
    }
    assert ChatParrot(profile={"tool_calling": False}).profile == {"tool_calling": False}


def test_parameters_of_settings(llm: ChatParrot) -> None:
    given = {"presence_penalty": 0.5, "frequency_penalty": 1.5, "n": 2, "logprobs": True}
    assert ChatParrot(base_url=llm.base_url, **given).parameters() == given


@pytest.fixture(autouse=True)
def closed(llm: ChatParrot) -> Iterator[None]:
    yield
    llm.client.close()
