"""`ParrotLLM`; the first half adapts what langchain-core tests of its own LLMs."""

import copy
import json
import pickle

import pytest
from langchain_core import exceptions
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumps, loads
from langchain_core.messages import HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.prompts import PromptTemplate
from langchain_core.tracers import RunLogPatch
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from pydantic import SecretStr

from parrot_integrations.client.sessions import parrot_session
from parrot_integrations.langchain import ParrotLLM
from tests.doubles import ScriptedEngine
from tests.integrations.replies import Reply, events, failure, replying

pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.LangChainBetaWarning",
    "ignore::langchain_core._api.LangChainDeprecationWarning",
)


@pytest.fixture
def llm(scripted_url: str) -> ParrotLLM:
    return ParrotLLM(base_url=scripted_url, temperature=0)


# As langchain-core's tests of BaseLLM have it


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.starts: list[list[str]] = []
        self.ends: list[LLMResult] = []
        self.errors: list[BaseException] = []
        self.tokens: list[str] = []
        self.options: list[dict] = []

    def on_llm_start(self, serialized: dict, prompts: list[str], **kwargs: object) -> None:
        self.starts.append(prompts)
        self.options.append(kwargs["invocation_params"])

    def on_llm_end(self, response: LLMResult, **_: object) -> None:
        self.ends.append(response)

    def on_llm_error(self, error: BaseException, **_: object) -> None:
        self.errors.append(error)

    def on_llm_new_token(self, token: str, **_: object) -> None:
        self.tokens.append(token)


def test_batch(llm: ParrotLLM) -> None:
    assert llm.batch(["foo", "bar", "foo"]) == ["oof", "rab", "oof"]
    assert llm.batch(["foo", "bar", "foo"], config={"max_concurrency": 2}) == ["oof", "rab", "oof"]
    assert llm.batch([]) == []


async def test_abatch(llm: ParrotLLM) -> None:
    assert await llm.abatch(["foo", "bar", "foo"]) == ["oof", "rab", "oof"]
    some = await llm.abatch(["foo", "bar", "foo"], config={"max_concurrency": 2})
    assert some == ["oof", "rab", "oof"]
    await llm.client.aclose()


def test_batch_as_completed(llm: ParrotLLM) -> None:
    assert sorted(llm.batch_as_completed(["ab", "cd"])) == [(0, "ba"), (1, "dc")]


def test_batch_gives_the_exception_to_each(llm: ParrotLLM) -> None:
    first, second = llm.batch(["foo", "FAIL"], return_exceptions=True)
    assert isinstance(first, exceptions.ContextOverflowError)
    assert first is second


def test_every_input_is_its_text(llm: ParrotLLM) -> None:
    assert llm.invoke("ab") == "ba"
    assert llm.invoke([HumanMessage("ab")]) == "ba :namuH"
    assert (PromptTemplate.from_template("a{x}") | llm).invoke({"x": "b"}) == "ba"


async def test_the_size_of_a_batch_is_traced(llm: ParrotLLM) -> None:
    for inputs, limit, size in ((["a"], None, 1), (["a", "b"], None, 2), (["a", "b"], 1, 1)):
        tracer = RunCollectorCallbackHandler()
        llm.batch(inputs, {"callbacks": [tracer], "max_concurrency": limit})
        await llm.abatch(inputs, {"callbacks": [tracer], "max_concurrency": limit})
        assert [run.extra["batch_size"] for run in tracer.traced_runs] == [size] * 2 * len(inputs)
    await llm.client.aclose()


async def test_errors_call_back(llm: ParrotLLM) -> None:
    handler = Recorder()
    with pytest.raises(exceptions.ContextOverflowError):
        llm.invoke("FAIL", {"callbacks": [handler]})
    with pytest.raises(exceptions.ContextOverflowError):
        await llm.ainvoke("FAIL", {"callbacks": [handler]})
    assert (len(handler.starts), len(handler.errors), len(handler.ends)) == (2, 2, 0)
    await llm.client.aclose()


