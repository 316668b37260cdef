"""`SharedBlocks`: what calls that wait have in common, as a tree that nobody has to draw.

    a: [s1 s2 a3]      counts: s1 3, s2 2, a3 1, b3 1, c2 1       s1 -+- s2 -+- a3
    b: [s1 s2 b3]                                                     |      '- b3
    c: [s1 c2]         a has s1 s2 in common with one other           '- c2

A block stands for all that is before it, so its count is that of the calls that begin so, and counts
never grow on the way down a prompt.
"""

from bisect import bisect_left

from parrot_backend.serving.placement.views import PlacedCall


class SharedBlocks:
    """How many calls begin with each block; O(blocks) for one that comes or goes."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def add(self, call: PlacedCall) -> None:
        """A call waits."""
        for block in call.blocks:
            self._counts[block] = self._counts.get(block, 0) + 1

    def remove(self, call: PlacedCall) -> None:
        """It waits no longer."""
        for block in call.blocks:
            if (left := self._counts[block] - 1) > 0:
                self._counts[block] = left
            else:
                del self._counts[block]

    def shared(self, call: PlacedCall) -> tuple[int, int]:
        """How many blocks of a call that waits another has too, and how many others have them all."""
        counts = self._counts
        if not call.blocks or counts[call.blocks[0]] < 2:
            return 0, 0
        depth = bisect_left(call.blocks, True, key=lambda block: counts[block] < 2)
        return depth, counts[call.blocks[depth - 1]] - 1
