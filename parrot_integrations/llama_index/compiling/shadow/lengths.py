"""How long answers are likely to be, learned of each backend while runs go on."""

from collections import OrderedDict
from collections.abc import Hashable

_MOST_BACKENDS = 64
_CHARACTERS_OF_A_TOKEN = 4
_UNKNOWN = 100
_WEIGHT = 0.1

_means: OrderedDict[Hashable, float] = OrderedDict()


def expected(backend: Hashable, max_tokens: int | None) -> int:
    """Tokens of the next answer; before the first one half of what it may have, and not many."""
    most = max_tokens or 2 * _UNKNOWN
    return int(min(_means.get(backend, min(most / 2, _UNKNOWN)), most))


def learn(backend: Hashable, answer: str) -> None:
    """An answer was this one."""
    tokens = len(answer) / _CHARACTERS_OF_A_TOKEN
    mean = _means.pop(backend, tokens)
    _means[backend] = mean + _WEIGHT * (tokens - mean)
    if len(_means) > _MOST_BACKENDS:
        _means.popitem(last=False)
