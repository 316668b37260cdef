"""Text comes in whole characters, holds back what may be a stop string, and is complete in the end."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from parrot_backend.engines.torch_engine.choose.detokenizer import (
    Detokenizer,
    StopStrings,
    TextStream,
)
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel

TEXT = "naïve 東京 👩‍👩‍👧 ok 🦜!"


def pieces(tokenizer: Any, tokens: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [detokenizer.push(token) for token in tokens] + [detokenizer.finish()]


def test_a_character_comes_when_it_is_complete(tiny: LoadedModel) -> None:
    tokens = tiny.tokenizer.encode(TEXT, add_special_tokens=False)
    assert len(tokens) > len(TEXT)
    got = pieces(tiny.tokenizer, tokens)
    assert "".join(got) == TEXT
    assert not any("\ufffd" in piece for piece in got)


def test_an_unfinished_character_comes_at_the_end(tiny: LoadedModel) -> None:
    tokens = tiny.tokenizer.encode("a🦜", add_special_tokens=False)[:-1]
    got = pieces(tiny.tokenizer, tokens)
    assert got[:-1] == ["a", "", "", ""]
    assert got[-1] == "\ufffd"


@given(st.lists(st.integers(0, 257), max_size=40))
@settings(deadline=None)
def test_any_bytes_give_what_decoding_all_gives(tokens: list[int]) -> None:
    tokenizer = _byte_tokenizer()
    expected = tokenizer.decode(tokens, skip_special_tokens=True)
    assert "".join(pieces(tokenizer, tokens)) == expected


_tokenizers: dict[str, Any] = {}


@pytest.fixture(scope="module", autouse=True)
def _share_tokenizer(tiny: LoadedModel) -> None:
    _tokenizers["bytes"] = tiny.tokenizer


def _byte_tokenizer() -> Any:
    return _tokenizers["bytes"]


@pytest.mark.model
def test_the_real_tokenizer_gives_what_decoding_all_gives(model_path: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)

    @given(
        st.one_of(
            st.lists(st.integers(0, len(tokenizer) - 1), max_size=30),
            st.text(max_size=40).map(lambda text: tokenizer.encode(text)),
        )
    )
    @settings(deadline=None, max_examples=300)
    def check(tokens: list[int]) -> None:
        expected = tokenizer.decode(tokens, skip_special_tokens=True)
        assert "".join(pieces(tokenizer, tokens)) == expected

    check()


@pytest.mark.parametrize(
    ("stop", "given_pieces", "expected"),
    [
        (["END"], ["one E", "N", "D two"], ["one ", "", ""]),
        (["END"], ["one E", "N", "E two"], ["one ", "", "ENE two"]),
        (["aab"], ["a", "a", "a", "b"], ["", "", "a", ""]),
        (["xyz", "yq"], ["x", "y", "q"], ["", "", "x"]),
        (["bc", "ab"], ["abc"], [""]),
        ([], ["a", "b"], ["a", "b"]),
    ],
)
def test_stop_strings(stop: list[str], given_pieces: list[str], expected: list[str]) -> None:
    stream = StopStrings(stop)
    assert [stream.push(piece) for piece in given_pieces] == expected


@pytest.mark.parametrize(
    ("given_pieces", "expected", "hit"),
    [
        (["a<t", "ool> END", "x"], ["a", "<tool> END", "x"], False),
        (["a<t", "o END x"], ["a", "<to "], True),
        (["END <tool>"], [""], True),
        (["<tool><tool> END"], ["<tool><tool> END"], False),
    ],
)
def test_stop_strings_count_until_a_text_comes(
    given_pieces: list[str], expected: list[str], hit: bool
) -> None:
    stream = StopStrings(["END"], until="<tool>")
    assert [stream.push(piece) for piece in given_pieces] == expected
    assert stream.hit == hit


@given(
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    st.lists(st.text("abc", max_size=3), max_size=12),
)
def test_stop_strings_cut_the_whole_text_at_the_first(stop: list[str], parts: list[str]) -> None:
    stream, got = StopStrings(stop), ""
    for part in parts:
        got += stream.push(part)
        if stream.hit:
            break
    got += stream.finish()
    text = "".join(parts)
    cuts = [text.find(s) for s in stop if s in text]
    assert stream.hit == bool(cuts)
    if cuts:
        # What is cut is what was known when the first stop string was complete.
        end = min(text.find(s) + len(s) for s in stop if s in text)
        assert got == text[: next(len(got) for s in stop if text.startswith(s, len(got)))]
        assert len(got) <= end
    else:
        assert got == text


def test_a_stop_string_in_an_unfinished_end_is_cut(tiny: LoadedModel) -> None:
    stream = TextStream(tiny.tokenizer, ["\ufffd"])
    tokens = tiny.tokenizer.encode("a🦜", add_special_tokens=False)[:-1]
    text = "".join(stream.push(token) for token in tokens) + stream.finish()
    assert (text, stream.stopped) == ("a", True)
