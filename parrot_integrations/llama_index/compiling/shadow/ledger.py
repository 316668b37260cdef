"""`Ledger`: the calls of a run, as they were planned and as they were asked for and answered.

The shadow is run again whenever a run asks for what was not planned. Each time it finds here what was
answered by then, and what is planned already.
"""

import json
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from parrot_backend.wire.parameters import without_neutral
from parrot_integrations.client import ParrotClient
from parrot_integrations.llama_index.compiling.shadow import lengths
from parrot_integrations.llama_index.compiling.shadow.ending import ShadowEnd
from parrot_integrations.llama_index.compiling.shadow.markers import Markers
from parrot_integrations.llama_index.segments import Piece, Rendered, Value
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.values import (
    BreakError,
    Prompt,
    PromptMessage,
    Text,
    Variable,
    concat,
)

_MOST_CALLS = 5000

Key = tuple[Hashable, ...]
"""What a call asks for, all of its text known."""


class _Answer(NamedTuple):
    """An answer, and how many the run had before it."""

    number: int
    text: str


@dataclass(eq=False)
class PlannedCall:
    """A call of the plan; `missing` are the variables of its prompt that are not known yet."""

    variable: str
    prompt: tuple[PromptMessage, ...]
    parameters: str
    missing: set[str]


class Ledger:
    """What was planned, asked for and answered.

    Args:
        plan: takes the calls that are new.

    Attributes:
        answers: how many answers the run has by now.
        awaited: whether the shadow was given an answer to come since it began.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.markers = Markers()
        self._values: dict[str, str] = {}
        self._changes: dict[str, tuple[str, str]] = {}
        self._readers: defaultdict[str, list[PlannedCall]] = defaultdict(list)
        self._waiting: dict[str, PlannedCall] = {}
        self._ready: defaultdict[Key, deque[PlannedCall]] = defaultdict(deque)
        self._asked: defaultdict[Key, deque[PlannedCall | None]] = defaultdict(deque)
        self._answers: defaultdict[Key, list[_Answer]] = defaultdict(list)
        self._objects: defaultdict[Key, list[Any]] = defaultdict(list)
        self._lengths: dict[str, int] = {}
        self._since = 0
        self.answers = 0
        self.awaited = False
        self._met: Counter[Key] = Counter()
        self._by_prompt: dict[Key, deque[PlannedCall]] = {}

    # What the shadow does

    def begin(self, since: int) -> None:
        """The shadow runs, from where the run had so many answers."""
        self._since = since
        self.awaited = False
        self._met.clear()
        self._by_prompt = {}
        for call in self._waiting.values():
            self._by_prompt.setdefault(self._prompt_key(call), deque()).append(call)

    def predicted(self, key: Key, text: str, awaited: Any) -> Any:
        """The object that the run made of an answer; what is awaited where it has not yet."""
        made = self._objects.get(key, ())
        return awaited if self.markers.is_in(text) or not made else made[0]

    def answer(
        self, client: ParrotClient, body: Mapping[str, Any], rendered: Rendered | None = None
    ) -> str:
        """What the call is answered, where it is known by now; else the marker that stands for it.

        Args:
            client: of the backend that is asked.
            body: the request.
            rendered: the pieces of its messages, where they are known.

        Raises:
            ShadowEnd: it can't be planned.
        """
        messages, parameters = _parts(body)
        try:
            prompt = tuple(
                PromptMessage(role, self.markers.read(text, self._changed), other)
                for role, text, other in messages
            )
            marker = self._found(self._known_prompt(prompt), _frozen(parameters))
            if marker is not None:
                return marker
            return self._planned(client, self._with_inputs(prompt, rendered), parameters)
        except BreakError as error:
            raise ShadowEnd("a call", error.reason, error.remedy) from None

    def _found(self, prompt: tuple[PromptMessage, ...], parameters: str) -> str | None:
        key = _key(prompt, parameters)
        met = self._met[key]
        self._met[key] += 1
        answers = self._answers.get(key, [])
        met += bisect_left(answers, (self._since, ""))
        if met < len(answers):
            return answers[met].text
        # Calls that ask for the same are told apart by their order.
        pending = [call for call in self._asked.get(key, ()) if call] + [*self._ready.get(key, ())]
        if met - len(answers) < len(pending):
            return self._marker(pending[met - len(answers)].variable)
        same = self._by_prompt.get(key)
        return self._marker(same.popleft().variable) if same else None

    def _marker(self, variable: str) -> str:
        self.awaited = True
        return self.markers.marker(Variable(variable), self._lengths[variable])

    def _planned(
        self, client: ParrotClient, prompt: tuple[PromptMessage, ...], parameters: Mapping[str, Any]
    ) -> str:
        if self.plan.client is not None and self.plan.client.key != client.key:
            raise ShadowEnd("a call", "goes to another backend than those before it")
        if len(self.plan.calls) >= _MOST_CALLS:
            raise ShadowEnd("the run", f"makes more than {_MOST_CALLS} calls")
        variable = _variable(self.plan.call(Prompt(prompt), parameters).text)
        self.plan.client = client
        missing = {name for name in _variables(prompt) if self._value(name) is None}
        call = PlannedCall(variable.name, prompt, _frozen(parameters), missing)
        for source in {self._source(name) for name in missing}:
            self._readers[source].append(call)
        if missing:
            self._waiting[call.variable] = call
        else:
            self._ready[self._prompt_key(call)].append(call)
        self._lengths[variable.name] = lengths.expected(client.key, parameters.get("max_tokens"))
        return self._marker(variable.name)

    # What the run does

    def asks(self, key: Key) -> bool:
        """Whether a call that the run is about to make is planned."""
        return bool(self._ready.get(key))

    @property
    def expects(self) -> bool:
        """Whether a call is planned that the run could make by now, and has not made."""
        return any(self._ready.values())

    def asked(self, key: Key) -> None:
        """The run makes the call."""
        ready = self._ready.get(key)
        self._asked[key].append(ready.popleft() if ready else None)

    def predicts(self, key: Key, made: Any) -> None:
        """The run made an object of the answer to a call."""
        self._objects[key].append(made)

    def answered(self, key: Key, answer: str) -> None:
        """The run's call was answered."""
        if self.plan.client is not None:
            lengths.learn(self.plan.client.key, answer)
        self._answers[key].append(_Answer(self.answers, answer))
        self.answers += 1
        asked = self._asked.get(key)
        call = asked.popleft() if asked else None
        if call is None:
            return
        self._values[call.variable] = answer
        for reader in self._readers.pop(call.variable, ()):
            reader.missing = {n for n in reader.missing if self._value(n) is None}
            if not reader.missing:
                del self._waiting[reader.variable]
                self._ready[self._prompt_key(reader)].append(reader)

    # Texts

    def _with_inputs(
        self, prompt: tuple[PromptMessage, ...], rendered: Rendered | None
    ) -> tuple[PromptMessage, ...]:
        """A prompt with what its template was filled with as Semantic Variables of their own."""
        pieces = rendered.messages if rendered is not None else ()
        if len(pieces) != len(prompt):
            return prompt
        return tuple(
            replace(message, text=concat(map(self._piece, told))) if told else message
            for message, told in zip(prompt, pieces, strict=True)
        )

    def _piece(self, piece: Piece) -> Text:
        text = piece.text if isinstance(piece, Value) else piece
        if isinstance(piece, str) or not text or self.markers.is_in(text):
            return self.markers.read(text, self._changed)
        given = self.plan.input(piece.name, text)
        self._values[_variable(given).name] = text
        return given

    def _changed(self, operation: str, text: Text) -> Text:
        """A transform of an answer."""
        changed = self.plan.transform(operation, [text])
        self._changes[_variable(changed).name] = operation, _variable(text).name
        return changed

    def _value(self, name: str) -> str | None:
        if name not in self._changes:
            return self._values.get(name)
        operation, source = self._changes[name]
        value = self._values.get(source)
        return None if value is None else str(getattr(value, operation)())

    def _source(self, name: str) -> str:
        return self._changes[name][1] if name in self._changes else name

    def _known(self, text: Text) -> Text:
        """The text with the values of variables that are known by now."""
        pieces: list[str | Variable] = []
        for piece in text.pieces:
            value = self._value(piece.name) if isinstance(piece, Variable) else piece
            if value is None:
                pieces.append(piece)
            elif pieces and isinstance(pieces[-1], str):
                pieces[-1] += value
            else:
                pieces.append(value)
        return Text(tuple(pieces))

    def _prompt_key(self, call: PlannedCall) -> Key:
        return _key(self._known_prompt(call.prompt), call.parameters)

    def _known_prompt(self, prompt: tuple[PromptMessage, ...]) -> tuple[PromptMessage, ...]:
        return tuple(replace(message, text=self._known(message.text)) for message in prompt)


