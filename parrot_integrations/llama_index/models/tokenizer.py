"""The tokenizer of the model that is served."""

from typing import Any

from parrot_integrations.client import ParrotClient
from parrot_integrations.client.errors import ContextLengthError

Tokens = tuple[int, ...]

_MOST_KNOWN = 2**18
_LONGEST_KNOWN = 128
# So many of the longest have as many characters as one request may have.
_AT_ONCE = 2**17 // _LONGEST_KNOWN


class ServedTokenizer:
    """From a text to the ids of its tokens, as the backend's model has them, without special ones.

    LlamaIndex cuts a long text by asking for each of its words, twice. So short texts are remembered,
    and the first word of the long text that was asked for last has all of its words asked for at once.
    Callable from any thread.

    Args:
        client: of the backend.
        model: name of the model; None for the one that is served.
    """

    def __init__(self, client: ParrotClient, model: str | None) -> None:
        self._client = client
        self._model = {} if model is None else {"model": model}
        self._known: dict[str, Tokens] = {}
        self._special: Tokens | None = None
        self._last = ""

    def __call__(self, text: str) -> list[int]:
        """The ids of a text's tokens.

        Raises:
            ParrotError: the backend can't be reached, or does not serve the model.
        """
        if len(text) > _LONGEST_KNOWN:
            self._last = text
            return self._long(text)
        tokens = self._known.get(text)
        return list(self._learnt(text) if tokens is None else tokens)

    encode = __call__

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._client, self._model.get("model"))

    def __deepcopy__(self, memo: dict[int, Any]) -> "ServedTokenizer":
        return self

    def _learnt(self, text: str) -> Tokens:
        """The tokens of a short text, asked for with the words that are likely to come behind it."""
        if len(self._known) > _MOST_KNOWN:
            self._known = {}
        texts, last = [text], self._last
        if text in last:
            self._last = ""
            first, *others = last.split(" ")
            words = dict.fromkeys([first, *(f" {word}" for word in others)])
            texts += [w for w in words if len(w) <= _LONGEST_KNOWN and self._is_new(w, text)]
        learnt: dict[str, Tokens] = {}
        for start in range(0, len(texts), _AT_ONCE):
            batch = texts[start : start + _AT_ONCE]
            learnt |= zip(batch, self._each(batch), strict=True)
        self._known |= learnt
        return learnt[text]

    def _is_new(self, word: str, asked: str) -> bool:
        return word != asked and word not in self._known

    def _each(self, texts: list[str]) -> list[Tokens]:
        body = {"prompt": texts, **self._model}
        return [self._plain(tuple(tokens)) for tokens in self._client.tokenize_each(body)]

    def _long(self, text: str) -> list[int]:
        try:
            tokens = self._client.tokenize({"prompt": text, **self._model})
        except ContextLengthError:
            # What fits no context can be packed into several all the same.
            middle = len(text) // 2
            cut = max(text.rfind(" ", 1, middle + 1), 0) or middle
            return self._long(text[:cut]) + self._long(text[cut:])
        return list(self._plain(tuple(tokens)))

    def _plain(self, tokens: Tokens) -> Tokens:
        """Without those that the model expects before each prompt."""
        if self._special is None:
            self._special = tuple(self._client.tokenize({"prompt": "", **self._model}))
        begins = tokens[: len(self._special)] == self._special
        return tokens[len(self._special) :] if begins else tokens