async def test_streams_call_back_and_end(llm: ParrotLLM) -> None:
    for stream in ("stream", "astream"):
        handler = Recorder()
        config = {"callbacks": [handler]}
        chunks = (
            list(llm.stream("abc", config))
            if stream == "stream"
            else [chunk async for chunk in llm.astream("abc", config)]
        )
        assert "".join(chunks) == "cba"
        assert handler.tokens == ["c", "b", "a"]
        assert handler.starts == [["abc"]]
        ((generation,),) = handler.ends[0].generations
        assert generation.text == "cba"
        assert generation.generation_info["finish_reason"] == "stop"
        assert generation.generation_info["usage_metadata"]["total_tokens"] == 6
    await llm.client.aclose()


async def test_stream_errors_call_back(llm: ParrotLLM) -> None:
    handler = Recorder()
    with pytest.raises(exceptions.ContextOverflowError):
        list(llm.stream("FAIL", {"callbacks": [handler]}))
    with pytest.raises(exceptions.ContextOverflowError):
        await anext(llm.astream("FAIL", {"callbacks": [handler]}))
    assert len(handler.errors) == 2
    await llm.client.aclose()


def test_generate_calls_back_once_for_each_prompt(llm: ParrotLLM) -> None:
    handler = Recorder()
    result = llm.generate(["ab", "c"], callbacks=[handler], stop=["x"])
    assert handler.starts == [["ab"], ["c"]]
    assert [end.generations[0][0].text for end in handler.ends] == ["ba", "c"]
    assert handler.options[0]["stop"] == ["x"]
    assert len(result.run) == 2


async def test_astream_log(llm: ParrotLLM) -> None:
    patches = [patch async for patch in llm.astream_log("ab")]
    assert all(isinstance(patch, RunLogPatch) for patch in patches)
    final = patches[0]
    for patch in patches[1:]:
        final += patch
    assert final.state["streamed_output"] == ["b", "a", ""]
    assert final.state["type"] == "llm"
    await llm.client.aclose()


def test_a_cache_is_asked_first(llm: ParrotLLM, scripted_engine: ScriptedEngine) -> None:
    cached = llm.model_copy(update={"cache": InMemoryCache()})
    assert cached.invoke("cached") == "dehcac"
    before = len(scripted_engine.started)
    assert cached.batch(["cached", "another"]) == ["dehcac", "rehtona"]
    assert scripted_engine.started[before:] == ["another"]


# The request and the answer


def completion(*texts: str) -> Reply:
    choices = [{"text": text, "finish_reason": "stop", "logprobs": None} for text in texts]
    return Reply(body=json.dumps({"model": "m", "choices": choices}).encode())


def test_a_batch_is_one_request() -> None:
    with replying(completion("y", "y")) as server:
        llm = ParrotLLM(base_url=server.url, temperature=0)
        assert llm.batch(["a", "b"], stop=["s"]) == ["y", "y"]
        ((method, path, _, body),) = server.requests
    assert (method, path) == ("POST", "/v1/completions")
    assert body == {"prompt": ["a", "b"], "temperature": 0, "max_tokens": 256, "stop": ["s"]}


def test_a_batch_is_one_task_group(scripted_url: str) -> None:
    llm = ParrotLLM(base_url=scripted_url)
    with parrot_session() as session:
        llm.batch(["a", "b", "c"])
    (graph,) = session.graphs()
    assert [len(group.calls) for group in graph.groups] == [3]


def test_all_that_is_known_of_an_answer(llm: ParrotLLM) -> None:
    result = llm.generate(["abc", "de"], logprobs=1)
    assert result.llm_output["model_name"] == "scripted"
    assert result.llm_output["token_usage"]["total_tokens"] == 10
    assert result.llm_output["usage_metadata"]["input_token_details"] == {"cache_read": 0}
    info = result.generations[1][0].generation_info
    assert info["finish_reason"] == "stop"
    assert info["logprobs"]["tokens"] == ["e", "d"]


