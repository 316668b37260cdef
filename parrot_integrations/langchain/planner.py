"""The walk: one rule per runnable type, found by exact type; anything else is a graph break."""

from collections.abc import Callable
from typing import Any

from langchain_core.runnables import Runnable

from parrot_integrations.client import ParrotClient
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import UNKNOWN, Unknown

Rule = Callable[["Planner", Any, Any, dict[str, Any]], Any]

RULES: dict[type, Rule] = {}


def rule(*runnable_types: type) -> Callable[[Rule], Rule]:
    """Register the transfer function of runnable types: symbolic input to symbolic output.

    A rule is called as `(planner, runnable, value, kwargs)`. It runs no user code. Subclasses are not
    covered: they may do something else.
    """

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(runnable_types, function))
        return function

    return register


class Planner:
    """Walks a runnable with symbolic values and collects a plan for one backend."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.client: ParrotClient | None = None

    def step(self, runnable: Runnable[Any, Any], value: Any, kwargs: dict[str, Any]) -> Any:
        """The symbolic output of one runnable."""
        if isinstance(value, Unknown):
            return UNKNOWN
        found = RULES.get(_exact_type(runnable))
        if found is None:
            return self.stop(
                runnable,
                "is not a step that can be planned",
                "What comes before and beside it is planned; it runs as always.",
            )
        return found(self, runnable, value, kwargs)

    def stop(self, runnable: Runnable[Any, Any], reason: str, remedy: str = "") -> Unknown:
        """A graph break at a runnable."""
        return self.plan.stop(runnable.get_name(), reason, remedy)


def _exact_type(runnable: Runnable[Any, Any]) -> type:
    """Its class; of a generic class with arguments, `RunnableParallel[...]`, the class without."""
    metadata = getattr(type(runnable), "__pydantic_generic_metadata__", None)
    return (metadata or {}).get("origin") or type(runnable)
