"""Needs: for whose sake a call goes on.

A call that is planned lives as long as its plan does. One that somebody has asked for lives while it is
read; when it was left, it lives on while a planned call that waits, or somebody who waits for a
variable, needs what it writes.
"""

from collections.abc import Mapping

from parrot_backend.program.graph import Graph
from parrot_backend.serving.call import Call
from parrot_backend.serving.sessions.variables import Variables
from parrot_backend.wire.protocol import SemanticCall


class Needs:
    """Keeps book of the calls of one session that somebody has asked for.

    Args:
        graph: who reads what.
        planned: the calls of the graph, by id.
        variables: who waits for what.
    """

    def __init__(self, graph: Graph, planned: Mapping[str, Call], variables: Variables) -> None:
        self.asked: set[Call] = set()
        self.left: set[Call] = set()
        self._graph = graph
        self._planned = planned
        self._variables = variables

    @property
    def reading(self) -> bool:
        """Whether somebody reads a call, or is about to, or waits for a variable."""
        return self._variables.readers or len(self.asked) > len(self.left)

    def over(self, call: Call) -> bool:
        """A call has ended; whether somebody had asked for it."""
        was_asked = call in self.asked
        self.asked.discard(call)
        self.left.discard(call)
        return was_asked

    def is_needed(self, call: Call) -> bool:
        """Whether a planned call that waits reads what this one writes, or somebody waits for it."""
        names = [call.output] if call.output is not None else []
        seen = set(names)
        while names:
            if self._variables.is_waited_for(name := names.pop()):
                return True
            for node in self._graph.consumers.get(name, ()):
                if isinstance(node, SemanticCall):
                    if self._planned[node.id].state == "waiting":
                        return True
                elif node.output not in seen:
                    seen.add(node.output)
                    names.append(node.output)
        return False
