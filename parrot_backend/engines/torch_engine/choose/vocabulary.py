"""The model's tokens as bytes, and as what grammars are matched against."""

import threading
from collections.abc import Iterable
from typing import Any

from llguidance import LLTokenizer

from parrot_backend.engines.torch_engine.tokenizer import Tokenizer
from parrot_backend.wire.errors import InvalidRequestError


class Vocabulary:
    """A tokenizer's tokens; what is costly about them is made on first use, from any thread.

    Args:
        tokenizer: the model's.
        size: tokens that the model has logits for.
        end_tokens: the tokens that end a generation.
    """

    def __init__(self, tokenizer: Tokenizer, size: int, end_tokens: Iterable[int]) -> None:
        self.size = size
        self._tokenizer = tokenizer
        self._end_tokens = sorted(end_tokens)
        self._tokens: LLTokenizer | None = None
        self._making = threading.Lock()

    def prepare(self) -> LLTokenizer:
        """All tokens as a trie. The first time takes about half a second.

        Raises:
            InvalidRequestError: there is no telling the bytes of this tokenizer's tokens.
        """
        with self._making:
            if self._tokens is None:
                self._tokens = self._make()
            return self._tokens

    def content(self, token: int) -> bytes:
        """The token's bytes in the text, often part of a character only."""
        return self.prepare().decode_bytes([token])

    def _make(self) -> LLTokenizer:
        ends: Any = self._end_tokens
        try:
            return LLTokenizer(self._tokenizer.backend.to_str(), n_vocab=self.size, eos_token=ends)
        except Exception as error:
            raise InvalidRequestError(
                "logprobs and structured outputs are not supported with this model, as its "
                f"tokenizer's tokens can't be read: {error}"
            ) from error
