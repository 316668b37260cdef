"""`compile()`: what plans the runs of an object, a class or a function."""

from collections.abc import Callable
from types import MethodType
from typing import Any, TypeVar, get_args

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.indices.base import BaseIndex

from parrot_backend.wire.protocol import Objective
from parrot_integrations.llama_index.compiling.compiled import (
    Options,
    begins,
    compiled_class,
    compiled_function,
    compiled_object,
)
from parrot_integrations.planning.session import PlannedSession

T = TypeVar("T")

_FRAMEWORK = ("llama_index.", "workflows.")  # a package of its own since it has agents


def compile(
    target: T,
    *,
    objective: Objective | None = None,
    ahead: bool = True,
    on_session: Callable[[PlannedSession], None] | None = None,
    pure_retrievers: bool = False,
) -> T:
    """Compile an object of LlamaIndex's: its LLM calls are planned and started before it makes them.

    Results, events, spans, callbacks and errors are LlamaIndex's own, for its own code runs: a wrong
    prediction costs time, never correctness.

    Args:
        target: a response synthesizer, query engine, chat engine, extractor or `IngestionPipeline`; an
            index class, whose builds are planned (`compile(TreeIndex).from_documents(...)`); a method
            of one of them; or any function, of which that is planned which LlamaIndex does inside. It
            is copied and stays as it is.
        objective: what the reader of the result wants: `latency` or `throughput`; by default what
            the `parrot_session` around a run wants, else `latency`. `ttft` and `tpot` are served like
            `latency` today.
        ahead: whether calls may start before the step that makes them. With False nothing is planned.
        on_session: called with each run's session when it is about to open, for progress and
            inspection. A run has none where nothing is submitted.
        pure_retrievers: whether retrievers may be asked ahead of the run, and so twice. Then the calls
            behind them are planned as well: say so where nobody could notice, as with an index in
            memory.

    Raises:
        TypeError: it is no object, class or function that can be compiled.
        ValueError: there is no such objective.
    """
    if objective is not None and objective not in get_args(Objective):
        raise ValueError(f"objective is {', '.join(get_args(Objective))}, not {objective!r}")
    options = Options(objective, ahead, on_session, pure_retrievers)
    compiled: T = _compiled(target, options)
    return compiled


def _compiled(target: Any, options: Options) -> Any:
    if isinstance(target, MethodType):
        return getattr(_compiled(target.__self__, options), target.__name__)
    if isinstance(target, BaseLLM):
        raise TypeError("an LLM makes one call at a time: compile what calls it")
    if isinstance(target, BaseIndex):
        raise TypeError(
            "an index asks nothing: compile what it gives, as_query_engine(), or its class"
        )
    if isinstance(target, type):
        return compiled_class(target, options)
    if any(kind.__module__.startswith(_FRAMEWORK) for kind in type(target).__mro__):
        if begins(type(target)) is None:
            raise TypeError(
                f"a {type(target).__name__} has no method that asks an LLM to be planned"
            )
        return compiled_object(target, options)
    if callable(target):
        return compiled_function(target, options)
    given: Any = type(target).__name__
    raise TypeError(
        f"compile() takes an object or class of LlamaIndex's or a function, not {given}"
    )
