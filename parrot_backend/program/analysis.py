"""What the graph says before anything runs: who waits for a call, beside whom, and how long the way is.

Deduced from the outputs backward (Parrot, OSDI'24, section 5.2). A call upstream of a latency output
is latency-critical. Calls that are equally far from the end and feed the same call are a task group:
only the last of them to end matters, so they are served as one batch. So are calls that feed the
members of a group, one stage before:

    a1 -> b1 \\
    a2 -> b2 -> c     b1 b2 b3 are the group c.inputs, a1 a2 a3 the group c.inputs.2
    a3 -> b3 /

A graph that grows tells more of the calls that are there. What has ended needs no place any more, and
where much is waiting the older calls are looked at again only now and then: see `Analysis`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf

from parrot_backend.program.graph import Graph, Node
from parrot_backend.wire.protocol import Objective, Output, SemanticCall

EXACT_NODES = 256
"""Up to so many nodes that have not ended, every extension brings all of them up to date."""
EXPECTED_TOKENS = 128.0
"""Tokens that an answer is taken to have where nothing is known of its site."""

# Beyond EXACT_NODES all are looked at again when a quarter is new: at most five steps for a new node.
_GROWTH = 1.25
CHARACTERS_PER_TOKEN = 4
PREFILLED_PER_GENERATED = 8  # prompt tokens that are computed in the time of one of an answer


@dataclass(frozen=True, slots=True)
class Deduction:
    """What is deduced for one call.

    `path` counts the calls from this one to the farthest output, `group_size` the calls of its task
    group. The objective inside a group is throughput, also where the group is latency-critical. `work`
    is what the way takes that takes longest, from this call on, in tokens of answers; `site` is one for
    calls that are made alike.
    """

    objective: Objective
    critical: bool
    path: int
    group: str | None = None
    group_size: int | None = None
    work: float = 0.0
    site: str = ""


Expected = Callable[[str, int | None], float]
"""The tokens that an answer of a call site is likely to have, where it may have so many."""


def expect_the_same(site: str, max_tokens: int | None) -> float:
    """The tokens of an answer where none has been seen."""
    return min(EXPECTED_TOKENS, max_tokens or inf)


class Analysis:
    """Deduces the places of calls in a graph that grows.

    Args:
        graph: programs are added to it by others.
        objective: what is wanted of what nobody reads, as long as the graph names no output.
        expected: how long answers are.
    """

    def __init__(
        self,
        graph: Graph,
        objective: Objective = "latency",
        expected: Expected = expect_the_same,
    ) -> None:
        self._graph = graph
        self._objective = objective
        self._expected = expected
        self._nodes: list[Node] = []
        self._placed = 0
        self._named = False

    def extend(
        self, nodes: Sequence[Node], live: Callable[[Node], bool] = lambda _: True
    ) -> dict[str, Deduction]:
        """Place what was added to the graph; the places that are known anew are returned by call id.

        With few nodes these are all that have not ended. With many, new ones are placed on their own:
        nothing older reads them, so only the size of their task groups may be too small. What they
        tell of older calls is deduced when a quarter of all is new.

        Args:
            nodes: the new ones, each behind those that it reads.
            live: whether a node has not ended; what it feeds has not either, unless that failed.
        """
        reach = self.reach(len(nodes))
        self._nodes += nodes
        if reach == len(self._nodes):
            nodes = self._nodes = [node for node in self._nodes if live(node)]
            self._placed, self._named = len(nodes), bool(self._graph.outputs)
        return self._deduce(nodes)

    def reach(self, new: int) -> int:
        """How many nodes an extension by so many will look at.

        One that looks at many may be done in another thread, while the graph does not grow.
        """
        known = len(self._nodes) + new
        few = known <= EXACT_NODES
        many = known > _GROWTH * self._placed
        named = bool(self._graph.outputs) != self._named
        return known if few or many or named else new

    def _deduce(self, nodes: Sequence[Node]) -> dict[str, Deduction]:
        """The places of calls, where no other nodes than these are behind them."""
        ways: dict[str, _Way] = {}
        for node in reversed(nodes):
            ways[node.output] = self._way(node, ways)
        placed = [(node, ways[node.output]) for node in nodes if isinstance(node, SemanticCall)]
        groups = _task_groups(placed)
        sizes = Counter(groups.values())
        found = {}
        for call, way in placed:
            group = groups.get(call.id)
            found[call.id] = Deduction(
                "throughput" if group is not None else way.objective,
                way.critical,
                way.path,
                group,
                None if group is None else sizes[group],
                way.work,
                self._graph.sites[call.id],
            )
        return found

    def _way(self, node: Node, ways: Mapping[str, "_Way"]) -> "_Way":
        """From a node to the end, by the ways of its consumers; what has ended has none."""
        way = _Way()
        first: Node | None = None
        for consumer in self._graph.consumers.get(node.output, ()):
            after = ways.get(consumer.output)
            if after is not None:
                if first is None or after.path > way.path:
                    first, way.path = consumer, after.path
                way.work = max(way.work, after.work)
                way.critical = way.critical or after.critical
        if first is not None:
            way.feeds = first if isinstance(first, SemanticCall) else ways[first.output].feeds
        self._want(way, node.output, read=first is not None)
        if isinstance(node, SemanticCall):
            way.path += 1
            way.work += self._work(node)
        return way

    def _want(self, way: "_Way", variable: str, *, read: bool) -> None:
        """Set what is wanted of a variable, by those who read it or by name."""
        way.objective = "latency" if way.critical else "throughput"
        if self._graph.outputs:
            output = self._graph.outputs.get(variable)
            wanted = "throughput" if output is None else output.objective
            if not read and output is not None and output.group is not None:
                way.feeds = output
        else:
            wanted = "throughput" if read else self._objective
        if wanted != "throughput":
            way.critical, way.objective = True, wanted

    def _work(self, call: SemanticCall) -> float:
        """What a call takes, in tokens of answers."""
        answer = self._expected(self._graph.sites[call.id], call.max_tokens)
        prompt = self._graph.characters[call.output] / CHARACTERS_PER_TOKEN
        return answer + prompt / PREFILLED_PER_GENERATED


def deduce(
    graph: Graph,
    objective: Objective = "latency",
    expected: Expected = expect_the_same,
) -> dict[str, Deduction]:
    """The deductions by call id, of a whole graph.

    In a graph that names no output, what nobody reads is wanted with `objective`.
    """
    found = Analysis(graph, objective, expected).extend(graph.nodes)
    return {call_id: found[call_id] for call_id in graph.calls}


def rewritten(graph: Graph, call: SemanticCall) -> SemanticCall | None:
    """The call whose answer this one is likely to repeat: the only one whose answer it reads.

    Each step of a refine chain hands on the answer before, as does a call that corrects or continues
    another's. Of several answers, which are being combined, none is repeated.
    """
    answered = graph.answers_read(call)
    return graph.calls[answered[0]] if len(answered) == 1 else None


@dataclass(slots=True)
class _Way:
    """From a variable to the end.

    `feeds` is what it is for: the call with the longest way to go, through transforms, or else the
    output that is wanted together with others.
    """

    path: int = 0
    work: float = 0.0
    critical: bool = False
    objective: Objective = "throughput"
    feeds: Node | Output | None = None


_Stage = tuple[str, int]  # what a group feeds, and how many calls before it


def _task_groups(calls: Sequence[tuple[SemanticCall, _Way]]) -> dict[str, str]:
    """Names of task groups by call id; a call without siblings has none."""
    stages: dict[str, _Stage] = {}
    # What a call feeds is nearer to the end, so its stage is known by then.
    nearest_first = sorted(calls, key=_path)
    for _, equally_far in groupby(nearest_first, key=_path):
        siblings: defaultdict[_Stage, list[str]] = defaultdict(list)
        for call, way in equally_far:
            if isinstance(way.feeds, SemanticCall):
                feeds, distance = stages.get(way.feeds.id, (way.feeds.id, 0))
                siblings[feeds, distance + 1].append(call.id)
            elif isinstance(way.feeds, Output) and way.feeds.group is not None:
                siblings[way.feeds.group, 0].append(call.id)
        for stage, members in siblings.items():
            if len(members) > 1:
                stages.update(dict.fromkeys(members, stage))
    return {call_id: _name(*stage) for call_id, stage in stages.items()}


def _path(placed: tuple[SemanticCall, _Way]) -> int:
    return placed[1].path


def _name(feeds: str, distance: int) -> str:
    if distance == 0:
        return feeds
    return f"{feeds}.inputs" if distance == 1 else f"{feeds}.inputs.{distance}"
