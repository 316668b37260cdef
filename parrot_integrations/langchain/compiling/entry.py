"""`compile()`: what plans a runnable, or a graph, as that is."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from langchain_core.runnables.base import RunnableLike, coerce_to_runnable

from parrot_backend.wire.protocol import Objective
from parrot_integrations.langchain.compiling.compiled import CompiledRunnable
from parrot_integrations.langchain.compiling.graphs.found import compiled_graph, is_graph
from parrot_integrations.planning.session import PlannedSession

if TYPE_CHECKING:
    from langgraph.pregel import Pregel

Graph = TypeVar("Graph", bound="Pregel[Any, Any, Any, Any]")
Input = TypeVar("Input")
Output = TypeVar("Output")


@overload
def compile(  # type: ignore[overload-overlap]
    runnable: Graph,
    *,
    objective: Objective | None = None,
    ahead: bool | None = None,
    on_session: Callable[[PlannedSession], None] | None = None,
) -> Graph: ...


@overload
def compile(
    runnable: RunnableLike[Input, Output],
    *,
    objective: Objective | None = None,
    ahead: bool | None = None,
    on_session: Callable[[PlannedSession], None] | None = None,
) -> CompiledRunnable[Input, Output]: ...


def compile(
    runnable: Any,
    *,
    objective: Objective | None = None,
    ahead: bool | None = None,
    on_session: Callable[[PlannedSession], None] | None = None,
) -> Any:
    """Compile a runnable: its LLM calls are planned per input and started before it asks for them.

    Args:
        runnable: any runnable, or what LangChain makes one of: a function, a dict. What can't be
            planned is a graph break and runs as always. A graph of LangGraph stays one: its nodes
            are planned when they start.
        objective: what the reader of the result wants: `latency` or `throughput`; by default what
            the `parrot_session` around a run wants, else `latency`. `ttft` and `tpot` are served
            like `latency` today.
        ahead: whether calls may start before the step that makes them, which they do by default.
            With False nothing is planned: no prompt leaves before the steps in front of it, such as
            a guard that raises, have ended.
        on_session: called with each run's session when it is about to open, for progress and
            inspection. A run has none where nothing is submitted, as calls that are asked for next
            anyway are not.

    Raises:
        TypeError: LangChain makes no runnable of it.
    """
    given = {"objective": objective, "ahead": ahead, "on_session": on_session}
    if is_graph(runnable):
        return compiled_graph(runnable, **given)
    if isinstance(runnable, CompiledRunnable):
        return runnable.model_copy(update={k: v for k, v in given.items() if v is not None})
    return CompiledRunnable(
        bound=coerce_to_runnable(runnable),
        objective=objective,
        ahead=ahead is not False,
        on_session=on_session,
    )
