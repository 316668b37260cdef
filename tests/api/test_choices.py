"""Several choices of one request, and logprobs, over a scripted engine with the official client."""

from collections.abc import Iterator

import httpx
import openai
import pytest

from parrot_backend.serving.limits import Limits
from parrot_backend.wire.protocol import CALL_HEADER, CLAIMED_HEADER, Program
from tests.doubles import ScriptedEngine
from tests.programs import call
from tests.servers import eventually, serving


@pytest.fixture(scope="module")
def scripted() -> ScriptedEngine:
    return ScriptedEngine(lambda prompt: prompt)


@pytest.fixture(scope="module")
def url(scripted: ScriptedEngine) -> Iterator[str]:
    with serving(scripted, limits=Limits(unfinished_calls=8)) as base:
        yield base


def user(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def chat(content: str, **more: object) -> dict[str, object]:
    return {"messages": user(content), **more}


def test_choices_come_in_order_with_seeds_that_count_up(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="scripted", messages=user("a SEED"), n=3, seed=2**63 - 2
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [choice.message.content for choice in answer.choices] == [
        f"a {2**63 - 2}",
        f"a {2**63 - 1}",
        f"a {-(2**63)}",
    ]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("a SEED")
    assert answer.usage.completion_tokens == sum(len(c.message.content) for c in answer.choices)


def test_without_a_seed_each_choice_has_one_of_its_own(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="scripted", messages=user("SEED"), n=2)
    first, second = (int(choice.message.content or "") for choice in answer.choices)
    assert first != second


def test_streamed_choices_are_interleaved(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="scripted",
            messages=user("some text, SEED"),
            n=4,
            seed=1,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts, roles, ends = [""] * 4, [0] * 4, [0] * 4
    order = []
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        order.append(choice.index)
        texts[choice.index] += choice.delta.content or ""
        roles[choice.index] += choice.delta.role == "assistant"
        ends[choice.index] += choice.finish_reason == "stop"
    assert texts == [f"some text, {seed}" for seed in (1, 2, 3, 4)]
    assert (roles, ends) == ([1] * 4, [1] * 4)
    assert order != sorted(order)
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4 * len("some text, 1")


@pytest.mark.parametrize("stream", [False, True])
def test_one_choice_that_fails_fails_the_request(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="scripted", messages=user("FAIL"), n=3, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_every_choice(
    url: str, scripted: ScriptedEngine, stream: bool
) -> None:
    scripted.hold("leaving")
    path, body = f"{url}/v1/chat/completions", chat("leaving", n=5, stream=stream)
    if stream:
        with httpx.stream("POST", path, json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            assert eventually(lambda: scripted.running == 5)
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(path, json=body, timeout=0.3)
    assert eventually(lambda: scripted.running == 0)
    scripted.held.clear()


def test_choices_that_do_not_all_fit_do_not_start(url: str, scripted: ScriptedEngine) -> None:
    scripted.hold("too many")
    answer = httpx.post(f"{url}/v1/chat/completions", json=chat("too many", n=9))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
    assert eventually(lambda: scripted.running == 0)
    scripted.held.clear()
    assert httpx.post(f"{url}/v1/chat/completions", json=chat("now", n=8)).status_code == 200


def test_in_a_session_each_choice_is_an_ordinary_request(url: str) -> None:
    program = Program(calls=[call("a", "planned")]).model_dump()
    session = httpx.post(f"{url}/v1/sessions", json={"program": program}).json()["id"]
    path = f"{url}/v1/sessions/{session}"
    answer = httpx.post(f"{path}/calls", json=chat("planned", n=2))
    assert [c["message"]["content"] for c in answer.json()["choices"]] == ["planned"] * 2
    assert answer.headers[CALL_HEADER] == "a,request/1"
    assert answer.headers[CLAIMED_HEADER] == "false"
    counts = httpx.delete(path).json()
    assert (counts["claimed"], counts["unplanned"], counts["done"]) == (1, 1, 2)


def test_logprobs_come_with_each_token(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="scripted", messages=user("né"), logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [token.token for token in logprobs.content] == ["n", "é"]
    assert logprobs.content[1].bytes == [0xC3, 0xA9]
    assert logprobs.content[1].logprob == -0.5
    assert [other.token for other in logprobs.content[1].top_logprobs] == ["é", "a"]


def test_logprobs_are_streamed(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(
        model="scripted", messages=user("abc"), logprobs=True, stream=True
    )
    tokens = [t for c in chunks for t in (c.choices[0].logprobs.content or [])]
    assert [token.token for token in tokens] == ["a", "b", "c"]
    assert [token.top_logprobs for token in tokens] == [[], [], []]


@pytest.mark.parametrize("stream", [False, True])
def test_without_being_asked_for_there_are_no_logprobs(url: str, stream: bool) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", json=chat("abc", stream=stream))
    assert '"logprobs": null' in answer.text.replace('":null', '": null')
    assert "top_logprobs" not in answer.text
