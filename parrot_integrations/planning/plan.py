"""The plan under construction: what the rules of a framework add calls and breaks to."""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from parrot_backend.program.graph import Node, inputs_of
from parrot_backend.wire.messages import SemanticMessage
from parrot_backend.wire.parameters import without_neutral
from parrot_backend.wire.protocol import Objective, Output, Program, SemanticCall
from parrot_backend.wire.transforms import Transform
from parrot_integrations.client import ParrotClient
from parrot_integrations.planning.parts import Parts
from parrot_integrations.planning.provenance import before_calls
from parrot_integrations.planning.values import (
    Answer,
    Break,
    BreakError,
    Prompt,
    Text,
    Unknown,
    Variable,
)

_OUTPUTS = {"join": "joined", "strip": "stripped", "json_field": "field"}
_OTHER_OUTPUT = "changed"
_RESERVED = tuple(f"{name}-" for name in ("answer", *_OUTPUTS.values(), _OTHER_OUTPUT))
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.:\-]")


class Plan:
    """Calls, variables and transforms that a run is predicted to need, and where prediction ended.

    Building it has no side effect. `program()` is all of it; `take()` is what of it is to be
    submitted next, as a plan goes on when values behind graph breaks become known. `client` is of
    the one backend that all calls go to, and `concurrency` says how many calls of a group may run
    at once; `precedes` tells of the keys of two steps, noted in this order, whether the first ends
    before the second begins.
    """

    def __init__(self, precedes: Callable[[Any, Any], bool] = lambda first, second: True) -> None:
        self.client: ParrotClient | None = None
        self.calls: list[SemanticCall] = []
        self.variables: dict[str, str] = {}
        self.transforms: list[Transform] = []
        self.notes: dict[str, str] = {}
        self.unknowns: dict[Hashable, Unknown] = {}
        self.concurrency: dict[str, int] = {}
        self._stops: list[tuple[Break, Unknown | None]] = []
        self._inputs: dict[tuple[str, str], Variable] = {}
        self._transformed: dict[Hashable, Text] = {}
        self._numbers: Counter[str] = Counter()
        self._parts = Parts(self.variables, self.unknowns, precedes)

    @property
    def open(self) -> bool:
        """Whether more can be planned once a value is known."""
        return any(unknown.awaited for unknown in self.unknowns.values())

    def input(self, name: str, value: str) -> Text:
        """The Semantic Variable for an input value; equal values of one name share it.

        Raises:
            BreakError: the value is no valid Unicode.
        """
        check_unicode(value)
        variable = self._inputs.get((name, value))
        if variable is None:
            variable = Variable(self._fresh(name))
            self._inputs[name, value] = variable
            self.variables[variable.name] = value
        return Text((variable,))

    def call(
        self,
        prompt: Prompt,
        parameters: Mapping[str, Any],
        *,
        key: Hashable = None,
        concurrency: Sequence[str] = (),
    ) -> Answer:
        """Plan one LLM call; its answer is a new variable.

        Args:
            prompt: its messages.
            parameters: those of the request that the framework will send, as they go over the wire.
            key: identifies the step that asks for it, as in `unknowns`.
            concurrency: names of the groups that it is in.

        Raises:
            BreakError: the wire does not know one of them, or a text is no valid Unicode.
        """
        number = len(self.calls) + 1
        for message in prompt.messages:
            check_unicode("".join(p for p in message.text.pieces if isinstance(p, str)))
        try:
            messages = [
                SemanticMessage(role=m.role, content=m.text.segments(), **m.other)
                for m in prompt.messages
            ]
            call = SemanticCall(
                id=f"call-{number}",
                messages=messages,
                output=f"answer-{number}",
                concurrency=list(concurrency),
                **without_neutral(dict(parameters)),
            )
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise BreakError(f"the backend does not take '{field}' in a plan") from None
        self.calls.append(call)
        self._parts.add(call, key)
        return Answer(Text((Variable(call.output),)))

    def join(self, texts: Sequence[Text], separator: str) -> Text:
        """The texts joined by a separator, which the backend does itself."""
        return self.transform("join", texts, separator=separator)

    def strip(self, text: Text) -> Text:
        """The text without white space at its ends, which the backend takes off itself."""
        return self.transform("strip", [text])

    def json_field(self, text: Text, path: Sequence[str | int]) -> Text:
        """The string at a path in a JSON text, which the backend reads itself."""
        return self.transform("json_field", [text], path=tuple(path))

    def transform(self, op: str, inputs: Sequence[Text], **details: Hashable) -> Text:
        """What a transform of the wire makes of texts; the same one is planned once.

        Raises:
            BreakError: the backend knows no such transform.
        """
        same = (op, tuple(inputs), tuple(sorted(details.items())))
        if same not in self._transformed:
            output = f"{_OUTPUTS.get(op, _OTHER_OUTPUT)}-{len(self.transforms) + 1}"
            segments = [text.segments() for text in inputs]
            try:
                whole: dict[str, Any] = {"op": op, "inputs": segments, "output": output, **details}
                transform = Transform.model_validate(whole)
            except ValidationError:
                raise BreakError(f"the backend does not take this '{op}' of a text") from None
            self.transforms.append(transform)
            self._parts.add(transform)
            self._transformed[same] = Text((Variable(output),))
        return self._transformed[same]

    @property
    def breaks(self) -> list[Break]:
        """Where prediction ended, but for ends behind which there is no call to be predicted."""
        leading = before_calls(result for _, result in self._stops if result is not None)
        return [stop for stop, result in self._stops if result is None or result in leading]

    def stop(self, stop: Break, result: Unknown | None = None) -> None:
        """Note a graph break; `result` is what planning would have gone on with."""
        output = f"break-{len(self._stops) + 1}"
        if result is not None:
            result.source = output
        self._stops.append((replace(stop, output=output), result))

    def note(self, where: str, text: str) -> None:
        """Note how something came into the plan, for who wants to know."""
        self.notes[where] = text

    def refuse(self, steps: Callable[[Any], bool]) -> None:
        """Submit no more calls of the steps whose keys these are: the run is expected to end before."""
        self._parts.refuse(steps)

    @property
    def held(self) -> list[str]:
        """Ids of the calls that were not submitted, for the client asks for them at once itself."""
        return self._parts.held

    def told(self, key: Hashable, answer: str) -> None:
        """The step that `key` identifies was answered; of use where its call was held back."""
        self._parts.told(key, answer)

    def awaits(self, key: Hashable) -> bool:
        """Whether it is of use to know what the step that `key` identifies was answered."""
        return self._parts.awaits(key)

    def program(self, objective: Objective = "latency") -> Program:
        """All of the plan. The answers that no planned step reads are its outputs."""
        return self._program(self.variables, [*self.transforms, *self.calls], objective)

    def take(self, objective: Objective = "latency") -> Program | None:
        """What is to be submitted next; None where nothing has come that submitting would help."""
        part = self._parts.take()
        return None if part is None else self._program(*part, objective)

    def _program(
        self, variables: Mapping[str, str], nodes: Sequence[Node], objective: Objective
    ) -> Program:
        read = {name for node in nodes for name in inputs_of(node)}
        unread = [node.output for node in nodes if node.output not in read]
        calls = [node for node in nodes if isinstance(node, SemanticCall)]
        # Whoever reads them, the step behind a break or the end of the run, reads all of them.
        group = f"outputs-{calls[0].id}" if len(unread) > 1 and calls else None
        groups = {group for call in calls for group in call.concurrency}
        return Program(
            variables=dict(variables),
            concurrency={
                group: most for group, most in self.concurrency.items() if group in groups
            },
            transforms=[node for node in nodes if isinstance(node, Transform)],
            calls=calls,
            outputs=[Output(variable=v, objective=objective, group=group) for v in unread],
        )

    def _fresh(self, name: str) -> str:
        """A free name made from `name`: itself, then with a number."""
        base = _NOT_IN_A_NAME.sub("_", name)[:100] or "input"
        taken = base.startswith(_RESERVED)
        self._numbers[base] += 1 + (taken and not self._numbers[base])
        number = self._numbers[base]
        fresh = base if number == 1 else f"{base}.{number}"
        return fresh if fresh not in self.variables else self._fresh(name)


def check_unicode(text: str) -> None:
    """Whether a text can go over the wire.

    Raises:
        BreakError: half a surrogate pair is in it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BreakError(f"gets a text that is no valid Unicode: {error.reason}") from None
