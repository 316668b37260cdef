"""What a client of Parrot gets from vLLM, and what vLLM gets of it."""

import asyncio
import json
import os
import signal
import subprocess
import threading
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from parrot_backend.endpoints.base import Job
from parrot_backend.endpoints.upstream.endpoint import UpstreamEndpoint
from parrot_backend.wire.errors import ParrotError
from parrot_backend.wire.protocol import ChatRequest
from tests.processes import Served, alive, children
from tests.servers import eventually
from tests.vllm.served import BATCH, key_of, running, url_of, vllm_process

COLOUR = [{"role": "user", "content": "Name a colour."}]
LONG = "The quick brown fox jumps over the lazy dog. " * 40  # more than three blocks of 128 tokens
END_OF_TURN = {2: -100.0}


def chat(served: Served, **body: object) -> dict:
    body = {"messages": COLOUR, "temperature": 0, "max_tokens": 12, **body}
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=300)
    assert answer.is_success, answer.text
    return answer.json()


def events(served: Served, **body: object) -> list[dict]:
    body = {"messages": COLOUR, "temperature": 0, "max_tokens": 12, "stream": True, **body}
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=300)
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def job(content: str, *, tenant: str = "", priority: int = 0, tokens: int = 4) -> Job:
    request = ChatRequest(
        messages=[{"role": "user", "content": content}],
        temperature=0,
        max_tokens=tokens,
        logit_bias=END_OF_TURN,
    )
    return Job(request, priority=priority, tenant=tenant)


def test_it_is_told_as_what_it_is(served: Served) -> None:
    (model,) = httpx.get(f"{served.url}/v1/models", timeout=30).json()["data"]
    assert model["id"] == "smollm2-135m-instruct"
    ready = httpx.get(f"{served.url}/ready", timeout=30).json()
    assert (ready["status"], list(ready["engines"])) == ("ready", ["vllm"])
    assert "answers after" in served.told()