def key_of(body: Mapping[str, Any]) -> Key:
    """What a request asks for."""
    messages, parameters = _parts(body)
    prompt = tuple(PromptMessage(role, Text((text,)), other) for role, text, other in messages)
    return _key(prompt, _frozen(parameters))


def _key(prompt: tuple[PromptMessage, ...], parameters: str) -> Key:
    return parameters, *((m.role, m.text.pieces or ("",), _frozen(m.other)) for m in prompt)


def _variable(text: Text) -> Variable:
    """The variable that a text is."""
    return next(piece for piece in text.pieces if isinstance(piece, Variable))


def _variables(prompt: tuple[PromptMessage, ...]) -> set[str]:
    return {p.name for m in prompt for p in m.text.pieces if isinstance(p, Variable)}


def _frozen(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def _parts(body: Mapping[str, Any]) -> tuple[list[tuple[Any, str, dict[str, Any]]], dict[str, Any]]:
    """A request's messages, as role, text and what else they have, and its parameters."""
    messages = []
    for message in body["messages"]:
        content = message.get("content") or ""
        if not isinstance(content, str):
            content = "".join(part.get("text", "") for part in content)
        other = {name: v for name, v in message.items() if name not in {"role", "content"}}
        messages.append((message["role"], content, other))
    parameters = {name: value for name, value in body.items() if name != "messages"}
    return messages, without_neutral(parameters)
