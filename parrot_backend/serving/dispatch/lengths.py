"""`Lengths`: how long answers are, learned for each call site, and prompts before they are encoded."""

from collections import OrderedDict

from parrot_backend.program.analysis import CHARACTERS_PER_TOKEN, EXPECTED_TOKENS
from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest

_SITES = 10_000
_WEIGHT = 0.25  # of the last answer: about the last four count


class Lengths:
    """Exponential means of the tokens of answers, by call site; the longest unused sites are forgotten.

    Of a site without an answer yet, the mean of all sites is expected.
    """

    def __init__(self) -> None:
        self._means: OrderedDict[str, float] = OrderedDict()
        self._mean = EXPECTED_TOKENS

    def __len__(self) -> int:
        return len(self._means)

    def expected(self, site: str, max_tokens: int | None = None) -> float:
        """Tokens of the next answer at this site."""
        mean = self._means.get(site, self._mean)
        return mean if max_tokens is None else min(mean, max_tokens)

    def learn(self, site: str, tokens: int) -> None:
        """An answer at this site has so many."""
        self._mean += _WEIGHT * (tokens - self._mean)
        if not site:
            return
        mean = self._means.pop(site, float(tokens))
        self._means[site] = mean + _WEIGHT * (tokens - mean)
        if len(self._means) > _SITES:
            self._means.popitem(last=False)


def estimated_prompt(request: LLMRequest) -> int:
    """About how many tokens the prompt has."""
    if not isinstance(request, PromptRequest):
        return sum(len(m.content) for m in request.messages) // CHARACTERS_PER_TOKEN
    if isinstance(request.prompt, str):
        return len(request.prompt) // CHARACTERS_PER_TOKEN
    return len(request.prompt)
