"""Two hundred prompts of 1 to 600 tokens that share what prompts share."""

import random
from collections.abc import Iterable

# The long one is cut at these lengths, each a prefix of the next.
_NESTED = [1, 2, 5, 15, 16, 17, 40, 90, 200, 600]
_UNRELATED, _GROUPS, _SIBLINGS, _REPEATS = 94, 8, 7, 40


def many_prompts(texts: Iterable[list[int]]) -> list[list[int]]:
    """Unrelated ones, siblings behind a common prefix, prefixes of one another, and exact repeats.

    Args:
        texts: tokens of any texts, of which the prompts are made.
    """
    chance = random.Random(5)
    pieces = [text[at : at + 12] for text in texts for at in range(0, len(text), 12)]

    def some(length: int) -> list[int]:
        tokens: list[int] = []
        while len(tokens) < length:
            tokens += chance.choice(pieces)
        return tokens[:length]

    prompts = [some(1 + int(24 * chance.random() ** 2)) for _ in range(_UNRELATED)]
    for _ in range(_GROUPS):
        prefix = some(chance.randrange(16, 40))
        prompts += [prefix + some(chance.randrange(1, 12)) for _ in range(_SIBLINGS)]
    longest = some(_NESTED[-1])
    prompts += [longest[:length] for length in _NESTED]
    prompts += chance.sample(prompts, _REPEATS)
    chance.shuffle(prompts)
    return prompts
