"""Raw completions and the tokenizer, over a scripted engine with the official client."""

from collections.abc import Iterator

import httpx
import openai
import pytest

from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.wire.text_protocol import CompletionRequest, LLMRequest
from tests.doubles import ScriptedEngine
from tests.servers import serving
from tests.tools import NOW


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(ScriptedEngine(lambda prompt: prompt)) as base:
        yield base


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("ab", ["ab"]),
        (["ab", "c"], ["ab", "c"]),
        ([97, 98], ["ab"]),
        ([[97], [98, 99]], ["a", "bc"]),
    ],
)
def test_every_form_of_a_prompt(client: openai.OpenAI, prompt: object, texts: list[str]) -> None:
    answer = client.completions.create(model="scripted", prompt=prompt)  # type: ignore[arg-type]
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert [choice.text for choice in answer.choices] == texts
    assert [choice.index for choice in answer.choices] == list(range(len(texts)))
    assert {choice.finish_reason for choice in answer.choices} == {"stop"}


def test_choices_are_grouped_by_prompt_and_prompts_counted_once(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="scripted", prompt=["a SEED", "bSEED"], n=2, seed=5)
    assert [choice.text for choice in answer.choices] == ["a 5", "a 6", "b5", "b6"]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("a SEED") + len("bSEED")
    assert answer.usage.completion_tokens == 10


def test_it_streams_with_usage(client: openai.OpenAI) -> None:
    texts = {0: "", 1: ""}
    usages = []
    with client.completions.create(
        model="scripted",
        prompt=["abc", "de"],
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        for chunk in stream:
            usages.append(chunk.usage)
            for choice in chunk.choices:
                texts[choice.index] += choice.text
    assert texts == {0: "abc", 1: "de"}
    assert [usage.total_tokens for usage in usages if usage] == [10]


def test_logprobs_are_lists(client: openai.OpenAI) -> None:
    request = {"model": "scripted", "prompt": "xyz", "logprobs": 2}
    whole = client.completions.create(**request).choices[0].logprobs
    assert whole.tokens == ["x", "y", "z"]
    assert whole.token_logprobs == [-0.5] * 3
    assert whole.top_logprobs[1] == {"y": -0.5, "a": -1.0}
    assert whole.text_offset == [0, 1, 2]
    with client.completions.create(**request, stream=True) as stream:
        told = [chunk.choices[0].logprobs for chunk in stream]
    assert [each.text_offset for each in told] == [[0], [1], [2]]
    without = client.completions.create(model="scripted", prompt="xyz", logprobs=0)
    assert without.choices[0].logprobs.top_logprobs == [{}, {}, {}]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"echo": True}, "'echo'"),
        ({"suffix": "x"}, "'suffix'"),
        ({"best_of": 2}, "'best_of'"),
        ({"logprobs": True}, "logprobs is a number"),
        ({"logprobs": 21}, "top_logprobs"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 4096, "n": 2}, "4096 answers"),
        ({"prompt": ["a", "FAIL"]}, "do not fit"),
    ],
)
def test_what_is_refused_is_named(client: openai.OpenAI, wrong: dict, named: str) -> None:
    with pytest.raises(openai.BadRequestError, match=named):
        client.completions.create(**{"model": "scripted", "prompt": "a", **wrong})


def test_neutral_values_pass(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="scripted", prompt="a", echo=False, best_of=1, suffix=None, logprobs=None
    )
    assert answer.choices[0].text == "a"


def test_without_a_limit_an_answer_has_16_tokens_as_openai_s() -> None:
    assert [choice.max_tokens for choice in CompletionRequest(prompt=["a", "b"]).choices()] == [
        16,
        16,
    ]
    assert CompletionRequest(prompt="a", max_tokens=3).choices()[0].max_tokens == 3


def test_tokens_of_a_text_and_of_messages(url: str) -> None:
    for body in ({"prompt": "ab"}, {"messages": [{"role": "user", "content": "ab"}]}):
        answer = httpx.post(f"{url}/v1/tokenize", json=body).json()
        assert answer == {"tokens": [97, 98], "count": 2, "max_model_len": 1000}


@pytest.mark.parametrize(
    ("texts", "tokens"), [(["ab", "", "c"], [[97, 98], [], [99]]), (["a"], [[97]]), ([], [])]
)
def test_tokens_of_several_texts(url: str, texts: list[str], tokens: list[list[int]]) -> None:
    answer = httpx.post(f"{url}/v1/tokenize", json={"prompt": texts}).json()
    assert answer == {
        "tokens": tokens,
        "count": len("".join(texts)),
        "max_model_len": 1000,
    }


def test_several_texts_have_a_bound_together(url: str) -> None:
    most = ["a" * 2**16] * 2
    assert httpx.post(f"{url}/v1/tokenize", json={"prompt": most}).json()["count"] == 2**17
    answer = httpx.post(f"{url}/v1/tokenize", json={"prompt": [*most, "a"]})
    assert answer.status_code == 400
    assert "131072 characters" in answer.json()["error"]["message"]


def test_many_texts_are_not_taken_all_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenize, at_once = LocalEndpoint.tokenize, [0]

    async def counting(endpoint: LocalEndpoint, request: LLMRequest) -> list[int]:
        at_once.append(at_once[-1] + 1)
        try:
            return await tokenize(endpoint, request)
        finally:
            at_once.append(at_once[-1] - 1)

    monkeypatch.setattr(LocalEndpoint, "tokenize", counting)
    answer = httpx.post(f"{url}/v1/tokenize", json={"prompt": ["ab"] * 1000})
    assert answer.json()["tokens"] == [[97, 98]] * 1000
    assert max(at_once) <= 64


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "messages": [{"role": "user"}]}])
def test_tokenize_wants_one_of_both(url: str, body: dict) -> None:
    answer = httpx.post(f"{url}/v1/tokenize", json=body)
    assert answer.status_code == 400
    assert "either prompt or messages" in answer.json()["error"]["message"]


def test_tools_are_counted_with_messages_only(url: str) -> None:
    answer = httpx.post(f"{url}/v1/tokenize", json={"prompt": "a", "tools": [NOW]})
    assert answer.status_code == 400
    assert "tools go with messages" in answer.json()["error"]["message"]


def test_tokenize_knows_its_model(url: str) -> None:
    body = {"prompt": "a", "model": "another"}
    assert httpx.post(f"{url}/v1/tokenize", json=body).status_code == 404


@pytest.mark.model
def test_the_real_model_goes_on_from_text_and_from_tokens(base_url: str) -> None:
    prompt = "The capital of France is"
    tokens = httpx.post(f"{base_url}/v1/tokenize", json={"prompt": prompt}).json()["tokens"]
    client = openai.OpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0)
    answer = client.completions.create(
        model="smollm2-135m-instruct", prompt=[prompt, tokens], max_tokens=8, temperature=0
    )
    first, second = answer.choices
    assert first.text == second.text
    assert "Paris" in first.text
    assert answer.usage.prompt_tokens == 2 * len(tokens)
    client.close()
