"""What a run made of its plan: which calls were ready in time, what that saved, what was shared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from parrot_backend.program.critical_path import critical_path, is_ahead, saved_on, waited
from parrot_backend.program.graph import Graph
from parrot_backend.wire.protocol import SemanticCall
from parrot_backend.wire.views import CallView, GraphView
from parrot_integrations.planning.explaining.marking import length, marked
from parrot_integrations.planning.explaining.overview import Overview
from parrot_integrations.planning.explaining.sharing import Share

# Beyond its text a prompt shares what the chat template puts around it, and a text's part of the
# tokens is only about its part of the characters.
_OWN_TOKENS, _OWN_PART = 64, 1.25


@dataclass(frozen=True)
class Run:
    """The calls of a session that is over, beside the plan that was submitted to it."""

    seen: Overview
    graph: GraphView

    @cached_property
    def path(self) -> list[CallView]:
        """The critical path: calls of which each could begin only when the one before had ended."""
        return chain(self._received)

    @property
    def seconds(self) -> float:
        """How long that took, from the first dispatch on to what the client received last."""
        if not self._received:
            return 0.0
        return waited([min(self._received, key=_queued), self._received[-1]])

    @property
    def saved_seconds(self) -> float:
        """How much longer it would have taken, had each call started when it was asked for."""
        return saved_on(self._received)

    @cached_property
    def _received(self) -> list[CallView]:
        """The calls that the client waited for, in the order in which it did: also what ran at once."""
        graph = Graph()
        graph.add(self.seen.plan.program())
        return critical_path(self.graph.calls, graph)

    @cached_property
    def foreseen(self) -> dict[str, int]:
        """The tokens of each planned call that it was foreseen to share with earlier ones."""
        views = {view.id: view for view in self.graph.calls}
        values = {v.name: v.value for v in self.graph.variables if v.value is not None}
        return {
            call.id: predicted_tokens(call, self.seen.shared.get(call.id), views[call.id], values)
            for call in self.seen.plan.calls
            if call.id in views
        }

    @property
    def warm_tokens(self) -> int:
        """Shared tokens that this run did not bring: earlier runs had left them in the prefix cache.

        What the first call to start found, no other of the run had computed; of the others it is what
        goes well beyond the foreseen.
        """
        started = [view for view in self.graph.calls if _began(view)]
        first = min(started, key=_began, default=None)
        return sum(view.cached_tokens if view is first else self._beyond(view) for view in started)

    def _beyond(self, view: CallView) -> int:
        if view.id not in self.foreseen:
            return 0
        expected = _OWN_PART * self.foreseen[view.id] + _OWN_TOKENS
        return max(0, round(view.cached_tokens - expected))

    @property
    def wasted(self) -> list[CallView]:
        """Planned calls that nobody asked for."""
        return [view for view in self.graph.calls if view.planned and not view.claimed]


def chain(received: Sequence[CallView]) -> list[CallView]:
    """Of calls in the order in which a client waited for them, those that began one behind another.

    A client asks for calls that were planned together one after another, though they ran side by side:
    of those it is the last to end, for that is what the next had to wait for.
    """
    found: list[CallView] = []  # from the end on
    for view in reversed(received):
        if not found or _ended(view) <= _queued(found[-1]):
            found.append(view)
        elif _ended(found[-1]) < _ended(view) <= (_queued(found[-2]) if found[1:] else inf):
            found[-1] = view
    return found[::-1]


def fate(view: CallView) -> str:
    """What became of a call, in a word or two."""
    if view.state != "done":
        return view.state
    if not view.planned:
        return "not foreseen"
    if not view.claimed:
        return "not asked for"
    if view.dependent:
        return "claimed, dependent"
    return "claimed, ahead" if is_ahead(view) else "claimed"


def predicted_tokens(
    call: SemanticCall, share: Share | None, view: CallView, values: Mapping[str, str]
) -> int:
    """Prompt tokens that the plan foresaw to be shared: their part of the prompt's characters."""
    whole = length(marked(call), values)
    if share is None or not whole:
        return 0
    return round(view.prompt_tokens * length(share.prefix, values) / whole)


def tokens(views: Sequence[CallView]) -> tuple[int, int, int]:
    """Of the prompts, of them shared, and of the answers."""
    return (
        sum(view.prompt_tokens for view in views),
        sum(view.cached_tokens for view in views),
        sum(view.completion_tokens for view in views),
    )


def started(view: CallView) -> float | None:
    """When the engine began; the first token, where the engine does not tell."""
    return view.started or view.first_token


def _queued(view: CallView) -> float:
    return view.queued or 0.0


def _ended(view: CallView) -> float:
    return view.finished or 0.0


def _began(view: CallView) -> float:
    return started(view) or 0.0
