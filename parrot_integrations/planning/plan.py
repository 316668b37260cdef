"""The plan under construction: what the rules of a framework add calls and breaks to."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from parrot_backend.protocol import (
    Objective,
    Output,
    Program,
    SemanticCall,
    SemanticMessage,
    Transform,
    VariableSegment,
)
from parrot_integrations.planning.values import (
    UNKNOWN,
    Answer,
    Break,
    Prompt,
    Text,
    Unknown,
    Variable,
)

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.:\-]")


class Plan:
    """Calls, variables and transforms that a run is predicted to need, and where prediction ended.

    Building it has no side effect; `program()` is what is submitted.
    """

    def __init__(self) -> None:
        self.calls: list[SemanticCall] = []
        self.variables: dict[str, str] = {}
        self.transforms: list[Transform] = []
        self.breaks: list[Break] = []
        self._inputs: dict[tuple[str, str], Variable] = {}

    def input(self, name: str, value: str) -> Text:
        """The Semantic Variable for an input value; equal values of one name share it."""
        variable = self._inputs.get((name, value))
        if variable is None:
            variable = Variable(self._fresh(name))
            self._inputs[name, value] = variable
            self.variables[variable.name] = value
        return Text((variable,))

    def call(self, prompt: Prompt, parameters: Mapping[str, Any], where: str) -> Answer | Unknown:
        """Plan one LLM call; its answer is a new variable.

        `parameters` are those of the request that the framework will send, as they go over the wire.
        What the wire does not know is a graph break.
        """
        number = len(self.calls) + 1
        messages = [
            SemanticMessage(role=m.role, content=m.text.segments(), name=m.name)
            for m in prompt.messages
        ]
        try:
            call = SemanticCall(
                id=f"call-{number}", messages=messages, output=f"answer-{number}", **parameters
            )
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            return self.stop(where, f"the backend does not take '{field}' in a plan")
        self.calls.append(call)
        return Answer(Text((Variable(call.output),)))

    def join(self, texts: Sequence[Text], separator: str) -> Text:
        """The texts joined by a separator, which the backend does itself."""
        output = f"joined-{len(self.transforms) + 1}"
        inputs = [text.segments() for text in texts]
        self.transforms.append(Transform(inputs=inputs, separator=separator, output=output))
        return Text((Variable(output),))

    def stop(self, where: str, reason: str, remedy: str = "") -> Unknown:
        """Note a graph break: from here on this edge is unknown."""
        self.breaks.append(Break(where, reason, remedy))
        return UNKNOWN

    def program(self, objective: Objective = "latency") -> Program:
        """What to submit. The answers that no planned step reads are its outputs."""
        texts = [m.content for call in self.calls for m in call.messages]
        texts += [text for transform in self.transforms for text in transform.inputs]
        read = {s.name for text in texts for s in text if isinstance(s, VariableSegment)}
        return Program(
            variables=dict(self.variables),
            transforms=self.transforms,
            calls=self.calls,
            outputs=[
                Output(variable=call.output, objective=objective)
                for call in self.calls
                if call.output not in read
            ],
        )

    def _fresh(self, name: str) -> str:
        base = _NOT_IN_A_NAME.sub("_", name)[:100] or "input"
        if base not in self.variables and not base.startswith(("answer-", "joined-")):
            return base
        number = 2
        while f"{base}.{number}" in self.variables:
            number += 1
        return f"{base}.{number}"
