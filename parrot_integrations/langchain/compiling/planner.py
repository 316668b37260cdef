"""The walk: one rule per runnable type, found by exact type; anything else is a graph break."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from langchain_core.runnables import Runnable

from parrot_integrations.client.scope import wire_name
from parrot_integrations.langchain.compiling.advice import BEHIND, unplanned
from parrot_integrations.langchain.compiling.calls import makes_calls
from parrot_integrations.langchain.compiling.where import location_of, name_of, step_of
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.provenance import unknowns, variables
from parrot_integrations.planning.reading.problems import RefusalError
from parrot_integrations.planning.structured import JsonValue
from parrot_integrations.planning.values import (
    Break,
    BreakError,
    NotYetError,
    Text,
    Unknown,
    known,
)

StepPath = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step gets beside its input, and which step it is.

    `place` leads from the root of the runnable to the step, as in `rebuilt.observed`; `elements` are
    the indices of the inputs and of the elements of maps that it works on; `concurrency` names the
    groups of calls that may not all run at once.
    """

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    configurable: Mapping[str, Any] = field(default_factory=dict)
    place: StepPath = ()
    elements: tuple[int, ...] = ()
    concurrency: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[StepPath, tuple[int, ...]]:
        """Identifies one execution of one step."""
        return self.place, self.elements

    def at(self, *place: int | str, kwargs: Mapping[str, Any] | None = None) -> "StepContext":
        """For a step inside; without `kwargs` it gets no keyword arguments."""
        return StepContext(
            kwargs or {}, self.configurable, self.place + place, self.elements, self.concurrency
        )

    def element(self, index: int) -> "StepContext":
        """For one element of a map."""
        return replace(self, elements=(*self.elements, index))

    def limited(self, plan: Plan, most: Any) -> "StepContext":
        """Under a configuration's `max_concurrency`; what is run as one batch has it together."""
        if type(most) is not int or most < 1:
            return self
        where = ".".join(map(str, (*self.place, *self.elements[:-1])))
        group = wire_name(f"run:{where}")
        plan.concurrency[group] = most
        return replace(self, concurrency=(*self.concurrency, group))


Rule = Callable[["Planner", Any, Any, StepContext], Any]

RULES: dict[type | str, Rule] = {}
FAMILIES: dict[type | str, Rule] = {}


def rule(*runnable_types: type | str, subclasses: bool = False) -> Callable[[Rule], Rule]:
    """Register the transfer function of runnable types: symbolic input to symbolic output.

    A rule is called as `(planner, runnable, value, context)`. It runs no user code. It raises
    `BreakError` where it can't go on, and `NotYetError` where a value has to be known first. A type
    of a package that need not be installed is given as `module.Class`. Subclasses may do something
    else: they are covered only with `subclasses`, and then it is the rule that has to tell.
    """

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(runnable_types, function))
        if subclasses:
            FAMILIES.update(dict.fromkeys(runnable_types, function))
        return function

    return register


def exact_type(runnable: Runnable[Any, Any]) -> type:
    """Its class; of a generic class with arguments, `RunnableParallel[...]`, the class without."""
    metadata = getattr(type(runnable), "__pydantic_generic_metadata__", None)
    return (metadata or {}).get("origin") or type(runnable)


def find_rule(runnable: Runnable[Any, Any]) -> Rule | None:
    """The rule of a runnable's exact type, or one of a class that it is derived from."""
    family = (FAMILIES[base] for base in type(runnable).__mro__ if base in FAMILIES)
    return _own_rule(runnable) or next(family, None)


def is_known(runnable: Runnable[Any, Any]) -> bool:
    """Whether its class has a rule of its own: making such a runnable runs no code of the user's."""
    return _own_rule(runnable) is not None


def _own_rule(runnable: Runnable[Any, Any]) -> Rule | None:
    kind = exact_type(runnable)
    return RULES.get(kind) or RULES.get(f"{kind.__module__}.{kind.__qualname__}")


