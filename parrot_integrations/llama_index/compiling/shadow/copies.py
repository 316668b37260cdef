"""Copies of the user's objects for the shadow, in which what is not the framework's ends it."""

import copy
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle, TransformComponent
from llama_index.core.utilities.token_counting import TokenCounter
from pydantic import BaseModel

from parrot_integrations.llama_index.compiling.shadow.ending import ShadowEnd
from parrot_integrations.llama_index.compiling.shadow.given import Given
from parrot_integrations.llama_index.compiling.shadow.ledger import Ledger
from parrot_integrations.llama_index.compiling.shadow.llm import shadow_of
from parrot_integrations.llama_index.compiling.shadow.operations import (
    OPERATIONS,
    Operations,
    isolated,
)
from parrot_integrations.llama_index.compiling.shadow.packing import RememberingHelper
from parrot_integrations.llama_index.compiling.shadow.reasons import not_run
from parrot_integrations.llama_index.compiling.shadow.variants import RUN
from parrot_integrations.llama_index.models.llm import Parrot

_CORE = "llama_index.core."
_DATA = (_CORE + "schema", _CORE + "base.llms.types")
_RUNS = tuple(
    _CORE + room
    for room in (
        "base.base_query_engine",
        "base.base_selector",
        "base.llms.types",
        "base.query_pipeline",
        "base.response",
        "extractors",
        "indices.common_tree",
        "indices.prompt_helper",
        "indices.query.query_transform",
        "ingestion.pipeline",
        "llms.llm",
        "llms.structured_llm",
        "output_parsers",
        "prompts",
        "query_engine",
        "query_pipeline",
        "question_gen",
        "response_synthesizers",
        "schema",
        "selectors",
        "tools.query_engine",
        "tools.types",
        "types",
    )
)
"""The framework's rooms whose code only makes prompts, asks, and puts answers together."""

_DOES_NOT_RUN = _CORE + "selectors.pydantic_selectors"
"""It reads tool calls, which only the run has."""

_QUIET = {"verbose", "_verbose", "show_progress", "_show_progress"}
_PLAIN = frozenset({str, int, float, bool, bytes, complex, type(None)})
_SHARED = (type, Enum, TokenCounter)
COMPILED = "__parrot_compiled__"
"""Attribute of classes that `compile` makes: the class above which they stand."""


def framework_type(value: Any) -> type:
    """The class of an object, for one that was compiled that of the original."""
    kind = type(value)
    return vars(kind).get(COMPILED, kind)  # type: ignore[no-any-return]


def is_framework(value: Any) -> bool:
    """Whether the shadow may run an object's code: it is exactly of a class of the framework's."""
    module = framework_type(value).__module__
    return module.startswith(_RUNS) and not module.startswith(_DOES_NOT_RUN)


class ShadowCopies:
    """Makes the copies of one pass; the same object has the same copy.

    Args:
        ledger: plans what LLMs are asked.
        operations: what the run has told.
        given: what the run's components have given.
        pure_retrievers: whether retrievers may be asked ahead of the run.
    """

    def __init__(
        self, ledger: Ledger, operations: Operations, given: Given, pure_retrievers: bool
    ) -> None:
        self.ledger = ledger
        self.operations = operations
        self.given = given
        self.pure_retrievers = pure_retrievers
        self._callbacks = CallbackManager()
        # With the originals, whose ids must stay theirs.
        self._copies: dict[int, tuple[Any, Any]] = {}

    def of(self, value: Any) -> Any:
        """The copy of an object, or what stands for it."""
        if type(value) in _PLAIN or isinstance(value, _SHARED):
            return value
        if id(value) not in self._copies:
            self._copies[id(value)] = value, self._copied(value)
        return self._copies[id(value)][1]

    def _copied(self, value: Any) -> Any:
        kind = framework_type(value)
        if kind in (list, tuple, set, frozenset):
            return kind(map(self.of, value))
        if kind is dict:
            return {self.of(key): self.of(item) for key, item in value.items()}
        if kind is Parrot:
            return shadow_of(value, self.ledger)
        if (stands := STANDS.get(kind)) is not None:
            return stands(value, self)
        if kind is MethodType and _is_core(value.__func__):
            return MethodType(value.__func__, self.of(value.__self__))
        if kind is partial:
            return partial(
                self.of(value.func), *map(self.of, value.args), **self.of(value.keywords)
            )
        if kind is FunctionType and _is_core(value):
            return value
        if kind is RememberingHelper:
            return value
        if kind is NodeWithScore:
            return value.model_copy(update={"node": self.of(value.node)})
        if kind.__module__.startswith(_DATA):
            copied = isolated(value)
            if isinstance(value, BaseNode):
                copied.metadata = self.of(copied.metadata)
            return copied
        if isinstance(value, CallbackManager):
            return self._callbacks
        if is_framework(value):
            return self._instance(value, kind)
        return Opaque(value, self)

    def _instance(self, value: Any, kind: type) -> Any:
        copied: Any = copy.copy(value) if isinstance(value, BaseModel) else object.__new__(kind)
        object.__setattr__(copied, "__class__", RUN.get(kind, kind))
        self._copies[id(value)] = value, copied  # for what refers to it
        stores = [(vars(value), vars(copied))]
        if private := getattr(value, "__pydantic_private__", None):
            object.__setattr__(copied, "__pydantic_private__", {})
            stores.append((private, copied.__pydantic_private__))
        for held, store in stores:
            for name, each in held.items():
                store[name] = False if name in _QUIET else self.of(each)
        if isinstance(value, TransformComponent):
            vars(copied)["to_dict"] = value.to_dict  # a cache knows the original by it
        return copied