def test_a_streamed_answer_is_the_same_as_a_whole_one(served: Served) -> None:
    whole = chat(served)
    streamed = events(served, stream_options={"include_usage": True})
    text = "".join(c["delta"].get("content") or "" for e in streamed for c in e["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    assert streamed[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 12


@pytest.mark.parametrize(
    ("outputs", "answers"),
    [
        ({"choice": ["green", "pink"]}, {"green", "pink"}),
        ({"regex": "(red|blue)!"}, {"red!", "blue!"}),
        ({"grammar": 'start: "one" | "two"'}, {"one", "two"}),
        ({"json": {"type": "object", "properties": {"c": {"const": "red"}}, "required": ["c"],
                   "additionalProperties": False}}, {'{"c": "red"}', '{"c":"red"}'}),
    ],
)  # fmt: skip
def test_answers_are_what_they_must_be(served: Served, outputs: dict, answers: set[str]) -> None:
    answer = chat(served, structured_outputs=outputs)
    assert answer["choices"][0]["message"]["content"] in answers


def test_tools_are_called(served: Served) -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"enum": ["Lima"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    choice = chat(
        served, tools=[tool], tool_choice="required", parallel_tool_calls=False, max_tokens=60
    )["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Lima"}


def test_each_token_has_its_probability(served: Served) -> None:
    told = chat(served, logprobs=True, top_logprobs=2)["choices"][0]
    content = told["logprobs"]["content"]
    assert "".join(token["token"] for token in content) == told["message"]["content"]
    for token in content:
        assert token["logprob"] == max(top["logprob"] for top in token["top_logprobs"])
        assert len(token["top_logprobs"]) == 2


def test_what_was_computed_before_is_told(served: Served) -> None:
    message = [{"role": "user", "content": f"Once more: {LONG}"}]
    first, second = (chat(served, messages=message, max_tokens=2)["usage"] for _ in range(2))
    assert first["prompt_tokens"] == second["prompt_tokens"] > 3 * 128
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["prompt_tokens_details"]["cached_tokens"] >= 3 * 128


def test_a_prompt_that_is_too_long_is_the_client_s_error(served: Served) -> None:
    body = {"messages": [{"role": "user", "content": LONG * 12}]}
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_who_leaves_frees_what_was_run(served: Served) -> None:
    body = {"messages": COLOUR, "logit_bias": {"2": -100}, "max_tokens": 3000, "stream": True}
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body, timeout=60) as answer:
        next(answer.iter_lines())
        assert eventually(lambda: running(served) >= 1, timeout=30)
    assert eventually(lambda: running(served) == 0, timeout=90)


async def test_what_is_urgent_goes_first(direct: UpstreamEndpoint, served: Served) -> None:
    """vLLM takes the lower number first, and we the higher: somewhere it is turned round once."""
    order: list[str] = []

    async def run(name: str, one: Job) -> None:
        async with aclosing(direct.generate(one)) as deltas:
            async for delta in deltas:
                if delta.tokens and name not in order:
                    order.append(name)

    def begin(name: str, one: Job) -> asyncio.Task[None]:
        return asyncio.create_task(run(name, one))

    blocking = [begin(f"blocks{n}", job(f"Number {n}", tokens=120)) for n in range(BATCH)]
    async with asyncio.timeout(120):
        while len(order) < BATCH:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.05)
    later = [begin(f"low{n}", job(f"Low {n}", priority=1)) for n in range(4)]
    async with asyncio.timeout(120):
        while await asyncio.to_thread(running, served) < BATCH + 4:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    later += [begin(f"high{n}", job(f"High {n}", priority=5)) for n in range(4)]
    await asyncio.gather(*blocking, *later)
    ranks = [name[:3] for name in order[BATCH:]]
    assert sorted(ranks[:4]) == ["hig"] * 4, order


async def test_what_a_tenant_computed_is_no_other_s(direct: UpstreamEndpoint) -> None:
    async def cached(tenant: str) -> int:
        async with aclosing(direct.generate(job(f"Whose is it? {LONG}", tenant=tenant))) as deltas:
            return [delta.cached_tokens async for delta in deltas][-1]

    assert await cached("one") == 0
    assert await cached("one") >= 3 * 128
    assert await cached("two") == 0


def test_nobody_asks_vllm_but_us(served: Served) -> None:
    body = {"messages": COLOUR, "max_tokens": 1}
    url = f"{url_of(served)}/v1/chat/completions"
    assert httpx.post(url, json=body, timeout=30).status_code == 401
    key = {"Authorization": f"Bearer {key_of(served)}"}
    assert httpx.post(url, json=body, headers=key, timeout=60).status_code == 200
    seen = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert key_of(served) not in seen + served.told()


async def test_a_request_that_vllm_refuses_is_told_with_its_words(direct: UpstreamEndpoint) -> None:
    request = ChatRequest(messages=COLOUR, structured_outputs={"grammar": "start: nothing"})
    with pytest.raises(ParrotError, match=r"(?i)nothing"):
        async for _ in direct.generate(Job(request)):
            pass


def test_when_it_is_killed_another_ends_what_was_asked_for_with_the_same_text(
    served: Served,
) -> None:
    body = {"max_tokens": 200, "logit_bias": {"2": -100}}
    expected = chat(served, **body)["choices"][0]
    first, answers = vllm_process(served), []
    workers = children(first)
    client = threading.Thread(target=lambda: answers.append(chat(served, **body)))
    client.start()
    assert eventually(lambda: running(served) == 1, timeout=60)
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: not any(map(alive, [first, *workers])), timeout=10)
    client.join(timeout=600)
    assert answers, served.told()
    assert answers[0]["choices"][0] == expected
    assert "vLLM was killed by SIGKILL" in served.told()
    assert vllm_process(served) != first
    assert Path(f"/proc/{vllm_process(served)}").exists()
