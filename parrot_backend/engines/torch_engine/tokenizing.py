"""From text to tokens, and what is known of a text's tokens before all of it is tokenized.

A tokenizer can't be stopped, takes seconds for a million characters and a hundred bytes for each. So a
long text is first counted piece by piece, as far as the context goes.
"""

from parrot_backend.engines.torch_engine.tokenizer import Tokenizer
from parrot_backend.wire.errors import ContextLengthError, InvalidRequestError

_PIECE = 2**16
# A text that is cut has other tokens around the cut, and may have some more.
_AT_A_CUT = 64
# Normalizers compose characters: what Unicode composes (NFC) was four at most.
_COMPOSED = 4


def longest_text(tokenizer: Tokenizer, context_length: int) -> int:
    """Characters that so many tokens have at most."""
    longest = max(map(len, tokenizer.backend.get_vocab()))
    plain = tokenizer.backend.normalizer is None
    return context_length * longest * (1 if plain else _COMPOSED)


def encode_text(
    tokenizer: Tokenizer,
    text: str,
    *,
    param: str,
    add_special_tokens: bool,
    most: int | None = None,
) -> list[int]:
    """Tokens of `text`, a request's field `param`.

    Args:
        add_special_tokens: whether it gets the tokens that the model expects around a raw text.
        most: tokens from which on nobody wants any: the text is not tokenized to its end then.

    Raises:
        InvalidRequestError: it can't be tokenized.
        ContextLengthError: it is long, and has more than `most` tokens.
    """
    try:
        if most is not None and len(text) > _PIECE and _surpasses(tokenizer, text, most):
            raise ContextLengthError(
                f"the prompt has more than {most} tokens, which are the model's context, answer "
                "included: shorten the prompt"
            )
        return tokenizer.encode(text, add_special_tokens=add_special_tokens)
    except (TypeError, UnicodeError) as error:
        raise InvalidRequestError(
            f"'{param}' is not valid Unicode text: {error}", param=param
        ) from error


def _surpasses(tokenizer: Tokenizer, text: str, most: int) -> bool:
    """Whether `text` has more than `most` tokens; it may have a few more where it is said not to."""
    count = 0
    for start in range(0, len(text), _PIECE):
        piece = text[start : start + _PIECE]
        count += len(tokenizer.encode(piece, add_special_tokens=False)) - _AT_A_CUT
        if count > most:
            return True
    return False
