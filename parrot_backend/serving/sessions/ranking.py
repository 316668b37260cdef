"""Ranking: says of each call of an application where it stands, by its program or its request."""

from dataclasses import dataclass

from parrot_backend.program.analysis import Deduction
from parrot_backend.serving.call import Call
from parrot_backend.serving.rank import Rank
from parrot_backend.wire.protocol import CallScope
from parrot_backend.wire.text_protocol import LLMRequest, PromptRequest
from parrot_backend.wire.views import GroupView


@dataclass(slots=True)
class _TaskGroup:
    number: int
    size: int | None


class Ranking:
    """Ranks the calls of one application: a session, or a task group outside of any.

    Args:
        application: its number.
        single: it is one call outside of any; then the number is that of what begins next.
    """

    def __init__(self, application: int, *, single: bool = False) -> None:
        self._application = application
        self._single = single
        self._groups: dict[str, _TaskGroup] = {}

    def rank_planned(self, call: Call, deduction: Deduction) -> None:
        """Place a planned call by what its program says; also again, when more of it is known."""
        call.objective, call.group = deduction.objective, deduction.group
        number, batched = self._join(deduction.group, deduction.group_size)
        call.group_size = deduction.group_size
        call.rank = Rank(
            critical=deduction.critical,
            batched=batched,
            application=self._application,
            group=number,
            path=deduction.path,
            work=deduction.work,
            site=deduction.site,
        )

    def rank(self, call: Call, scope: CallScope) -> None:
        """Place a call by what its request says."""
        call.objective, call.group = scope.objective or "latency", scope.group
        number, batched = self._join(scope.group, scope.group_size)
        call.group_size = scope.group_size
        call.rank = Rank(
            critical=call.objective != "throughput",
            batched=batched,
            application=self._application,
            group=number,
            site=_site_of(call.request, scope.site),
            single=self._single,
        )

    def _join(self, name: str | None, size: int | None) -> tuple[int, bool]:
        """The group's number, and whether a call that joins it is known to have siblings."""
        if name is None:
            return 0, False
        known = name in self._groups
        group = self._groups.setdefault(name, _TaskGroup(len(self._groups), size))
        group.size = size if size is not None else group.size
        return group.number, known or (size or 1) > 1

    def groups(self, calls: list[Call]) -> list[GroupView]:
        """The task groups among `calls`, those of one call left out."""
        members: dict[str, list[str]] = {}
        for call in calls:
            if call.group is not None:
                members.setdefault(call.group, []).append(call.id)
        views = [
            GroupView(name=name, size=self._groups[name].size, calls=ids)
            for name, ids in members.items()
        ]
        return [view for view in views if (view.size or len(view.calls)) > 1]


def _site_of(request: LLMRequest | None, named: str | None) -> str:
    """The same for requests with the same parameters that come from one place.

    That is named, or else it is told by the instruction in the system message.
    """
    if request is None:
        return ""
    system = named or ""
    if (
        not named
        and not isinstance(request, PromptRequest)
        and request.messages[0].role == "system"
    ):
        system = request.messages[0].content
    form = request.response_format or request.structured_outputs
    parameters = (request.max_tokens, request.temperature, *(request.stop or ()), form is None)
    return f"{hash((system, parameters)):x}"
