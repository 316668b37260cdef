"""A session's counts, kept as its calls go on: telling them costs the same however many there are."""

from collections import Counter
from dataclasses import dataclass, field

from parrot_backend.serving.call import Call
from parrot_backend.wire.views import CallState


@dataclass(slots=True)
class Tally:
    """Calls by state and by kind, and the tokens of those that have ended."""

    states: Counter[CallState] = field(default_factory=Counter)
    planned: int = 0
    unplanned: int = 0
    claimed: int = 0
    dependent: int = 0
    ahead: int = 0
    done_unclaimed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    @property
    def calls(self) -> int:
        """All of them."""
        return self.planned + self.unplanned

    def add(self, call: Call) -> None:
        """Count a call that is new."""
        self.states[call.state] += 1
        self.planned += call.planned
        self.unplanned += not call.planned

    def move(self, call: Call, before: CallState) -> None:
        """Its state is another."""
        self.states[before] -= 1
        self.states[call.state] += 1
        if call.ended:
            self.done_unclaimed += call.state == "done" and call.planned and not call.claimed
            self.prompt_tokens += call.prompt_tokens
            self.cached_tokens += call.cached_tokens
            self.completion_tokens += call.completion_tokens

    def claim(self, call: Call) -> None:
        """A request was equal to it."""
        self.claimed += 1
        self.dependent += call.dependent
        self.ahead += call.ahead
        self.done_unclaimed -= call.state == "done"
