"""How weights are rounded, and what that costs."""

import logging
from dataclasses import dataclass
from typing import Literal

logger = logging.getLogger(__name__)

Quantization = Literal["int8"]

_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Quality:
    """Perplexities of a text of `tokens`."""

    float32: float
    int8: float
    tokens: int

    @property
    def loss(self) -> float:
        """By how much int8 is worse, as a share."""
        return self.int8 / self.float32 - 1

    def tell(self) -> None:
        """To the log; more than a little is a warning."""
        logger.log(logging.INFO if self.loss <= _TOLERANCE else logging.WARNING, "%s", self)

    def __str__(self) -> str:
        return (
            f"perplexity {self.int8:.2f} in int8, {self.float32:.2f} in float32 ({self.loss:+.1%}), "
            f"on {self.tokens} tokens of text"
        )