class Planner:
    """Walks a runnable with symbolic values and collects a plan for one backend."""

    def __init__(self) -> None:
        self.plan = Plan(_precedes)
        self.calls_in_functions: dict[Hashable, dict[StepPath, Any]] = {}
        """What steps gave that functions call, by the function's key and the call's place."""
        self.revisions: dict[Hashable, list[Unknown]] = {}
        """What steps may give in place of what they were planned to give."""
        self._awaited: dict[tuple[str, Text], JsonValue] = {}
        self._wholes: dict[StepPath, Runnable[Any, Any]] = {}

    def step(self, runnable: Runnable[Any, Any], value: Any, context: StepContext) -> Any:
        """The symbolic output of one runnable; an `Unknown` for what is behind a graph break."""
        if not context.place or context.place[:-1] == ("nodes",):
            self._wholes[context.place] = runnable
        result = Unknown()
        self._attempt(runnable, value, context, result)
        if result.settled:
            return result.value
        if (
            "calls" not in context.place
        ):  # what functions call is not observed: nobody would settle it
            self.plan.unknowns[context.key] = result
        return result

    def revise(self, inner: StepContext, outer: StepContext, to: Callable[[Any], Any]) -> None:
        """Where a step inside gives something else after all, the one around gives `to` of that."""
        for other in self.revisions.pop(inner.key, ()):
            result = Unknown()
            self.revisions.setdefault(outer.key, []).append(result)
            other.then(partial(_settle, result, to, other))

    def _attempt(
        self, runnable: Runnable[Any, Any], value: Any, context: StepContext, result: Unknown
    ) -> None:
        """Settle the step's output, or try again when what it needs is known."""
        needed: Unknown | None = None
        try:
            if isinstance(value, Unknown) and not isinstance(value, JsonValue):
                raise NotYetError(value)
            result.settle(self._apply(runnable, value, context))
        except NotYetError as waiting:
            needed = waiting.unknown
        except BreakError as stop:
            if isinstance(value, JsonValue):  # the texts in it don't do; the whole may
                needed = value
            else:
                self.stop(runnable, value, context, stop, result)
        if needed is not None:
            self._wait(runnable, value, needed, result)
            needed.then(lambda: self._attempt(runnable, known(value), context, result))

    def _wait(
        self, runnable: Runnable[Any, Any], value: Any, needed: Unknown, result: Unknown
    ) -> None:
        """Note what a step waits for; of JSON that is needed whole, its parser is the graph break."""
        if result not in needed.behind:
            for unknown in {needed, *unknowns(value)}:
                unknown.behind.append(result)
                unknown.keeps.append(partial(makes_calls, runnable))
        if not isinstance(needed, JsonValue):
            return
        first = self._awaited.setdefault((needed.origin, needed.text), needed)
        if first is not needed:
            first.behind.append(needed)
        elif not first.source:
            self.plan.stop(
                Break(
                    needed.origin,
                    "parses an answer, of which planning knows no more than the texts that are "
                    "taken from it",
                    "What needs more of it is planned when it is there.",
                    reads=tuple(variables(needed.text)),
                ),
                first,
            )

    def stop(
        self,
        runnable: Runnable[Any, Any],
        value: Any,
        context: StepContext,
        stop: BreakError,
        result: Unknown,
    ) -> None:
        """Note a graph break at a step; `result` is what it leaves unknown."""
        if isinstance(stop, RefusalError):
            self.plan.refuse(partial(_of_input, context.elements[:1]))
        result.keeps.append(partial(makes_calls, runnable))
        for unknown in unknowns(value):
            unknown.behind.append(result)
        self.plan.stop(
            Break(
                where=stop.where or name_of(runnable),
                reason=stop.reason,
                remedy=stop.remedy or BEHIND,
                location=location_of(runnable),
                step=step_of(self._wholes, context.place),
                reads=tuple(dict.fromkeys(variables(value))),
            ),
            # A refusal is told also where nothing is behind it: it ends what is beside it too.
            None if isinstance(stop, RefusalError) else result,
        )

    def _apply(self, runnable: Runnable[Any, Any], value: Any, context: StepContext) -> Any:
        found = find_rule(runnable)
        if found is None:
            raise unplanned(runnable)
        return found(self, runnable, value, context)


def _precedes(first: tuple[StepPath, Any], second: tuple[StepPath, Any] | None) -> bool:
    """Steps of a sequence follow one another, and an input; branches run side by side."""
    pairs = enumerate(zip(first[0], second[0], strict=False)) if second is not None else ()
    different = next((index for index, (one, other) in pairs if one != other), None)
    if different is None:
        return second is None
    return different == 0 or (
        first[0][different - 1] == "steps" and type(first[0][different]) is int
    )


def _of_input(elements: tuple[int, ...], key: tuple[StepPath, tuple[int, ...]]) -> bool:
    return key[1][:1] == elements


def _settle(result: Unknown, to: Callable[[Any], Any], other: Unknown) -> None:
    result.settle(to(other.value))
