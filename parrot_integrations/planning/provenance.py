"""What values are made of, and what can only be planned behind them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from parrot_integrations.planning.values import Answer, Prompt, Text, Unknown, Variable, items


def unknowns(value: Any) -> Iterator[Unknown]:
    """What in `value` is not known yet."""
    if isinstance(value, Unknown):
        yield value
    for item in items(value) or ():
        yield from unknowns(item)


def variables(value: Any) -> Iterator[str]:
    """The names of the Semantic Variables, and outputs of graph breaks, that `value` is made of."""
    if isinstance(value, Unknown) and value.source:
        yield value.source
    if isinstance(value, Answer):
        value = value.text
    if isinstance(value, Text):
        yield from (piece.name for piece in value.pieces if isinstance(piece, Variable))
    parts = [m.text for m in value.messages] if isinstance(value, Prompt) else items(value)
    for part in parts or ():
        yield from variables(part)


def before_calls(values: Iterable[Unknown]) -> set[Unknown]:
    """Those that keep an LLM call from being planned, and what stands before such."""
    found: set[Unknown] = set()
    before: defaultdict[Unknown, list[Unknown]] = defaultdict(list)
    stack = list(values)
    while stack:
        if (unknown := stack.pop()) not in found:
            found.add(unknown)
            stack += unknown.behind
            for after in unknown.behind:
                before[after].append(unknown)
    leading: set[Unknown] = set()
    stack = [unknown for unknown in found if any(calls() for calls in unknown.keeps)]
    while stack:
        if (unknown := stack.pop()) not in leading:
            leading.add(unknown)
            stack += before[unknown]
    return leading
