"""The graph of a session: who writes each variable, who reads it, and whether a program fits in."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import islice

from parrot_backend.program.texts import Contents, Node, contents_of, inputs_of, located, texts_of
from parrot_backend.wire.errors import ConflictError, InvalidRequestError
from parrot_backend.wire.protocol import Output, Program, SemanticCall

__all__ = ["Graph", "Inputs", "Node", "inputs_of", "texts_of"]

Inputs = dict[str, list[str]]
"""What each variable is made from, in one step."""


class Graph:
    """Variables, and the nodes between them. It only grows, and is acyclic at any time.

    `nodes` has each behind those that it reads. `texts`, the shared texts of its program, are found by
    the variable that a node writes. `consumers` has each reader of a variable once, as `inputs` has
    each variable that a node reads. `answers` are the calls whose answers a variable holds, itself or
    through transforms; of many, two. `concurrency` has the number of calls that may run at once by the
    name of their group.
    """

    def __init__(self) -> None:
        self.calls: dict[str, SemanticCall] = {}
        self.nodes: list[Node] = []
        self.producers: dict[str, Node | None] = {}
        self.consumers: dict[str, list[Node]] = {}
        self.texts: dict[str, list[str]] = {}
        self.answers: dict[str, tuple[str, ...]] = {}
        self.outputs: dict[str, Output] = {}
        self.concurrency: dict[str, int] = {}
        self._contents = Contents()

    @property
    def inputs(self) -> Inputs:
        """What each variable is made from, in one step."""
        return self._contents.inputs

    @property
    def is_linked(self) -> bool:
        """Whether every node is known to what it reads."""
        return len(self.answers) == len(self.nodes)

    @property
    def characters(self) -> dict[str, int]:
        """How many are known of a node's texts before it runs, by the variable that it writes."""
        return self._contents.characters

    @property
    def literals(self) -> int:
        """Characters of all literal texts, shared ones once."""
        return self._contents.literals

    @property
    def sites(self) -> dict[str, str]:
        """The call sites by call id."""
        return self._contents.sites

    def add(self, program: Program) -> list[Node]:
        """Take a program in, whole or not at all; its nodes are returned, each behind what it reads.

        The work is that of the program, however large the graph is.

        Raises:
            ConflictError: a call's id or a variable is already there.
            InvalidRequestError: a variable, shared text or concurrency group is nowhere defined, a text
                is too long, or the calls form a cycle.
            PayloadTooLargeError: there is too much of it.
        """
        nodes = self.commit(self.check(program))
        for node in nodes:
            self.link(node)
        return nodes

    def check(self, program: Program) -> "Checked":
        """Find every reason to refuse a program; it raises what `add` raises.

        This is most of the work. It may be done in another thread while the graph does not grow.
        """
        producers = self._new_producers(program)
        self._check_calls(program)
        contents = contents_of(program, self._contents)
        self._check_references(program, producers, contents.inputs)
        self._check_concurrency(program)
        nodes = _producers_first(program, contents.inputs)
        return Checked(program, nodes, producers, contents, len(self.producers))

    def commit(self, checked: "Checked") -> list[Node]:
        """Take in what was checked, which can't be refused any more; each node is still to be linked.

        Raises:
            ValueError: the graph has grown since.
        """
        if checked.after != len(self.producers):
            raise ValueError("the graph has grown since the program was checked")
        program, nodes = checked.program, checked.nodes
        self._contents.update(checked.contents)
        self.nodes += nodes
        self.producers.update(checked.producers)
        self.texts.update(dict.fromkeys(checked.contents.inputs, program.texts))
        self.calls.update((call.id, call) for call in program.calls)
        self.outputs.update((output.variable, output) for output in program.outputs)
        self.concurrency.update(program.concurrency)
        return nodes

    def link(self, node: Node) -> None:
        """Make a node known to what it reads; those that it reads come before it."""
        for name in self.inputs[node.output]:
            self.consumers.setdefault(name, []).append(node)
        own = (node.id,) if isinstance(node, SemanticCall) else self.answers_read(node)
        self.answers[node.output] = own

    def answers_read(self, node: Node) -> tuple[str, ...]:
        """The calls whose answers a node reads, itself or through transforms; of many, two."""
        found = (call for name in self.inputs[node.output] for call in self.answers.get(name, ()))
        return tuple(islice(dict.fromkeys(found), 2))

    def _new_producers(self, program: Program) -> dict[str, Node | None]:
        producers: dict[str, Node | None] = dict.fromkeys(program.variables)
        for name in program.variables:
            self._check_new(name, f"variables.{name}", {})
        for where, node in located(program):
            self._check_new(node.output, f"{where}.output", producers)
            producers[node.output] = node
        return producers

    def _check_new(self, name: str, param: str, also: dict[str, Node | None]) -> None:
        if name in self.producers or name in also:
            raise ConflictError(
                f"variable '{name}' is already defined: a variable is written once",
                param=param,
                code="variable_exists",
            )

    def _check_calls(self, program: Program) -> None:
        seen: set[str] = set()
        for index, call in enumerate(program.calls):
            if call.id in seen or call.id in self.calls:
                raise ConflictError(
                    f"call '{call.id}' is already defined",
                    param=f"calls.{index}.id",
                    code="call_exists",
                )
            seen.add(call.id)

    def _check_references(
        self, program: Program, producers: dict[str, Node | None], inputs: Inputs
    ) -> None:
        for name, where, reader in _reads(program, inputs):
            if name not in self.producers and name not in producers:
                raise InvalidRequestError(
                    f"variable '{name}' is {reader}, but nothing defines it: add it to "
                    "'variables', or as the output of a call or transform",
                    param=where,
                    code="variable_missing",
                )

    def _check_concurrency(self, program: Program) -> None:
        for index, call in enumerate(program.calls):
            for position, name in enumerate(call.concurrency):
                if name not in self.concurrency and name not in program.concurrency:
                    raise InvalidRequestError(
                        f"{call.label} is in the group '{name}', but nothing says how many calls of it "
                        "may run at once: add it to 'concurrency'",
                        param=f"calls.{index}.concurrency.{position}",
                        code="concurrency_missing",
                    )


