"""Which of a plan's calls are submitted, and when: only what submitting can help.

A call that is there alone, with all of its inputs, and with nothing slow between now and the step that
asks for it, would not start any earlier: it is held back, and the client asks for it. What it is told
is an input of the calls that read it.
"""

from collections.abc import Callable, Hashable, Mapping
from itertools import islice
from typing import Any

from parrot_backend.program.graph import Node, inputs_of
from parrot_backend.wire.protocol import SemanticCall
from parrot_integrations.planning.values import Entry, Unknown

Part = tuple[dict[str, str], list[Node]]
"""Values of input variables, and the calls and transforms that read them, in their order."""


class Parts:
    """Takes a plan's nodes as they are planned, and gives them in the parts that are submitted.

    `held` has the ids of the calls that no part has. `variables` and `unknowns` are the plan's own;
    `precedes` tells of two steps' keys whether the first step has ended when the second begins.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        unknowns: Mapping[Hashable, Unknown],
        precedes: Callable[[Any, Any], bool],
    ) -> None:
        self._precedes = precedes
        self._refused: list[Callable[[Any], bool]] = []
        self.held: list[str] = []
        self._variables = variables
        self._unknowns = unknowns
        self._waiting: dict[str, Node] = {}
        self._sent: set[str] = set()
        self._keys: dict[str, Hashable] = {}
        self._places: dict[str, int] = {}
        self._outputs: dict[Hashable, str] = {}
        self._answers: dict[str, str] = {}

    def add(self, node: Node, key: Hashable = None) -> None:
        """A node whose inputs are added before it; `key` identifies the step that asks for a call."""
        self._waiting[node.output] = node
        self._keys[node.output] = key
        self._places[node.output] = len(self._unknowns)

    def told(self, key: Hashable, answer: str) -> None:
        """What the step that `key` identifies was answered."""
        if self.awaits(key):
            self._answers[self._outputs[key]] = answer

    def awaits(self, key: Hashable) -> bool:
        """Whether the step's call is not in the session, so that its answer would have to be told."""
        return key in self._outputs

    def refuse(self, steps: Callable[[Any], bool]) -> None:
        """Submit no more calls of the steps whose keys these are: the run won't come to them."""
        self._refused.append(steps)

    def take(self) -> Part | None:
        """What is to be submitted now; None where nothing is."""
        for node in [*self._waiting.values()] if self._refused else ():
            key = self._keys[node.output]
            if isinstance(node, SemanticCall) and any(steps(key) for steps in self._refused):
                self._hold(node)
        calls = [node for node in self._waiting.values() if isinstance(node, SemanticCall)]
        if len(calls) == 1 and self._comes_next(calls[0]):
            self._hold(calls[0])
            return None
        values, nodes = self._part()
        for call in calls:
            if call.output not in nodes:
                self._hold(call)
        if not any(call.output in nodes for call in calls):
            return None
        self._sent.update(values, nodes)
        self._waiting = {name: n for name, n in self._waiting.items() if name not in nodes}
        return values, list(nodes.values())

    def _part(self) -> tuple[dict[str, str], dict[str, Node]]:
        """All nodes whose inputs the session has or can be given."""
        values: dict[str, str] = {}
        nodes: dict[str, Node] = {}
        for output, node in self._waiting.items():
            read = [n for n in inputs_of(node) if n not in self._sent and n not in nodes]
            given = {name: value for name in read if (value := self._value(name)) is not None}
            if len(given) == len(set(read)):
                values |= given
                nodes[output] = node
        return values, nodes

    def _hold(self, call: SemanticCall) -> None:
        del self._waiting[call.output]
        self.held.append(call.id)
        if (key := self._keys[call.output]) is not None:
            self._outputs[key] = call.output

    def _comes_next(self, call: SemanticCall) -> bool:
        return self._is_ready(call) and not self._is_behind_something_slow(call)

    def _is_ready(self, node: Node) -> bool:
        """Whether its text is known here: it waits for no call."""
        return all(
            self._value(name) is not None
            or (name in self._waiting and self._is_ready(self._waiting[name]))
            for name in inputs_of(node)
        )

    def _is_behind_something_slow(self, call: SemanticCall) -> bool:
        """Whether a step stands before it whose value only the run will tell.

        Unknowns are noted in the order of the steps. A step that was waiting is where it was noted,
        any other is behind all that were noted before it.
        """
        for key, unknown in islice(self._unknowns.items(), self._places[call.output]):
            if key == self._keys[call.output]:
                return False
            if unknown.settled or isinstance(unknown, Entry):
                continue
            if self._precedes(key, self._keys[call.output]):
                return True
        return False

    def _value(self, name: str) -> str | None:
        value = self._variables.get(name)
        return self._answers.get(name) if value is None else value
