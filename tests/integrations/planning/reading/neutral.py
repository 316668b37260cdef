"""Reading without a framework, and what becomes of what was read."""

from collections.abc import Callable, Mapping
from typing import Any

from parrot_backend.program.render import render_transform
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.reading.reading import read
from parrot_integrations.planning.values import Text, Variable


class NoFramework:
    """Knows nothing of its own."""

    def takes(self, value: Any) -> bool:
        return False

    def attribute(self, *_: Any) -> Any:
        return NotImplemented

    item = operation = method = call = attribute


def reading(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """What a function gives, as far as its source tells."""
    return read(Plan(), NoFramework(), function, arguments, keywords)


class Symbolic:
    """Texts that the run will bring, which it has by then."""

    def __init__(self) -> None:
        self.plan = Plan()
        self._values: dict[str, str] = {}

    def text(self, value: str) -> Text:
        name = f"v{len(self._values)}"
        self._values[name] = value
        return Text((Variable(name),))

    def read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return read(self.plan, NoFramework(), function, arguments, {})

    def rendered(self, value: Any) -> Any:
        """What was read, with everything that the run brings put in."""
        values: Mapping[str, str] = dict(self._values)
        for transform in self.plan.transforms:
            values = {**values, transform.output: render_transform(transform, values)}
        return self._put_in(value, values)

    def _put_in(self, value: Any, values: Mapping[str, str]) -> Any:
        if isinstance(value, Text):
            return "".join(values[p.name] if isinstance(p, Variable) else p for p in value.pieces)
        if type(value) is dict:
            return {key: self._put_in(item, values) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._put_in(item, values) for item in value)
        return value