def _is_core(function: Any) -> bool:
    """Whether a function is the framework's, whatever it says of itself."""
    return str(getattr(function, "__globals__", {}).get("__name__")).startswith(_CORE)


class Opaque:
    """Stands for what the shadow does not run. What an operation of it gave is given again."""

    def __init__(self, original: Any, copies: ShadowCopies) -> None:
        object.__setattr__(self, "_parrot", (original, copies))

    def __getattribute__(self, name: str) -> Any:
        original, copies = object.__getattribute__(self, "_parrot")
        if name == "__class__":  # for isinstance
            return type(original)
        if name in OPERATIONS:
            return _operation(original, copies, name)
        if name == "to_dict" and type(original).__module__.startswith(_CORE):
            return original.to_dict  # caches ask for it
        raise _ends(original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The operation of transformations, and any call of a function."""
        original, copies = object.__getattribute__(self, "_parrot")
        return _operation(original, copies, "__call__")(*args, **kwargs)

    def __str__(self) -> str:
        raise _ends(object.__getattribute__(self, "_parrot")[0])

    def __iter__(self) -> Iterator[Any]:
        raise _ends(object.__getattribute__(self, "_parrot")[0])

    __repr__ = __str__

    def __bool__(self) -> bool:
        original, _ = object.__getattribute__(self, "_parrot")
        if hasattr(type(original), "__bool__") or hasattr(type(original), "__len__"):
            raise _ends(original)
        return True


def original_of(value: Any) -> Any:
    """The object that stands in the shadow as this one; itself, where it is of the run's."""
    return object.__getattribute__(value, "_parrot")[0] if type(value) is Opaque else value


def _ends(original: Any) -> ShadowEnd:
    return not_run(original, framework_type(original))


def _operation(original: Any, copies: ShadowCopies, name: str) -> Callable[..., Any]:
    """A method that gives what the original's gave."""

    def result(*args: Any, **kwargs: Any) -> Any:
        arguments = [*args, *kwargs.values()]
        try:
            return copies.of(copies.operations.of(original, name, arguments))
        except KeyError:
            if not copies.pure_retrievers or not isinstance(original, BaseRetriever):
                raise _ends(original) from None
        nodes = _retrieved(original, copies, arguments[0])
        copies.operations.gave(original, name, arguments, nodes)
        return copies.of(isolated(nodes))

    async def aresult(*args: Any, **kwargs: Any) -> Any:
        return result(*args, **kwargs)

    return aresult if name.startswith("a") else result


def _retrieved(retriever: BaseRetriever, copies: ShadowCopies, query: Any) -> Any:
    text = query.query_str if isinstance(query, QueryBundle) else query
    if copies.ledger.markers.is_in(text) or any(
        isinstance(v, LLM) for v in vars(retriever).values()
    ):
        raise _ends(retriever)
    try:
        return retriever.retrieve(query)
    except Exception as error:
        raise ShadowEnd(type(retriever).__qualname__, f"raises {type(error).__name__}") from None


STANDS: dict[type, Callable[[Any, ShadowCopies], Any]] = {}
"""What makes that which stands in the shadow for objects of a class whose own code would not do."""
