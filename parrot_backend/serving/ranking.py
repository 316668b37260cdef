"""Who goes first: the order of calls, as one number for the engine.

Latency-critical calls go first. Members of a task group come next where a latency output needs them:
only the last of them matters, so one that somebody waits for alone may pass. What is only wanted for
throughput fills the gaps. Within each of the three the older application goes first, in it the call
with the longer way to its output, and of calls that are equally far the older task group, so that the
members of a group are neighbours and their batch is not interleaved with another's.
"""

from dataclasses import dataclass

from parrot_backend.program.analysis import Deduction
from parrot_backend.serving.call import Call
from parrot_backend.wire.protocol import CallScope
from parrot_backend.wire.views import GroupView

_BITS_APPLICATION, _BITS_PATH, _BITS_GROUP = 32, 14, 14  # with the class on top, below 2**62


def priority(*, critical: bool, batched: bool, application: int, path: int, group: int) -> int:
    """Higher goes first; fits a signed 64-bit integer.

    Args:
        critical: whether a latency output needs the call.
        batched: whether it is one of several siblings.
        application: number of its application, in order of arrival.
        path: calls from it to the output, its own included.
        group: number of its task group in the application, in order of arrival.
    """
    order = (1 if batched else 2) if critical else 0
    order = order << _BITS_APPLICATION | _older_first(application, _BITS_APPLICATION)
    order = order << _BITS_PATH | min(path, (1 << _BITS_PATH) - 1)
    return order << _BITS_GROUP | _older_first(group, _BITS_GROUP)


def _older_first(number: int, bits: int) -> int:
    return max(0, (1 << bits) - 1 - number)


@dataclass(slots=True)
class _TaskGroup:
    number: int
    size: int | None


class Ranking:
    """Ranks the calls of one application: a session, or a call or task group outside of any."""

    def __init__(self, application: int) -> None:
        self._application = application
        self._groups: dict[str, _TaskGroup] = {}

    def rank_planned(self, call: Call, deduction: Deduction) -> None:
        """Place a planned call by what its program says; also again, when more of it is known."""
        call.objective, call.path = deduction.objective, deduction.path
        self._rank(call, deduction.critical, deduction.group, deduction.group_size)

    def rank(self, call: Call, scope: CallScope) -> None:
        """Place a call by what its request says."""
        call.objective = scope.objective or "latency"
        self._rank(call, call.objective != "throughput", scope.group, scope.group_size)

    def _rank(self, call: Call, critical: bool, group: str | None, size: int | None) -> None:
        call.group = group
        number, batched = self._join(group, size) if group is not None else (0, False)
        call.priority = priority(
            critical=critical,
            batched=batched,
            application=self._application,
            path=call.path,
            group=number,
        )

    def _join(self, name: str, size: int | None) -> tuple[int, bool]:
        """The group's number, and whether a call that joins it is known to have siblings."""
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
