"""What LangChain's own objects do inside a function that is read: messages, documents, steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.base import TextAccessor
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import Runnable
from langchain_core.runnables.utils import AddableDict

from parrot_backend.wire.messages import Role
from parrot_integrations.langchain.compiling.planner import Planner, StepContext, is_known
from parrot_integrations.langchain.compiling.rules.prompts import string_text
from parrot_integrations.planning.reading.kinds import Awaitable, as_known, is_plain, named, need
from parrot_integrations.planning.reading.problems import UnreadableError
from parrot_integrations.planning.values import Answer, PromptMessage, Text, Unknown

_STORED = (Document, AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage)
_ROLES: dict[type[BaseMessage], Role] = {
    HumanMessage: "user",
    AIMessage: "assistant",
    SystemMessage: "system",
}
_TEMPLATES = (ChatPromptTemplate, PromptTemplate)
_CLASSES: tuple[type, ...] = (*_ROLES, *_TEMPLATES, Document, StrOutputParser)
_NEEDS_THE_MESSAGE = "needs the message itself"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The configuration that a function gets; of it the configurable part is known."""

    configurable: Mapping[str, Any]


def normal(value: Any) -> Any:
    """A value as a function sees it: LangChain's dicts and strings as Python's, in new containers."""
    if issubclass(type(value), Unknown):
        return normal(value.value) if value.settled else value
    if type(value) in (dict, AddableDict):
        return {key: normal(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(normal, value))
    return str(value) if type(value) is TextAccessor else value


class Objects:
    """Implements `Framework` for one call of a function.

    The calls of steps are counted, as a reading that had to wait is begun again: those that are
    planned already are found by their number.
    """

    def __init__(self, planner: Planner, context: StepContext) -> None:
        self._planner = planner
        self._context = context
        self._planned = planner.calls_in_functions.setdefault(context.key, {})
        self._number = 0

    def takes(self, value: Any) -> bool:
        """A step that is another one by then is a wrong guess; classes don't change."""
        return issubclass(type(value), Runnable) or any(value is kind for kind in _CLASSES)

    def attribute(self, value: Any, name: str) -> Any:
        """What messages and documents hold."""
        if type(value) in (Answer, PromptMessage):
            if name not in ("content", "text"):
                raise UnreadableError(_NEEDS_THE_MESSAGE)
            return as_known(value.text)
        if type(value) not in _STORED:
            return NotImplemented
        stored = vars(value)
        if name == "text" and type(stored.get("content")) is str:
            return stored["content"]
        if name not in stored:
            raise UnreadableError("is computed by LangChain")
        return normal(stored[name])

    def item(self, value: Any, key: Any) -> Any:
        """What a configuration holds."""
        if type(value) is not RunConfig:
            return NotImplemented
        if key != "configurable":
            raise UnreadableError("is known when the run is there")
        return dict(value.configurable)

    def operation(self, symbol: str, left: Any, right: Any) -> Any:
        """Steps one behind the other."""
        if symbol == "|" and self._is_known_step(left) and self._is_known_step(right):
            return left | right
        return NotImplemented

    def method(
        self, value: Any, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Any:
        """Calls of steps are planned; templates are made and filled."""
        if issubclass(type(value), Runnable) and (found := _CALLS.get(name)) is not None:
            return found(self, value, *_input_and_config(arguments, keywords))
        if type(value) is RunConfig and name == "get" and arguments:
            return self.item(value, arguments[0])
        if type(value) is PromptTemplate and name == "format" and not arguments:
            return as_known(string_text(self._planner.plan, value, need(dict(keywords))))
        if any(value is kind for kind in _TEMPLATES) and name in ("from_template", "from_messages"):
            return _made(getattr(value, name), arguments, keywords)
        return NotImplemented

    def call(self, function: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Messages, documents and parsers are made as LangChain makes them."""
        role = next((role for kind, role in _ROLES.items() if kind is function), None)
        if role is not None:
            return _message(function, role, arguments, keywords)
        if function is StrOutputParser or function is Document:
            return _made(function, arguments, keywords)
        return NotImplemented

    def _is_known_step(self, value: Any) -> bool:
        return issubclass(type(value), Runnable) and is_known(value)

    def _invoked(self, runnable: Any, value: Any, config: Any, kwargs: Any) -> Any:
        context = self._next(config, kwargs)
        return self._once(context, lambda: self._planner.step(runnable, normal(value), context))

    def _batched(self, runnable: Any, values: Any, config: Any, kwargs: Any) -> Any:
        if type(values) is not list:
            raise UnreadableError(f"is a batch of {named(values)}")
        kwargs = {name: value for name, value in kwargs.items() if name != "return_exceptions"}
        context = self._next(config, kwargs)
        return self._once(
            context,
            lambda: [
                self._planner.step(runnable, normal(value), context.element(index))
                for index, value in enumerate(values)
            ],
        )

    def _ainvoked(self, runnable: Any, value: Any, config: Any, kwargs: Any) -> Awaitable:
        return Awaitable(lambda: self._invoked(runnable, value, config, kwargs))

    def _abatched(self, runnable: Any, values: Any, config: Any, kwargs: Any) -> Awaitable:
        return Awaitable(lambda: self._batched(runnable, values, config, kwargs))

    def _next(self, config: Any, kwargs: Mapping[str, Any]) -> StepContext:
        """The context of the next call; a configuration that is passed on is that of the function."""
        if type(config) is dict and "configurable" not in config:
            config = None
        if config is not None and not isinstance(config, RunConfig):
            raise UnreadableError("runs with a configuration of its own")
        self._number += 1
        return self._context.at("calls", self._number, kwargs=kwargs)

    def _once(self, context: StepContext, plan: Callable[[], Any]) -> Any:
        if context.place not in self._planned:
            self._planned[context.place] = plan()
        return normal(self._planned[context.place])


_CALLS: dict[str, Callable[..., Any]] = {
    "invoke": Objects._invoked,
    "ainvoke": Objects._ainvoked,
    "batch": Objects._batched,
    "abatch": Objects._abatched,
}


def _input_and_config(
    arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    """The arguments of `invoke(input, config, **kwargs)`."""
    rest = dict(keywords)
    named_ones = [name for name in ("input", "inputs") if name in rest]
    given = [*arguments, *[rest.pop(name) for name in named_ones[:1]]]
    if "config" in rest:
        given.append(rest.pop("config"))
    if len(given) not in (1, 2):
        raise UnreadableError("raises TypeError")
    return given[0], given[1] if len(given) == 2 else None, rest


def _message(
    kind: Any, role: Role, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> BaseMessage | PromptMessage:
    content = need(arguments[0] if arguments else keywords.get("content"))
    if type(content) is Text and not {*keywords} - {"content"}:
        return PromptMessage(role, content)
    made: BaseMessage = _made(kind, arguments, keywords)
    return made


def _made(kind: Any, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    given = need([*arguments, *keywords.values()])
    if not all(map(is_plain, given)):
        raise UnreadableError("is made of what only the run knows")
    try:
        return kind(*arguments, **keywords)
    except (ValueError, TypeError, KeyError):
        raise UnreadableError("raises an error") from None
