"""The graph of a session: who writes each variable, who reads it, and whether a program fits in."""

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

from parrot_backend.program.shared_texts import check_shared_texts
from parrot_backend.wire.errors import ConflictError, InvalidRequestError
from parrot_backend.wire.messages import Text, VariableSegment
from parrot_backend.wire.protocol import Output, Program, SemanticCall
from parrot_backend.wire.transforms import Transform

Node = SemanticCall | Transform


def texts_of(node: Node) -> Iterator[Text]:
    """The texts that a node is made of, in order."""
    if isinstance(node, Transform):
        yield from node.inputs
    else:
        yield from (message.content for message in node.messages)


def inputs_of(node: Node) -> list[str]:
    """The variables that a node reads, each once, in order of first use."""
    segments = (segment for text in texts_of(node) for segment in text)
    return list(dict.fromkeys(s.name for s in segments if isinstance(s, VariableSegment)))


Inputs = dict[str, list[str]]
"""What each variable is made from, in one step."""


class Graph:
    """Variables, and the nodes between them. It only grows, and is acyclic at any time.

    `inputs` and `texts`, the shared texts of its program, are found by the variable that a node
    writes; `concurrency` has the number of calls that may run at once by the name of their group.
    """

    def __init__(self) -> None:
        self.calls: dict[str, SemanticCall] = {}
        self.producers: dict[str, Node | None] = {}
        self.consumers: dict[str, list[Node]] = {}
        self.inputs: Inputs = {}
        self.texts: dict[str, list[str]] = {}
        self.outputs: dict[str, Output] = {}
        self.concurrency: dict[str, int] = {}

    def add(self, program: Program) -> None:
        """Take a program in, whole or not at all.

        Raises:
            ConflictError: a call's id or a variable is already there.
            InvalidRequestError: a variable, shared text or concurrency group is nowhere defined, or the
                calls form a cycle.
            PayloadTooLargeError: the shared texts are too long.
        """
        producers = self._new_producers(program)
        inputs = {node.output: inputs_of(node) for node in _nodes(program)}
        self._check_calls(program)
        self._check_references(program, producers, inputs)
        self._check_concurrency(program)
        check_shared_texts(program)
        _check_acyclic(inputs)
        self.producers.update(producers)
        self.inputs.update(inputs)
        self.texts.update(dict.fromkeys(inputs, program.texts))
        self.calls.update((call.id, call) for call in program.calls)
        self.outputs.update((output.variable, output) for output in program.outputs)
        self.concurrency.update(program.concurrency)
        for node in _nodes(program):
            for name in inputs[node.output]:
                self.consumers.setdefault(name, []).append(node)

    def _new_producers(self, program: Program) -> dict[str, Node | None]:
        producers: dict[str, Node | None] = dict.fromkeys(program.variables)
        for name in program.variables:
            self._check_new(name, f"variables.{name}", {})
        for where, node in _located(program):
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
        seen = set(self.calls)
        for index, call in enumerate(program.calls):
            if call.id in seen:
                raise ConflictError(
                    f"call '{call.id}' is already defined",
                    param=f"calls.{index}.id",
                    code="call_exists",
                )
            seen.add(call.id)

    def _check_references(
        self, program: Program, producers: dict[str, Node | None], inputs: Inputs
    ) -> None:
        reads = [
            (name, where, f"read by {node.label}")
            for where, node in _located(program)
            for name in inputs[node.output]
        ]
        reads += [
            (output.variable, f"outputs.{index}.variable", "named as an output")
            for index, output in enumerate(program.outputs)
        ]
        for name, where, reader in reads:
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


def _nodes(program: Program) -> Iterable[Node]:
    return [*program.transforms, *program.calls]


def _located(program: Program) -> Iterator[tuple[str, Node]]:
    for index, transform in enumerate(program.transforms):
        yield f"transforms.{index}", transform
    for index, call in enumerate(program.calls):
        yield f"calls.{index}", call


def _check_acyclic(inputs: Inputs) -> None:
    """Only new nodes can close a cycle: older ones cannot name what was not there."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for output, names in inputs.items():
        if new := [name for name in names if name in inputs]:
            sorter.add(output, *new)
    try:
        sorter.prepare()
    except CycleError as error:
        path = " -> ".join(reversed(error.args[1]))
        raise InvalidRequestError(
            f"the program has a cycle through its variables: {path}", param="calls", code="cycle"
        ) from None
