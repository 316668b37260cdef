"""Long texts are counted piece by piece; what is tokenized has the tokens that it always had."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from parrot_backend.engines.torch_engine import tokenizing
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel
from parrot_backend.engines.torch_engine.tokenizer import Tokenizer
from parrot_backend.engines.torch_engine.tokenizing import encode_text, longest_text
from parrot_backend.wire.errors import ContextLengthError, InvalidRequestError

words = st.sampled_from(
    ["parrot", " grey", "\n\n", "     ", "🦜", "日本", "12345", "<|im_end|>", "e\u0301"]
)
texts = st.lists(st.tuples(words | st.text(max_size=8), st.integers(1, 200)), max_size=12).map(
    lambda parts: "".join(word * count for word, count in parts)
)


def encode(tokenizer: Any, text: str, most: int | None = None) -> list[int]:
    return encode_text(tokenizer, text, param="prompt", add_special_tokens=True, most=most)


@pytest.fixture(scope="module")
def tokenizer(model_path: str) -> Any:
    return Tokenizer.of(AutoTokenizer.from_pretrained(model_path))


@pytest.mark.model
def test_tokens_are_the_tokenizers_own_and_only_what_surpasses_the_limit_is_refused(
    tokenizer: Any,
) -> None:
    refused = 0

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(texts, st.sampled_from([1, 10, 100, 400, 1000]))
    def check(text: str, most: int) -> None:
        nonlocal refused
        expected = tokenizer.encode(text)
        assert len(text) <= longest_text(tokenizer, len(expected))
        try:
            assert encode(tokenizer, text, most) == expected
        except ContextLengthError:
            assert len(expected) > most
            refused += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizing, "_PIECE", 500)
        check()
    assert refused > 20


def test_a_long_text_is_tokenized_no_further_than_the_limit(tiny: LoadedModel) -> None:
    seen = []

    class Spy:
        def encode(self, text: str, **options: Any) -> list[int]:
            seen.append(len(text))
            return list(tiny.tokenizer.encode(text, **options))

    with pytest.raises(ContextLengthError, match="more than 512 tokens"):
        encode(Spy(), "a" * 3 * 2**20, 512)
    assert seen == [2**16]
    assert len(encode(Spy(), "a" * 100_000)) == 100_000
    assert len(encode(Spy(), "a" * 2**16, 512)) == 2**16, "who asked sees how many there are"


def test_the_longest_text_is_made_of_the_longest_tokens(tiny: LoadedModel) -> None:
    longest = max(map(len, tiny.tokenizer.backend.get_vocab()))
    assert longest == len("<unknown>")
    assert longest_text(tiny.tokenizer, 512) == 512 * longest


@pytest.mark.parametrize("length", [1, 2**17])
def test_text_that_is_not_unicode_is_refused_at_any_length(tiny: LoadedModel, length: int) -> None:
    with pytest.raises(InvalidRequestError, match="'prompt' is not valid Unicode"):
        encode(tiny.tokenizer, "\ud800" * length, 512)
