"""What the components of query pipelines gave in the run, for the shadow to go on with."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle


class Given:
    """What components gave and edges let through, by what they got.

    Args:
        original_of: gives the object of the run for what stands for it in the shadow.
    """

    def __init__(self, original_of: Callable[[Any], Any]) -> None:
        self._original_of = original_of
        self._outputs: dict[Hashable, Mapping[str, Any]] = {}
        self._delivered: dict[Hashable, tuple[bool, Any]] = {}
        self._missed: set[int] = set()
        # Referred to, so that no other object gets their ids.
        self._kept: list[Any] = []

    def gave(self, component: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
        """A component was run. Whether that is news: the shadow has missed it."""
        self._kept += [component, {**inputs}, outputs]
        self._outputs[id(component), self._inputs(inputs)] = outputs
        missed = id(component) in self._missed
        self._missed.discard(id(component))
        return missed

    def let(self, edge: Mapping[str, Any], output: Any, through: bool, value: Any) -> None:
        """An edge let a value through, or none."""
        self._kept += [edge, output, value]
        self._delivered[id(edge), self._frozen(output)] = through, value

    def outputs(self, component: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What a component gave for these inputs; None where it was not run with them."""
        outputs = self._outputs.get((id(component), self._inputs(inputs)))
        if outputs is None:
            self._missed.add(id(component))
        return outputs

    def delivered(self, edge: Mapping[str, Any], output: Any) -> tuple[bool, Any] | None:
        """Whether an edge let something through and what; None where the run has not been there."""
        return self._delivered.get((id(edge), self._frozen(output)))

    def _inputs(self, inputs: Mapping[str, Any]) -> Hashable:
        """What tells inputs from others; the name of a single one may not be known."""
        return self._frozen(next(iter(inputs.values())) if len(inputs) == 1 else inputs)

    def _frozen(self, value: Any) -> Hashable:
        """What tells a value from others, in the run and in the shadow: its text where it has one."""
        if type(value) in (str, int, float, bool, type(None)):
            return type(value).__name__, value
        if type(value) in (list, tuple):
            return type(value).__name__, tuple(map(self._frozen, value))
        if isinstance(value, Mapping):
            return frozenset((key, self._frozen(each)) for key, each in value.items())
        if isinstance(value, ChatResponse):
            return "answer", self._frozen(value.message)
        if isinstance(value, CompletionResponse):
            return "answer", value.text
        if isinstance(value, ChatMessage):
            return str(value.role), value.content
        if isinstance(value, QueryBundle):
            return "query", value.query_str
        if isinstance(value, NodeWithScore):
            return self._frozen(value.node), value.score
        if isinstance(value, BaseNode):
            return "node", value.node_id, getattr(value, "text", None)
        return id(self._original_of(value))
