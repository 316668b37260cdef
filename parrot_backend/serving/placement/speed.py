"""`Speed`: how fast an engine is, learned from when its tokens came.

Two numbers say it: seconds that a token of a prompt takes, and those between two tokens of an answer,
which grow with the number of calls that run:

    seconds a token
      |            _ -'      first + each x running
      |      _ - '
      |_ - '
      '----------------- running
"""

from dataclasses import dataclass, field

from parrot_backend.program.analysis import PREFILLED_PER_GENERATED

_DECAY = 0.97  # of what was seen, with each thing that is: about the last 30 count
_PROMPT, _ANSWER = 64.0, 4.0  # tokens; of fewer, most of the time is not theirs
_ASSUMED_TOKENS = 500.0
_ASSUMED_SLOPE = 1 / 32  # of what a token takes alone, for each that runs beside it
_LEAST_SECONDS = 1e-6


@dataclass(slots=True)
class _Line:
    """Exponentially weighted least squares."""

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def add(self, x: float, y: float, decay: float = _DECAY) -> None:
        self.weight = self.weight * decay + 1
        self.x, self.y = self.x * decay + x, self.y * decay + y
        self.xx, self.xy = self.xx * decay + x * x, self.xy * decay + x * y

    def fitted(self) -> tuple[float, float]:
        """Where it begins, and its slope; neither is below 0."""
        spread = self.weight * self.xx - self.x * self.x
        slope = (self.weight * self.xy - self.x * self.y) / spread if spread > 1e-9 else 0.0
        slope = min(max(0.0, slope), self.y / max(self.x, 1.0))
        return max(_LEAST_SECONDS, (self.y - slope * self.x) / self.weight), slope


@dataclass(slots=True)
class Speed:
    """See the module; `tokens_per_second` of prompts are assumed until more is known."""

    tokens_per_second: float
    slots: int
    known: bool = False
    first: float = 0.0
    each: float = 0.0
    _tokens: float = _ASSUMED_TOKENS
    _seconds: float = 0.0
    _line: _Line = field(default_factory=_Line)

    def __post_init__(self) -> None:
        speed = max(self.tokens_per_second, _LEAST_SECONDS)
        self._seconds = self._tokens / speed
        alone = PREFILLED_PER_GENERATED / speed
        for running in (1.0, float(max(2, self.slots))):
            self._line.add(running, alone * (1 + _ASSUMED_SLOPE * running), decay=1)
        self.first, self.each = self._line.fitted()

    def prefill(self, tokens: float) -> float:
        """Seconds that so many tokens of prompts take."""
        return tokens * self._seconds / self._tokens

    def token(self, running: float) -> float:
        """Seconds between two tokens of an answer while so many run."""
        return self.first + self.each * running

    def prefilled(self, tokens: float, seconds: float) -> None:
        """So many tokens of a prompt took so long, with nothing before them."""
        if tokens >= _PROMPT and seconds > 0:
            self.known = True
            self._tokens = self._tokens * _DECAY + tokens
            self._seconds = self._seconds * _DECAY + seconds

    def decoded(self, tokens: float, seconds: float, running: float) -> None:
        """So many tokens of an answer took so long behind its first, while so many ran."""
        if tokens >= _ANSWER and seconds > 0:
            self._line.add(running, seconds / tokens)
            self.first, self.each = self._line.fitted()
