"""Packing, which the framework does word by word before its first call: done once, and timed.

`PromptHelper` splits texts so that each prompt fills the context, and asks the tokenizer for the
length of every word again and again. One that remembers gives the same chunks: what the shadow has
packed is there when the run packs it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from threading import Lock
from time import perf_counter
from typing import Any

from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.node_parser import TokenTextSplitter

_KNOWN_WORDS = 2**17
_LONGEST_WORD = 128
_MOST_CHARACTERS = 2**24
_ENTRY, _CHUNK = 512, 64  # what one costs beside its characters

Tokenizer = Callable[[str], list[Any]]


class RememberingTokenizer:
    """A tokenizer that knows the words that it was asked for; nobody may change its lists."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known = lru_cache(_KNOWN_WORDS)(tokenizer)

    def __call__(self, text: str) -> list[Any]:
        """The tokens of a text."""
        return self._known(text) if len(text) <= _LONGEST_WORD else self._tokenizer(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._tokenizer,)

    def __deepcopy__(self, memo: dict[int, Any]) -> "RememberingTokenizer":
        return self


class ChunkMemory:
    """The chunks that texts were split into; of so many characters, the last used ones."""

    def __init__(self) -> None:
        self._chunks: OrderedDict[tuple[Any, ...], list[str]] = OrderedDict()
        self._characters = 0
        self._lock = Lock()

    def of(self, key: tuple[Any, ...]) -> list[str] | None:
        """The chunks of what the key tells; None where they are not known."""
        with self._lock:
            if (chunks := self._chunks.get(key)) is not None:
                self._chunks.move_to_end(key)
            return chunks

    def keep(self, key: tuple[Any, ...], chunks: list[str]) -> None:
        """Remember them."""
        with self._lock:
            if key not in self._chunks:
                self._chunks[key] = chunks
                self._characters += _characters(key, chunks)
            while self._characters > _MOST_CHARACTERS:
                self._characters -= _characters(*self._chunks.popitem(last=False))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def _characters(key: tuple[Any, ...], chunks: list[str]) -> int:
    return len(key[0]) + sum(map(len, chunks)) + _ENTRY + _CHUNK * len(chunks)


class RememberingHelper(PromptHelper):
    """Packs as its framework does, each text once. Made by `remembering`."""

    def repack(self, *args: Any, **kwargs: Any) -> list[str]:
        """See `PromptHelper`."""
        with _timed():
            return super().repack(*args, **kwargs)

    def truncate(self, *args: Any, **kwargs: Any) -> list[str]:
        """See `PromptHelper`."""
        with _timed():
            return super().truncate(*args, **kwargs)

    def get_text_splitter_given_prompt(self, *args: Any, **kwargs: Any) -> TokenTextSplitter:
        """See `PromptHelper`."""
        splitter = super().get_text_splitter_given_prompt(*args, **kwargs)
        object.__setattr__(splitter, "__class__", _RememberingSplitter)
        vars(splitter)["memory"] = vars(self)["memory"]
        return splitter


class _Split(list[str]):
    """The pieces of a text, with what they are remembered by, or the chunks that they came to."""

    def __init__(self, pieces: list[str], key: tuple[Any, ...], chunks: list[str] | None) -> None:
        super().__init__(pieces)
        self.key, self.chunks = key, chunks


class _RememberingSplitter(TokenTextSplitter):
    """Splits and merges once for the same text and lengths; what it tells handlers stays the same."""

    def _split(self, text: str, chunk_size: int) -> list[str]:
        key = text, chunk_size, self.chunk_overlap, self.separator
        chunks = vars(self)["memory"].of(key)
        pieces = super()._split(text, chunk_size) if chunks is None else []
        return _Split(pieces, key, chunks)

    def _merge(self, splits: list[str], chunk_size: int) -> list[str]:
        if not isinstance(splits, _Split):
            return super()._merge(splits, chunk_size)
        if splits.chunks is None:
            splits.chunks = super()._merge(list(splits), chunk_size)
            vars(self)["memory"].keep(splits.key, splits.chunks)
        return [*splits.chunks]


# Spans are named after classes.
RememberingHelper.__name__ = PromptHelper.__name__
_RememberingSplitter.__name__ = TokenTextSplitter.__name__


_seconds: ContextVar[list[float] | None] = ContextVar("parrot_packing_seconds", default=None)


@contextmanager
def packing() -> Iterator[list[float]]:
    """The seconds that each packing inside takes."""
    seconds: list[float] = []
    token = _seconds.set(seconds)
    try:
        yield seconds
    finally:
        _seconds.reset(token)


@contextmanager
def _timed() -> Iterator[None]:
    start, seconds = perf_counter(), _seconds.get()
    try:
        yield
    finally:
        if seconds is not None:
            seconds.append(perf_counter() - start)
