"""The plan under construction: what the rules of a framework add calls and breaks to."""

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from parrot_backend.wire.messages import SemanticMessage, VariableSegment
from parrot_backend.wire.parameters import without_neutral
from parrot_backend.wire.protocol import Objective, Output, Program, SemanticCall
from parrot_backend.wire.transforms import Transform
from parrot_integrations.client import ParrotClient
from parrot_integrations.planning.values import (
    Answer,
    Break,
    BreakError,
    Prompt,
    Text,
    Unknown,
    Variable,
)

_OUTPUTS = ("answer-", "joined-", "stripped-", "field-")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.:\-]")


class Plan:
    """Calls, variables and transforms that a run is predicted to need, and where prediction ended.

    Building it has no side effect. `program()` is all of it; `take()` is what has come since it was
    called last, as a plan goes on when values behind graph breaks become known. `client` is of the
    one backend that all calls go to.
    """

    def __init__(self) -> None:
        self.client: ParrotClient | None = None
        self.calls: list[SemanticCall] = []
        self.variables: dict[str, str] = {}
        self.transforms: list[Transform] = []
        self.breaks: list[Break] = []
        self.unknowns: dict[Hashable, Unknown] = {}
        self._inputs: dict[tuple[str, str], Variable] = {}
        self._numbers: Counter[str] = Counter()
        self._taken = (0, 0, 0)

    @property
    def open(self) -> bool:
        """Whether more can be planned once a value is known."""
        return any(unknown.awaited for unknown in self.unknowns.values())

    def input(self, name: str, value: str) -> Text:
        """The Semantic Variable for an input value; equal values of one name share it."""
        variable = self._inputs.get((name, value))
        if variable is None:
            variable = Variable(self._fresh(name))
            self._inputs[name, value] = variable
            self.variables[variable.name] = value
        return Text((variable,))

    def call(self, prompt: Prompt, parameters: Mapping[str, Any]) -> Answer:
        """Plan one LLM call; its answer is a new variable.

        `parameters` are those of the request that the framework will send, as they go over the wire.

        Raises:
            BreakError: the wire does not know one of them.
        """
        number = len(self.calls) + 1
        try:
            messages = [
                SemanticMessage(role=m.role, content=m.text.segments(), **m.other)
                for m in prompt.messages
            ]
            call = SemanticCall(
                id=f"call-{number}",
                messages=messages,
                output=f"answer-{number}",
                **without_neutral(dict(parameters)),
            )
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise BreakError(f"the backend does not take '{field}' in a plan") from None
        self.calls.append(call)
        return Answer(Text((Variable(call.output),)))

    def join(self, texts: Sequence[Text], separator: str) -> Text:
        """The texts joined by a separator, which the backend does itself."""
        return self._transform("joined", op="join", inputs=texts, separator=separator)

    def strip(self, text: Text) -> Text:
        """The text without white space at its ends, which the backend takes off itself."""
        return self._transform("stripped", op="strip", inputs=[text])

    def json_field(self, text: Text, path: Sequence[str | int]) -> Text:
        """The string at a path in a JSON text, which the backend reads itself."""
        return self._transform("field", op="json_field", inputs=[text], path=list(path))

    def _transform(self, name: str, inputs: Sequence[Text], **details: Any) -> Text:
        output = f"{name}-{len(self.transforms) + 1}"
        segments = [text.segments() for text in inputs]
        self.transforms.append(Transform(inputs=segments, output=output, **details))
        return Text((Variable(output),))

    def stop(self, where: str, reason: str, remedy: str = "") -> None:
        """Note a graph break."""
        self.breaks.append(Break(where, reason, remedy))

    def program(self, objective: Objective = "latency") -> Program:
        """All of the plan. The answers that no planned step reads are its outputs."""
        return self._program(objective, 0, 0, 0)

    def take(self, objective: Objective = "latency") -> Program | None:
        """What is to be submitted next; None where nothing has come."""
        calls, transforms, variables = self._taken
        if len(self.calls) == calls:
            return None
        self._taken = len(self.calls), len(self.transforms), len(self.variables)
        return self._program(objective, calls, transforms, variables)

    def _program(
        self, objective: Objective, calls: int, transforms: int, variables: int
    ) -> Program:
        """Without the first so many calls, transforms and variables."""
        program = Program(
            variables=dict(list(self.variables.items())[variables:]),
            transforms=self.transforms[transforms:],
            calls=self.calls[calls:],
        )
        texts = [m.content for call in program.calls for m in call.messages]
        texts += [text for transform in program.transforms for text in transform.inputs]
        read = {s.name for text in texts for s in text if isinstance(s, VariableSegment)}
        written = [t.output for t in program.transforms] + [c.output for c in program.calls]
        unread = [name for name in written if name not in read]
        # Whoever reads them, the step behind a break or the end of the run, reads all of them.
        group = f"outputs-{calls + 1}" if len(unread) > 1 else None
        program.outputs = [Output(variable=v, objective=objective, group=group) for v in unread]
        return program

    def _fresh(self, name: str) -> str:
        """A free name made from `name`: itself, then with a number."""
        base = _NOT_IN_A_NAME.sub("_", name)[:100] or "input"
        taken = base.startswith(_OUTPUTS)
        self._numbers[base] += 1 + (taken and not self._numbers[base])
        number = self._numbers[base]
        fresh = base if number == 1 else f"{base}.{number}"
        return fresh if fresh not in self.variables else self._fresh(name)