def test_several_answers(llm: ParrotLLM) -> None:
    result = llm.generate(["DEES", "a"], n=2, seed=3)
    assert [[g.text for g in each] for each in result.generations] == [["3", "4"], ["a", "a"]]
    with pytest.raises(ValueError, match="n is 2"):
        list(llm.stream("a", n=2))


def test_tokens_are_the_model_s(llm: ParrotLLM) -> None:
    assert llm.get_token_ids("ab") == [97, 98]
    assert llm.get_num_tokens("") == 0
    own = ParrotLLM(base_url=llm.base_url, custom_get_token_ids=lambda text: [len(text)])
    assert own.get_token_ids("abc") == [3]


def test_logprobs_are_streamed(llm: ParrotLLM) -> None:
    handler = Recorder()
    list(llm.stream("abc", {"callbacks": [handler]}, logprobs=0))
    ((generation,),) = handler.ends[0].generations
    assert generation.generation_info["logprobs"]["tokens"] == ["c", "b", "a"]
    assert generation.generation_info["logprobs"]["text_offset"] == [0, 1, 2]


def test_an_error_in_mid_stream() -> None:
    first = {"model": "m", "choices": [{"text": "a", "logprobs": None, "finish_reason": None}]}
    error = {"error": {"message": "gone", "type": "server_error"}}
    with replying(events(first, error, "[DONE]")) as server:
        stream = ParrotLLM(base_url=server.url).stream("x")
        assert next(stream) == "a"
        with pytest.raises(exceptions.ModelAPIError, match="gone"):
            next(stream)


def test_what_is_overloaded_is_asked_again() -> None:
    with replying(failure(429, **{"Retry-After": "0"}), completion("y")) as server:
        assert ParrotLLM(base_url=server.url).invoke("x") == "y"
        assert len(server.requests) == 2


# As an object


def test_settings() -> None:
    llm = ParrotLLM(model_name="m", max_completion_tokens=5, stop_sequences=["s"], logprobs=2)
    assert (llm.model, llm.max_tokens, llm.stop) == ("m", 5, ["s"])
    assert llm._get_ls_params(stop=["t"]) == {
        "ls_provider": "parrot",
        "ls_model_type": "llm",
        "ls_model_name": "m",
        "ls_max_tokens": 5,
        "ls_stop": ["t"],
    }
    assert llm._llm_type == "parrot"
    with pytest.warns(UserWarning, match="temprature"):
        assert ParrotLLM(temprature=0).parameters() == {"max_tokens": 256, "temprature": 0}
    assert "hunter2" not in repr(ParrotLLM(api_key=SecretStr("hunter2")))


def test_serialization_and_copies(llm: ParrotLLM) -> None:
    llm = ParrotLLM(base_url=llm.base_url, api_key=SecretStr("k"), max_tokens=3)
    again = loads(
        dumps(llm),
        allowed_objects=[ParrotLLM],
        valid_namespaces=["parrot_integrations"],
        secrets_map={"PARROT_API_KEY": "k"},
    )
    for twin in (again, pickle.loads(pickle.dumps(llm)), copy.deepcopy(llm)):
        assert twin == llm
        assert twin.invoke("abc") == "cba"


@pytest.fixture
def real(base_url: str) -> ParrotLLM:
    return ParrotLLM(base_url=base_url, temperature=0, max_tokens=8)


@pytest.mark.model
def test_the_real_model_goes_on_from_each_prompt(real: ParrotLLM) -> None:
    prompts = ["The capital of France is", "The capital of Spain is"]
    paris, madrid = real.batch(prompts)
    assert "Paris" in paris
    assert "Madrid" in madrid
    assert "".join(real.stream(prompts[0])) == paris
    usage = real.generate(prompts).llm_output["usage_metadata"]
    assert usage["input_tokens"] == sum(map(real.get_num_tokens, prompts))
