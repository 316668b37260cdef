"""Which slots several sequences of a step begin with: each shared part once, at any depth."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from parrot_backend.engines.torch_engine.memory.slots import Run, split_runs


class Shared(NamedTuple):
    """Slots that lie on the way of all `members`, which is one where they are its own."""

    runs: list[Run]
    members: list[int]


def cut_shared(paths: Sequence[list[Run]]) -> list[Shared]:
    """Cut `paths` where they part, level by level.

        0  [instruction][document A][question 1]      ->  [instruction] of 0, 1, 2
        1  [instruction][document A][question 2]          [document A] of 0, 1
        2  [instruction][document B]                      [document B] of 2, [question 1] of 0, ..

    Returns:
        Each part once, the upper levels of a path before the lower ones.
    """
    parts: list[Shared] = []
    rest = [list(path) for path in paths]
    pending = [list(range(len(paths)))]
    while pending:
        for members in _starting_alike(pending.pop(), rest):
            length = min(_common_slots(rest[members[0]], rest[other]) for other in members)
            parts.append(Shared(split_runs(rest[members[0]], length)[0], members))
            for member in members:
                rest[member] = split_runs(rest[member], length)[1]
            pending.append(members)
    return parts


def _starting_alike(members: list[int], rest: list[list[Run]]) -> list[list[int]]:
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for member in members:
        if rest[member]:
            groups[rest[member][0].start].append(member)
    return list(groups.values())


def _common_slots(left: list[Run], right: list[Run]) -> int:
    """Slots that both begin with."""
    common = 0
    for ours, theirs in zip(left, right, strict=False):
        if ours.start != theirs.start:
            break
        common += min(ours.length, theirs.length)
        if ours.length != theirs.length:
            break
    return common
