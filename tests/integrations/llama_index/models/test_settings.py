"""What users of OpenAI's class take for granted of an LLM's settings."""

import asyncio
import copy
import gc
import os
import pickle
import warnings
import weakref

import httpx
import pytest
from llama_index.core.base.llms.types import ChatMessage
from pydantic import SecretStr, ValidationError

from parrot_integrations.client.errors import BackendTimeoutError
from parrot_integrations.llama_index import Parrot
from tests.doubles import ScriptedEngine
from tests.integrations.replies import Reply, events, replying

CHAT = [ChatMessage("abc")]


def said(text: str) -> Reply:
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    return Reply(body=httpx.Response(200, json={"model": "m", "choices": [choice]}).content)


def test_every_form_of_timeout_is_kept_as_plain_numbers() -> None:
    forms = {None: None, 5: 5.0, (2, 30): (2, 30, None, None)}
    for given, kept in [*forms.items(), (httpx.Timeout(7, connect=1), (1, 7, 7, 7))]:
        llm = Parrot(timeout=given)
        assert llm.timeout == kept
        assert Parrot(request_timeout=given).client is llm.client
        assert Parrot.from_json(llm.to_json()).timeout == kept


def test_headers_and_further_fields_go_with_every_request() -> None:
    with replying(said("a"), said("b"), events("[DONE]")) as server:
        llm = Parrot(
            base_url=server.url,
            default_headers={"x-team": "birds"},
            extra_body={"min_p": 0.1, "seed": 2},
            additional_kwargs={"user": "me"},
            seed=1,
            logit_bias={7: -100},
        )
        llm.complete("abc")
        asyncio.run(ask(llm))
        list(llm.stream_chat(CHAT, extra_body={"top_k": 3}, extra_headers={"X-Team": "bees"}))
    (_, _, headers, body), (_, _, aheaders, abody), (_, _, called, last) = server.requests
    assert headers["x-team"] == aheaders["x-team"] == "birds"
    assert body == abody
    assert (body["min_p"], body["seed"], body["logit_bias"]) == (0.1, 2, {"7": -100.0})
    assert body["user"] == "me"
    assert called["x-team"] == "bees"
    assert (last["top_k"], last["seed"]) == (3, 1)
    assert "min_p" not in last


async def ask(llm: Parrot) -> None:
    await llm.achat(CHAT)
    await llm.client.aclose()


def test_the_most_tokens_are_always_sent_and_told(scripted_url: str) -> None:
    for given, most in (
        ({}, 256),
        ({"max_tokens": 9}, 9),
        ({"max_completion_tokens": 9}, 9),
        ({"additional_kwargs": {"max_tokens": 9}}, 9),
        ({"extra_body": {"max_tokens": 9}}, 9),
    ):
        llm = Parrot(base_url=scripted_url, **given)
        assert llm.metadata.num_output == most
        assert llm._body(CHAT)["max_tokens"] == most
    assert Parrot(base_url=scripted_url)._body(CHAT, max_tokens=None)["max_tokens"] == 256


def test_a_call_may_have_a_timeout_of_its_own(
    scripted_engine: ScriptedEngine, scripted_url: str
) -> None:
    scripted_engine.hold("slow")
    with pytest.raises(BackendTimeoutError, match="within the timeout"):
        Parrot(base_url=scripted_url).complete("slow", timeout=0.2)


def test_httpx_clients_of_ones_own(scripted_url: str) -> None:
    requests: list[httpx.Request] = []
    with httpx.Client(event_hooks={"request": [requests.append]}) as http:
        llm = Parrot(base_url=scripted_url, http_client=http)
        llm.complete("abc")
        list(llm.stream_complete("abc"))
        assert len(requests) == 2
        twin = copy.deepcopy(llm)
        assert (twin.to_dict(), twin.http_client) == (llm.to_dict(), http)
        assert pickle.loads(pickle.dumps(llm)).http_client is None
        assert llm.http_client is http
        assert "http_client" not in llm.to_dict()
        gone = weakref.ref(http)
    del http, llm, twin
    requests.clear()
    gc.collect()
    assert gone() is None


