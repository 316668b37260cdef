"""The whole backend with the real model: official client, long prompts, clients that die."""

import subprocess
import sys
import threading

import openai
import pytest

from parrot_backend.engines.base import Engine
from tests.servers import eventually

pytestmark = pytest.mark.model

DYING_CLIENT = """
import sys
from operator import itemgetter
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from parrot_integrations.langchain import ChatParrot, compile, join_texts

llm = ChatParrot(base_url=sys.argv[1], temperature=0)
ask = ChatPromptTemplate.from_template("Tell a very long story about {x}.") | llm
part = ask | StrOutputParser()
chain = {"x": itemgetter("all") | part.map() | join_texts()} | ask
if sys.argv[2] == "chain":
    print("started", flush=True)
    compile(chain).invoke({"all": ["a cat", "a dog", "a king"]})
for chunk in ask.stream({"x": "a river"}):
    print("started", flush=True)
"""


@pytest.fixture
def client(base_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0)


def greedy(client: openai.OpenAI, prompt: str, **more: object) -> str:
    answer = client.chat.completions.create(
        model="smollm2-135m-instruct",
        messages=[{"role": "user", "content": prompt}],
        temperature=0,
        **more,
    )
    return answer.choices[0].message.content


def test_the_official_client_gets_the_model_s_answer(client: openai.OpenAI) -> None:
    question = "What is the capital of France?"
    assert "Paris" in greedy(client, question, max_tokens=16)
    with client.chat.completions.create(
        model="smollm2-135m-instruct",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=16,
        stream=True,
    ) as stream:
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert streamed == greedy(client, question, max_tokens=16)


def test_a_prompt_past_the_context_is_refused_and_nothing_else_notices(
    client: openai.OpenAI,
) -> None:
    alone = greedy(client, "Count from one to ten.", max_tokens=32)
    answers: list[str] = []
    other = threading.Thread(
        target=lambda: answers.append(greedy(client, "Count from one to ten.", max_tokens=32))
    )
    other.start()
    with pytest.raises(openai.BadRequestError, match="8192") as caught:
        greedy(client, "word " * 9000)
    other.join(timeout=60)
    assert caught.value.code == "context_length_exceeded"
    assert answers == [alone]


@pytest.mark.parametrize("what", ["stream", "chain"])
def test_a_killed_client_frees_blocks_and_queue(what: str, base_url: str, engine: Engine) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DYING_CLIENT, base_url, what], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert eventually(lambda: engine.stats().kv_used_tokens > 0, timeout=20)
        process.kill()
    assert eventually(
        lambda: (
            (
                engine.stats().kv_used_tokens,
                engine.stats().running,
                engine.stats().waiting,
            )
            == (0, 0, 0)
        ),
        timeout=30,  # a plan goes on until its client has given no sign of life for 15 s
    )
