"""The server's tokenizer, as LlamaIndex calls it: for every word, again and again."""

import json
from typing import Any

import httpx
import llama_index.core
import pytest
from llama_index.core import Settings
from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.node_parser.text.utils import split_by_sep
from llama_index.core.prompts import PromptTemplate

from parrot_backend.wire.errors import ContextLengthError
from parrot_integrations.llama_index import Parrot
from tests.doubles import ScriptedEngine
from tests.integrations.replies import Reply, replying
from tests.servers import serving


def tokens(*ids: Any) -> Reply:
    return Reply(body=json.dumps({"tokens": ids, "count": 1, "max_model_len": 9}).encode())


def test_it_gives_the_models_own_tokens(scripted_url: str) -> None:
    tokenizer = Parrot(base_url=scripted_url).tokenizer
    assert tokenizer("abc") == tokenizer.encode("abc") == [97, 98, 99]
    assert tokenizer("") == []


def test_a_word_is_asked_for_once() -> None:
    with replying(tokens([5]), tokens(), tokens([6])) as server:
        tokenizer = Parrot(base_url=server.url, model="m").tokenizer
        assert [tokenizer(word) for word in ("a", "a", "b", "a", "b")] == [[5], [5], [6], [5], [6]]
        assert [body for *_, body in server.requests] == [
            {"prompt": prompt, "model": "m"} for prompt in (["a"], "", ["b"])
        ]


def test_what_is_put_before_each_prompt_does_not_count() -> None:
    with replying(tokens([1, 5]), tokens(1), tokens([1, 6, 7])) as server:
        tokenizer = Parrot(base_url=server.url).tokenizer
        assert (tokenizer("a"), tokenizer("b c")) == ([5], [6, 7])


def test_the_words_of_a_long_text_are_asked_for_at_once() -> None:
    requests: list[httpx.Request] = []
    text = " ".join(f"word{n % 60}" for n in range(300))
    with (
        serving(ScriptedEngine()) as url,
        httpx.Client(event_hooks={"request": [requests.append]}) as http,
    ):
        tokenizer = Parrot(base_url=url, http_client=http).tokenizer
        assert len(tokenizer(text)) == len(text)
        words = split_by_sep(" ")(text)
        assert [len(tokenizer(word)) for word in words] == [len(word) for word in words]
    long, special, each = [json.loads(request.content)["prompt"] for request in requests]
    assert (long, special) == (text, "")
    assert sorted(each) == sorted(set(words))


def test_many_long_words_are_asked_for_within_the_bounds_of_a_request() -> None:
    words = [f"{n:0120}" for n in range(3000)]
    with serving(ScriptedEngine()) as url:
        tokenizer = Parrot(base_url=url).tokenizer
        tokenizer(" ".join(words))
        assert tokenizer(words[0]) == [ord(digit) for digit in words[0]]


class Small(ScriptedEngine):
    """Refuses what its context does not hold, as the real one does."""

    def tokenize(self, text: str, *, fitting: bool = False) -> list[int]:
        if len(text) > 100:
            raise ContextLengthError("the prompt has more than 100 tokens")
        return super().tokenize(text)


def test_what_fits_no_context_is_tokenized_all_the_same() -> None:
    text = "long words " * 40 + "x" * 300
    with serving(Small()) as url:
        assert Parrot(base_url=url).tokenizer(text) == [ord(character) for character in text]


def test_prompts_are_packed_by_it(scripted_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "_tokenizer", None)
    monkeypatch.setattr(llama_index.core, "global_tokenizer", None)
    llm = Parrot(base_url=scripted_url, max_tokens=100)
    Settings.tokenizer = llm.tokenizer
    helper = PromptHelper.from_llm_metadata(llm.metadata, tokenizer=llm.tokenizer)
    prompt = PromptTemplate("{context_str}")
    packed: list[Any] = helper.repack(prompt, ["word " * 300], llm=llm)
    assert len(packed) == 2
    assert all(len(text) <= 1000 - 100 for text in packed)
    splitter = TokenTextSplitter(chunk_size=50, chunk_overlap=0, tokenizer=llm.tokenizer)
    assert all(len(text) <= 50 for text in splitter.split_text("A sentence of words. " * 20))
