"""Drafts: tokens that may come next, so that several can be computed and chosen in one step.

What a model writes often stands already in its prompt or its answer so far. A draft copies what
followed there (prompt lookup: LLMA, arXiv 2304.04487); the model computes it behind the last token, as
one chunk, and of its tokens those stay that are chosen anyway (arXiv 2211.17192). So a draft changes
how many steps an answer takes, and never the answer:

    text so far    ... the grey parrot eats nuts ... What does the grey parrot
    computed                                                            parrot [eats nuts and fruit]
    chosen after each                                                   eats    nuts  .
"""

from collections.abc import Sequence
from itertools import cycle, islice
from typing import NamedTuple

# Reading the weights takes as long as computing so many rows: measured on two AVX2 cores.
_ROWS_OF_A_STEP = 12
_LONGEST_MATCH = 16
# Earlier places that are compared with the end of the text; the text of a loop has very many.
_PLACES = 16
_LONGEST_PAUSE = 64


class Match(NamedTuple):
    """`length` tokens agree with the end of the text, and `following` come after them."""

    length: int
    following: list[int]


class Lookup:
    """Finds where the end of a text has stood before; an index that grows with `tokens`.

    Places are chained by the pair of tokens before them, as in the Deflate coder (RFC 1951, section
    4), so that a token is indexed, and a pair that is new looked up, in a microsecond.

    Args:
        tokens: what is searched; may be appended to.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._last: dict[tuple[int, int], int] = {}
        self._earlier: list[int] = []

    def find(self, text: Sequence[int], most: int) -> Match:
        """The place that agrees with the end of `text` the longest, the latest of several.

        Agreement counts up to 16 tokens, is 2 at least, and is looked for at the 16 latest places.
        """
        self._catch_up()
        best, where = 0, 0
        place = self._last.get((text[-2], text[-1]), 0) if len(text) > 1 else 0
        for _ in range(_PLACES):
            if not place or best == _LONGEST_MATCH:
                break
            length = self._agreement(place, text)
            if length > best:
                best, where = length, place
            place = self._earlier[place]
        return Match(best, list(self._tokens[where : where + most]) if best else [])

    def _catch_up(self) -> None:
        """A place is a token with two before it; 0 stands for none."""
        tokens, earlier, last = self._tokens, self._earlier, self._last
        for place in range(len(earlier), len(tokens)):
            if place < 2:
                earlier.append(0)
                continue
            pair = (tokens[place - 2], tokens[place - 1])
            earlier.append(last.get(pair, 0))
            last[pair] = place

    def _agreement(self, place: int, text: Sequence[int]) -> int:
        length, most = 2, min(place, len(text), _LONGEST_MATCH)
        while length < most and self._tokens[place - 1 - length] == text[-1 - length]:
            length += 1
        return length


class Drafter:
    """Drafts for one sequence, as long as they are accepted often enough to pay.

    With each draft after which they don't it pauses twice as long, so that it costs next to nothing
    where nothing repeats.

    Args:
        tokens: of the sequence, prompt and answer; the sequence appends to it.
        reference: a text that is likely to be repeated, in whole or in part.
    """

    def __init__(self, tokens: list[int], reference: Sequence[int] = ()) -> None:
        self._tokens = tokens
        self._own = Lookup(tokens)
        # Behind the prompt's end, so that the answer's first tokens have something to agree with.
        self._reference = Lookup([*tokens[-_LONGEST_MATCH:], *reference] if reference else [])
        self._accepted = 0.5
        self._needed = 0.0
        self._pause = 0
        self._next_pause = 1

    def draft(self, most: int, rows: int, known: list[int]) -> list[int]:
        """What may come next, or nothing.

        Args:
            most: tokens that it may have.
            rows: tokens that the step computes anyway. The more they are, the less a step is saved by
                a draft, and the likelier it must be.
            known: what came after exactly this text another time; it goes before what is looked up.
        """
        self._needed = rows / (rows + _ROWS_OF_A_STEP)
        if self._pause and self._accepted < self._needed:
            self._pause -= 1
            return []
        return known[:most] or self._look_up(most)

    def learn(self, drafted: int, accepted: int) -> None:
        """Note how many of the tokens drafted were accepted; the last draft counts half."""
        self._accepted = (self._accepted + accepted / drafted) / 2
        pays = self._accepted >= self._needed
        self._next_pause = 1 if pays else min(2 * self._next_pause, _LONGEST_PAUSE)
        self._pause = self._next_pause

    def _look_up(self, most: int) -> list[int]:
        """Twice as many tokens as agree: the longer a copy goes on, the likelier it is to go on."""
        reference = self._reference.find(self._tokens, most)
        own = self._own.find(self._tokens, most)
        if reference.length >= own.length:
            return reference.following[: 2 * reference.length]
        # A text that repeats itself to its end goes round.
        return list(islice(cycle(own.following), min(most, 2 * own.length)))