def test_an_async_client_of_ones_own(scripted_url: str) -> None:
    requests: list[httpx.Request] = []

    async def note(request: httpx.Request) -> None:
        requests.append(request)

    async def run() -> None:
        async with httpx.AsyncClient(event_hooks={"request": [note]}) as http:
            llm = Parrot(base_url=scripted_url, http_async_client=http)
            await llm.acomplete("abc")
            assert [r async for r in await llm.astream_chat(CHAT)]

    asyncio.run(run())
    assert len(requests) == 2


def test_a_key_that_no_header_can_carry_is_an_error_that_names_it(scripted_url: str) -> None:
    llm = Parrot(base_url=scripted_url, api_key="schlüssel")
    with pytest.raises(ValueError, match=r"^api_key can't be sent in a header"):
        llm.complete("abc")


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"temperature": 3}, {"timeout": 0}])
def test_wrong_arguments_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Parrot(**wrong)


def test_unknown_arguments_are_refused_by_name_and_no_value_is_told() -> None:
    with pytest.raises(ValidationError, match="temprature") as raised:
        Parrot(temprature="hunter2")
    assert "hunter2" not in str(raised.value)


def test_dictionaries_have_no_credentials(scripted_url: str) -> None:
    llm = Parrot(
        base_url=scripted_url,
        api_key=SecretStr("hunter2"),
        default_headers={"authorization": "hunter3"},
        max_tokens=9,
        timeout=(1, 2),
        logit_bias={7: -1},
    )
    data = llm.to_dict()
    assert "hunter" not in repr(data) + llm.to_json()
    assert "hunter2" not in repr(llm)
    assert data["class_name"] == "Parrot"
    assert Parrot.from_dict(data).to_dict() == data
    assert Parrot.from_json(llm.to_json()).to_dict() == data
    assert Parrot.model_validate(llm.model_dump()).to_dict() == data


def test_every_setting_is_described() -> None:
    own = set(Parrot.model_fields) - {"pydantic_program_mode", "callback_manager"}
    assert [name for name in sorted(own) if not Parrot.model_fields[name].description] == []


def test_copies_work(scripted_url: str) -> None:
    llm = Parrot(base_url=scripted_url, api_key="hunter2", max_tokens=9)
    llm.complete("abc")
    assert llm.metadata.context_window == 1000
    assert llm.tokenizer("ab") == [97, 98]
    for twin in (pickle.loads(pickle.dumps(llm)), copy.deepcopy(llm), copy.copy(llm)):
        assert twin.to_dict() == llm.to_dict()
        assert twin.api_key == llm.api_key
        assert twin.complete("abc").text == "cba"
        assert twin.metadata == llm.metadata
        assert twin.tokenizer("ab") == [97, 98]


def test_a_forked_child_asks_over_connections_of_its_own(scripted_url: str) -> None:
    llm = Parrot(base_url=scripted_url)
    llm.complete("abc")
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons: there are threads
        child = os.fork()
    if child == 0:
        try:
            os.write(write, llm.complete("from child").text.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"dlihc morf"
    assert llm.complete("abc").text == "cba"
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("api_base", "api_base is base_url here"),
        ("is_chat_model", "is_chat_model is not needed"),
        ("reuse_client", "reuse_client is not needed: connections are always reused"),
        ("tokenizer", "Settings.tokenizer = llm.tokenizer"),
    ],
)
def test_what_openais_classes_call_otherwise_is_told(name: str, hint: str) -> None:
    with pytest.raises(ValidationError, match=hint) as raised:
        Parrot(**{name: "sk-secret"})
    assert "sk-secret" not in str(raised.value)


def test_all_that_is_called_otherwise_is_told_at_once() -> None:
    with pytest.raises(ValidationError, match=r"base_url here.*; reuse_client is not needed"):
        Parrot(api_base="http://host", reuse_client=True)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Parrot(no_such_argument=1)
