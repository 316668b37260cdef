"""What a backend has seen: the sessions that were opened, and the task groups of their calls."""

from parrot_backend.wire.views import GraphView, SessionView
from parrot_integrations.llama_index import Parrot


class Opened:
    """The sessions of an LLM's backend that were opened since this was made."""

    def __init__(self, llm: Parrot) -> None:
        self._client = llm.client
        self._before = {view.id for view in self._client.sessions()}

    def views(self) -> list[SessionView]:
        """Their counts, the newest first."""
        return [view for view in self._client.sessions() if view.id not in self._before]

    def graph(self) -> GraphView:
        """That of the only one."""
        (view,) = self.views()
        return self._client.graph(view.id)


def sizes(graph: GraphView) -> list[int]:
    """Of each task group, how many calls came."""
    return [len(group.calls) for group in graph.groups]


def members(graph: GraphView) -> list[list[int]]:
    """Of each task group the calls, as their numbers in order of arrival."""
    return [[int(call.split("/")[1]) for call in group.calls] for group in graph.groups]