@dataclass(frozen=True, slots=True)
class Checked:
    """A program that the graph of so many variables can take; its `nodes` each behind what it reads."""

    program: Program
    nodes: list[Node]
    producers: dict[str, Node | None]
    contents: Contents
    after: int


def _reads(program: Program, inputs: Inputs) -> Iterator[tuple[str, str, str]]:
    """Each variable that is read, where, and in words by whom."""
    for where, node in located(program):
        reader = f"read by {node.label}"
        for name in inputs[node.output]:
            yield name, where, reader
    for index, output in enumerate(program.outputs):
        yield output.variable, f"outputs.{index}.variable", "named as an output"


def _producers_first(program: Program, inputs: Inputs) -> list[Node]:
    """New nodes, each behind those that it reads; what is there already cannot read what is new."""
    nodes: list[Node] = [*program.transforms, *program.calls]
    missing: dict[str, int] = {}
    readers: defaultdict[str, list[Node]] = defaultdict(list)
    order: list[Node] = []
    for node in nodes:
        new = [name for name in inputs[node.output] if name in inputs]
        missing[node.output] = len(new)
        for name in new:
            readers[name].append(node)
        if not new:
            order.append(node)
    for node in order:
        for reader in readers.get(node.output, ()):
            missing[reader.output] -= 1
            if not missing[reader.output]:
                order.append(reader)
    if len(order) < len(nodes):
        raise _cycle({name: inputs[name] for name, count in missing.items() if count})
    return order


def _cycle(inputs: Inputs) -> InvalidRequestError:
    sorter = TopologicalSorter({name: [n for n in inputs[name] if n in inputs] for name in inputs})
    path = ""
    try:
        sorter.prepare()
    except CycleError as error:
        path = " -> ".join(reversed(error.args[1]))
    return InvalidRequestError(
        f"the program has a cycle through its variables: {path}", param="calls", code="cycle"
    )
