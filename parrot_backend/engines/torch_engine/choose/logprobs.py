"""The probabilities that a token was chosen from."""

from collections.abc import Callable

from torch import Tensor

from parrot_backend.engines.base import Candidate, TokenLogprobs

# JSON has no infinity; vLLM's number for a token that can't be.
_IMPOSSIBLE = -9999.0


class LogprobsTeller:
    """Tells one sequence's logprobs: the model's own, before temperature, penalties and masks.

    Args:
        count: alternatives that are told with each token.
        content: the bytes of a token.
    """

    def __init__(self, count: int, content: Callable[[int], bytes]) -> None:
        self._count = count
        self._content = content

    def tell(self, logits: Tensor, token: int) -> TokenLogprobs:
        """Those of `token`, which was chosen from `logits` `[vocabulary]`."""
        logprobs = logits.float().log_softmax(-1)
        values, tokens = logprobs.topk(min(self._count, len(logprobs)))
        top = zip(tokens.tolist(), values.tolist(), strict=True)
        return TokenLogprobs(
            self._candidate(token, float(logprobs[token])),
            tuple(self._candidate(other, value) for other, value in top),
        )

    def _candidate(self, token: int, logprob: float) -> Candidate:
        return Candidate(token, self._content(token), max(logprob, _IMPOSSIBLE))
