"""`Rank`: what the order of calls depends on."""

from dataclasses import dataclass

TIERS = 3

_BITS_APPLICATION, _BITS_PATH, _BITS_GROUP = 32, 14, 14  # with the tier on top, below 2**62

AGED_PRIORITY = TIERS << _BITS_APPLICATION + _BITS_PATH + _BITS_GROUP
"""The priority of what has waited for so long that it goes before all others."""


@dataclass(frozen=True, slots=True)
class Rank:
    """Where a call stands in the order of calls.

    A latency output needs it where it is `critical`; it is `batched` where it is one of several
    siblings, the task group number `group` of its application. `path` counts the calls from it to the
    output, its own included, and `work` is what they take, in tokens of answers. `site` is the same
    for calls that are made alike, and so are likely to have answers of one length. A `single` call
    belongs to no application; `application` is the one that begins next, for it is as old.
    """

    critical: bool = True
    batched: bool = False
    application: int = 0
    group: int = 0
    path: int = 1
    work: float = 0.0
    site: str = ""
    single: bool = False

    @property
    def tier(self) -> int:
        """Below `TIERS`, and 0 goes first.

        Latency-critical calls do. Members of a task group come next where a latency output needs
        them: only the last of them matters, so one that somebody waits for alone may pass. What is
        only wanted for throughput fills the gaps.
        """
        return (1 if self.batched else 0) if self.critical else 2

    @property
    def priority(self) -> int:
        """The order as one number for an engine: the higher goes first, and it fits 63 bits.

        Within a tier the older application goes first, in it the call with the longer way to its
        output, and of calls that are equally far the older task group, so that the members of a
        group are neighbours and their batch is not interleaved with another's.
        """
        order = TIERS - 1 - self.tier
        order = order << _BITS_APPLICATION | _older_first(self.application, _BITS_APPLICATION)
        order = order << _BITS_PATH | min(self.path, (1 << _BITS_PATH) - 1)
        return order << _BITS_GROUP | _older_first(self.group, _BITS_GROUP)


def _older_first(number: int, bits: int) -> int:
    return max(0, (1 << bits) - 1 - number)
