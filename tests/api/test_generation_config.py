"""How an answer was generated, told in it and with the model."""

from collections.abc import Iterator
from dataclasses import replace

import httpx
import openai
import pytest

from parrot_backend.wire.parameters import GenerationConfig
from tests.doubles import ScriptedEngine
from tests.programs import call
from tests.servers import serving

OWN = {
    "temperature": 0.2,
    "top_p": 0.9,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.1,
    "frequency_penalty": 0.0,
    "max_tokens": 512,
}


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    engine = ScriptedEngine()
    engine.model = replace(engine.model, generation_config=GenerationConfig(**OWN))
    return engine


@pytest.fixture(scope="module")
def url(engine: ScriptedEngine) -> Iterator[str]:
    with serving(engine) as base:
        yield base


def message(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def test_a_model_tells_its_own(client: openai.OpenAI) -> None:
    for model in (client.models.list().data[0], client.models.retrieve("scripted")):
        assert (model.id, model.object, model.owned_by) == ("scripted", "model", "parrot")
        told = {"root": "scripted", "max_model_len": 1000, "generation_config": OWN}
        assert model.model_extra == told


def test_an_answer_tells_what_it_was_generated_by(
    client: openai.OpenAI, engine: ScriptedEngine
) -> None:
    answer = client.chat.completions.create(model="scripted", messages=message("a"))
    assert answer.model_extra == {"generation_config": OWN, "queue_time": None}
    answer = client.chat.completions.create(
        model="scripted",
        messages=message("b"),
        temperature=0,
        max_completion_tokens=9,
        extra_body={"repetition_penalty": 1},
    )
    asked = {**OWN, "temperature": 0, "max_tokens": 9, "repetition_penalty": 1}
    assert answer.model_extra == {"generation_config": asked, "queue_time": None}
    for prompt, told in (("a", OWN), ("b", asked)):
        assert {name: getattr(engine.samplings[prompt], name) for name in told} == told


def test_a_completion_tells_it_with_its_own_limit(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="scripted", prompt=["a", "b"])
    assert answer.model_extra is not None
    assert answer.model_extra["generation_config"] == {**OWN, "max_tokens": 16}


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_tells_it_at_its_end(client: openai.OpenAI, usage: bool) -> None:
    with client.chat.completions.create(
        model="scripted",
        messages=message("abc"),
        stream=True,
        stream_options={"include_usage": usage},
    ) as stream:
        chunks = list(stream)
    told = [chunk for chunk in chunks if chunk.model_extra]
    assert told == chunks[-2:] if usage else chunks[-1:]
    assert all(chunk.model_extra["generation_config"] == OWN for chunk in told)


def test_requests_that_say_nothing_claim_a_planned_call_that_says_nothing(
    url: str, engine: ScriptedEngine
) -> None:
    body = {"messages": message("said by nobody")}
    program = {
        "calls": [call("a", "said by nobody").model_dump()],
        "outputs": [{"variable": "a.out"}],
    }
    with httpx.Client(base_url=f"{url}/v1") as http:
        session = http.post("/sessions", json={"program": program}).json()["id"]
        answers = [
            http.post(f"/sessions/{session}/calls", json={**body, **asked})
            for asked in ({"repetition_penalty": 1.1}, {}, {})
        ]
    assert [answer.headers["x-parrot-claimed"] for answer in answers] == ["false", "true", "false"]
    assert [answer.json()["generation_config"] for answer in answers] == [OWN] * 3
