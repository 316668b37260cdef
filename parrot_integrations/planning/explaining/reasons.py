"""Why a call is served as it is, in words: the objective that is deduced of it and where from."""

import re
from collections.abc import Sequence

from parrot_backend.program.analysis import Deduction
from parrot_integrations.planning.explaining.marking import counted, span

_FEEDS = re.compile(r"(.+)\.inputs(?:\.(\d+))?")


def why(deductions: Sequence[Deduction], *, broken: bool) -> str:
    """The objective of calls that are alike, and what it follows from.

    Args:
        deductions: those of the calls.
        broken: planning ended before the end, so that more may come behind.
    """
    of_one = deductions[0]
    if of_one.group is not None:
        return f"{of_one.objective}: {_siblings(deductions)}"
    if of_one.objective == "throughput":
        return "throughput: as wanted of the results, none of which is waited for alone"
    return f"{of_one.objective}: {_way(deductions, broken=broken)}"


def _siblings(deductions: Sequence[Deduction]) -> str:
    groups = list(dict.fromkeys(d.group or "" for d in deductions))
    size = deductions[0].group_size or len(deductions)
    each = f" in each of {len(groups)} groups" if len(groups) > 1 else ""
    return f"one of {size} siblings{each} that {_use(groups)}; only the last to end matters"


def _use(groups: Sequence[str]) -> str:
    found = [_FEEDS.fullmatch(group) for group in groups]
    fed = span([match[1] for match in found if match])
    if not fed:
        return "are wanted together" if groups[0].startswith("outputs-") else "belong together"
    stages = next(match[2] for match in found if match)
    return f"feed {fed}" if stages is None else f"feed {fed}, {stages} stages on"


def _way(deductions: Sequence[Deduction], *, broken: bool) -> str:
    longest, shortest = (pick(d.path for d in deductions) for pick in (max, min))
    if longest == 1:
        told = "nothing planned reads it" if broken else "the last call"
        return f"{told}, and its answer is waited for"
    way = counted(longest, "call")
    if shortest < longest:
        way = f"{longest} … {shortest} calls"
    return f"{way} to the end, which is waited for"
