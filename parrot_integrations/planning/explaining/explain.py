"""A plan in words: its calls, what they share, what is deduced of them, and where planning stopped."""

from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap

from parrot_backend.wire.protocol import SemanticCall
from parrot_backend.wire.transforms import Transform
from parrot_integrations.planning.explaining.marking import (
    counted,
    length,
    short,
    span,
    with_markers,
)
from parrot_integrations.planning.explaining.overview import Alike, Overview
from parrot_integrations.planning.explaining.reasons import why
from parrot_integrations.planning.explaining.sharing import families
from parrot_integrations.planning.values import Break

_WIDTH = 100


def explain(seen: Overview) -> str:
    """The plan as text for a terminal; what is alike is one line with its count."""
    lines = [headline(seen)]
    for heading, section in (
        ("Calls", _calls(seen)),
        ("Transforms", map(_transform, seen.transforms())),
        ("Variables", map(_variable, seen.variables())),
        ("Shared prefixes", _shared(seen)),
        ("Graph breaks", _breaks(seen)),
        ("Notes", (f"{where}: {text}" for where, text in seen.plan.notes.items())),
    ):
        if rows := list(section):
            lines += ["", heading, *(f"  {row}" for row in rows)]
    return "\n".join(lines)


def headline(seen: Overview) -> str:
    """How much there is of everything."""
    return (
        f"{counted(len(seen.plan.calls), 'planned call')}, "
        f"{counted(len(seen.plan.variables), 'input variable')}, "
        f"{counted(len(seen.plan.transforms), 'transform')}, "
        f"{counted(len(seen.breaks), 'graph break')}"
    )


def name_of(calls: Alike[SemanticCall]) -> str:
    """`call-1`, or `call-1 … call-200 (200 calls)`."""
    return _named([call.id for call in calls.members], "call")


def reason_of(seen: Overview, calls: Alike[SemanticCall]) -> str:
    """Their objective, and why."""
    deductions = [seen.deduced[call.id] for call in calls.members]
    return why(deductions, broken=bool(seen.breaks))


def sharing_of(seen: Overview, calls: Alike[SemanticCall]) -> str:
    """What they have in common with earlier calls; empty where that is nothing."""
    found = [seen.shared[call.id] for call in calls.members if call.id in seen.shared]
    lengths = [length(share.prefix, {}) for share in found]
    if not found:
        return ""
    if len(calls.members) == 1:
        return f"shares {counted(lengths[0], 'character')} with {found[0].call_id}"
    most = counted(max(lengths), "character")
    told = most if min(lengths) == max(lengths) else f"{min(lengths)} to {most}"
    return f"{len(found)} of them share {told} with an earlier call"


def limits_of(seen: Overview, calls: Alike[SemanticCall]) -> str:
    """How many of them `max_concurrency` lets run at once; empty where it does not."""
    names = dict.fromkeys(name for call in calls.members for name in call.concurrency)
    limits = Counter(seen.concurrency[name] for name in names if name in seen.concurrency)
    return ", ".join(
        f"at most {limit} at once" + (f" in each of {groups} groups" if groups > 1 else "")
        for limit, groups in limits.items()
    )


def held_of(seen: Overview, calls: Alike[SemanticCall]) -> str:
    """Whether they are not submitted; empty where they are."""
    held = {*seen.plan.held}.intersection(call.id for call in calls.members)
    return "not submitted, for the client itself asks for it as soon" if held else ""


def place_of(stop: Break) -> str:
    """Where a break is: `step 2 of 3, lambda at app.py:41`."""
    return f"{stop.step}, {named(stop)}" if stop.step else named(stop)


def named(stop: Break) -> str:
    """What a break is at: `lambda at app.py:41`."""
    return f"{stop.where} at {stop.location}" if stop.location else stop.where


def transform_of(transforms: Alike[Transform]) -> str:
    """What they do, and to what."""
    return f"{transforms.members[0].description}: {short(transforms.label)}"


def _named(names: Sequence[str], noun: str) -> str:
    several = len(names) > 1
    return f"{span(names)} ({counted(len(names), noun)})" if several else names[0]


def _calls(seen: Overview) -> Iterator[str]:
    for calls in seen.calls():
        yield f"{name_of(calls)}: {short(calls.label)} -> {{{calls.output}}}"
        details = (
            reason_of(seen, calls),
            limits_of(seen, calls),
            sharing_of(seen, calls),
            held_of(seen, calls),
        )
        yield f"    {'; '.join(filter(None, details))}"


def _transform(transforms: Alike[Transform]) -> str:
    times = f" ({len(transforms.members)} times)" if len(transforms.members) > 1 else ""
    return f"{transform_of(transforms)} -> {{{transforms.output}}}{times}"


def _variable(values: Alike[tuple[str, str]]) -> str:
    first, last = values.members[0], values.members[-1]
    if len(values.members) == 1:
        return f"{first[0]} = {short(first[1])}"
    names = _named([name for name, _ in values.members], "value")
    return f"{names} = {short(first[1], 32)}, …, {short(last[1], 32)}"


def _shared(seen: Overview) -> Iterator[str]:
    for members, prefix in families(seen.plan.calls):
        if length(prefix, {}):
            names = span([member.id for member in members])
            yield f"{len(members)} calls ({names}): {short(with_markers(prefix))}"


def _breaks(seen: Overview) -> Iterator[str]:
    for stops in seen.stops():
        stop, times = stops.members[0], len(stops.members)
        yield f"{place_of(stop)}: {stop.reason}{f' ({times} times)' if times > 1 else ''}."
        yield from wrap(stop.remedy, _WIDTH, initial_indent="    ", subsequent_indent="      ")
