"""What planned calls have in common: the longest prefix of each that an earlier one begins with."""

from bisect import bisect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from parrot_backend.wire.protocol import SemanticCall
from parrot_integrations.planning.explaining.marking import ROLE, VARIABLE, length, marked


@dataclass(frozen=True, slots=True)
class Share:
    """`prefix`, marked, is common with the earlier call `call_id`: literal text and variables alike."""

    call_id: str
    prefix: str


def shares(calls: Sequence[SemanticCall]) -> dict[str, Share]:
    """By call id, the longest prefix that an earlier call has too; none for who shares nothing."""
    found: dict[str, Share] = {}
    before: list[tuple[str, str]] = []
    for call in calls:
        own = marked(call)
        place = bisect(before, (own, call.id))
        # Sorted, the texts that have most in common with a text are its neighbours.
        neighbours = before[max(0, place - 1) : place + 1]
        options = [Share(other, common_prefix(own, theirs)) for theirs, other in neighbours]
        best = max(options, key=lambda share: length(share.prefix, {}), default=None)
        if best is not None and length(best.prefix, {}):
            found[call.id] = best
        before.insert(place, (own, call.id))
    return found


def families(calls: Sequence[SemanticCall]) -> list[tuple[list[SemanticCall], str]]:
    """Calls that begin with the same literal text, and the marked prefix that all of them have."""
    alike: defaultdict[str, list[SemanticCall]] = defaultdict(list)
    for call in calls:
        alike[marked(call).partition(VARIABLE)[0]].append(call)
    several = [members for members in alike.values() if len(members) > 1]
    return [(members, reduce(common_prefix, map(marked, members))) for members in several]


def common_prefix(one: str, other: str) -> str:
    """What two marked prompts begin with; a variable is shared whole or not at all."""
    common = one[: _common_length(one, other)]
    for mark in (VARIABLE, ROLE):
        if common.count(mark) % 2:
            common = common[: common.rindex(mark)]
    return common


def _common_length(one: str, other: str) -> int:
    """How many characters both begin with; compared in halves, for system prompts are long."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least
