"""Query pipelines, which LlamaIndex had before 0.13: its own loop runs in the shadow.

What a component of the framework's gives, its shadow gives. What a function, a condition or a component
of the user's gives, only the run tells: until then it is unknown, and so is all that comes behind it,
while the rest of the graph is planned.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from parrot_integrations.llama_index.compiling.shadow.copies import STANDS, Opaque, ShadowCopies
from parrot_integrations.llama_index.compiling.shadow.ending import ShadowEnd
from parrot_integrations.llama_index.compiling.shadow.given import Given

logger = logging.getLogger(__name__)

_PIPELINES = "llama_index.core.query_pipeline"

pipelines: Any = import_module(_PIPELINES) if find_spec(_PIPELINES) else None
"""The framework's module, None in releases that have no query pipelines."""


class _Unknown:
    """What only the run will tell."""


_UNKNOWN = _Unknown()


class _UnknownOutputs(dict[str, Any]):
    """The outputs of a component, whatever their names."""

    def __init__(self) -> None:
        super().__init__(output=_UNKNOWN)

    def __missing__(self, key: str) -> Any:
        return _UNKNOWN


def shadow_pipeline(original: Any, copies: ShadowCopies) -> Any:
    """A pipeline of shadow components, which the framework's own code runs."""
    shadow = object.__new__(pipelines.QueryPipeline)  # its own __new__ warns that it is deprecated
    dag = original.dag.copy()
    state: dict[str, Any] = {
        "__dict__": {
            **vars(original),
            "dag": dag,
            "module_dict": {
                key: _component(component, dag.in_edges(key, data=True), copies)
                for key, component in original.module_dict.items()
            },
            "partial_dict": copies.of(original.partial_dict),
            "verbose": False,
            "show_progress": False,
        },
        "__pydantic_fields_set__": set(),
        "__pydantic_extra__": None,
        "__pydantic_private__": None,
    }
    for name, value in state.items():
        object.__setattr__(shadow, name, value)
    for *place, edge in original.dag.edges(keys=True, data=True):
        if edge["condition_fn"] is not None or edge["input_fn"] is not None:
            dag.edges[place].update(_functions(edge, copies))
    return shadow


if pipelines is not None:
    STANDS[pipelines.QueryPipeline] = shadow_pipeline


def _functions(edge: Mapping[str, Any], copies: ShadowCopies) -> dict[str, Callable[[Any], Any]]:
    """An edge's functions in the shadow: what the user's ones did, where they were asked."""

    def condition(output: Any) -> bool:
        known = copies.given.delivered(edge, output)
        return known is None or known[0]

    def delivered(output: Any) -> Any:
        known = copies.given.delivered(edge, output)
        if known is None:
            return _UNKNOWN
        return output if edge["input_fn"] is None else copies.of(known[1])

    return {"condition_fn": condition, "input_fn": delivered}


def _component(original: Any, edges: Any, copies: ShadowCopies) -> "_Component":
    shadow = copies.of(original)
    if isinstance(shadow, Opaque):
        return _OpaqueComponent(original, edges, copies)
    return _Component(original, shadow, copies)


class _Component:
    """Stands for a component in the shadow: it gives what is known, and never raises."""

    def __init__(self, original: Any, shadow: Any, copies: ShadowCopies) -> None:
        self._original = original
        self._shadow = shadow
        self._copies = copies

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shadow, name)  # keys, partials

    def set_callback_manager(self, callback_manager: Any) -> None:
        """Nothing: nobody hears of the shadow."""

    def run_component(self, **inputs: Any) -> Mapping[str, Any]:
        """What the component gives, as far as that is known."""
        outputs = None
        if self._can_run(inputs):
            try:
                outputs = self._shadow.run_component(**inputs)
            except (ShadowEnd, Exception) as error:
                self._note(error)
        return self._known(inputs, outputs)

    async def arun_component(self, **inputs: Any) -> Mapping[str, Any]:
        """As `run_component`."""
        outputs = None
        if self._can_run(inputs):
            try:
                outputs = await self._shadow.arun_component(**inputs)
            except (ShadowEnd, Exception) as error:
                self._note(error)
        return self._known(inputs, outputs)

    def _can_run(self, inputs: Mapping[str, Any]) -> bool:
        hands_on = (pipelines.InputComponent, pipelines.QueryPipeline)
        return isinstance(self._shadow, hands_on) or not _has_unknown(inputs)

    def _known(self, inputs: Any, outputs: Any) -> Mapping[str, Any]:
        if outputs is not None and not _has_unknown(outputs):
            return outputs  # type: ignore[no-any-return]
        if (told := self._copies.given.outputs(self._original, inputs)) is not None:
            return {key: self._copies.of(value) for key, value in told.items()}
        return outputs if outputs is not None else _UnknownOutputs()

    def _note(self, error: BaseException) -> None:
        if isinstance(error, ShadowEnd):
            self._copies.ledger.plan.stop(error.stop)
        logger.debug("a component is unknown", exc_info=error)


class _OpaqueComponent(_Component):
    """A component of the user's: not even its keys are asked for."""

    def __init__(self, original: Any, edges: Any, copies: ShadowCopies) -> None:
        super().__init__(original, None, copies)
        for _, _, edge in edges:
            edge["dest_key"] = edge["dest_key"] or _SINGLE
        self.free_req_input_keys = {edge["dest_key"] for _, _, edge in edges}

    def _can_run(self, inputs: Mapping[str, Any]) -> bool:
        return False


_SINGLE = "the only free key"


# The run


class PipelineRun(Protocol):
    """A run that wants to know what components give."""

    given: Given

    def active(self) -> AbstractContextManager[None]:
        """The run goes on inside."""

    def grow(self) -> None:
        """More is known: plan further."""


def watch_pipelines(running: Callable[[], PipelineRun | None]) -> None:
    """Have pipelines tell of themselves, once for the process; `running` gives the run around."""
    if pipelines is None or hasattr(pipelines.QueryPipeline, _WATCHED):
        return
    kind = pipelines.QueryPipeline
    setattr(kind, _WATCHED, True)
    kind.process_component_output = _telling(kind.process_component_output, running)
    kind._arun_multi = _in_context(kind._arun_multi, running)


_WATCHED = "__parrot_watched__"


def _in_context(native: Any, running: Callable[[], PipelineRun | None]) -> Any:
    """What is run in another thread's event loop stays in its run: the framework copies no context."""

    async def inside(run: PipelineRun, result: Awaitable[Any]) -> Any:
        with run.active():
            return await result

    @wraps(native)
    def arun_multi(*args: Any, **kwargs: Any) -> Any:
        result, run = native(*args, **kwargs), running()
        return result if run is None else inside(run, result)

    return arun_multi


def _telling(native: Any, running: Callable[[], PipelineRun | None]) -> Any:
    @wraps(native)
    def process_component_output(
        self: Any, output_dict: Any, module_key: str, run_state: Any
    ) -> None:
        if (run := running()) is None:
            native(self, output_dict, module_key, run_state)
            return
        before = {key: {**each} for key, each in run_state.all_module_inputs.items()}
        over = {*run_state.executed_modules}
        native(self, output_dict, module_key, run_state)
        try:
            news = run.given.gave(self.module_dict[module_key], before[module_key], output_dict)
            leads_on = _tell_of_edges(self, output_dict, module_key, run_state, before, over, run)
            # In an event loop it is planned when the next call is made, for all that is known by then.
            if news and leads_on and asyncio._get_running_loop() is None:
                run.grow()
        except Exception:
            logger.exception("planning failed, running on without it")

    return process_component_output


def _tell_of_edges(
    pipeline: Any,
    output_dict: Any,
    module_key: str,
    run_state: Any,
    before: Mapping[str, Mapping[str, Any]],
    over: set[str],
    run: PipelineRun,
) -> bool:
    """Whether there is an edge at all."""
    edges = pipeline.dag.edges(module_key, data=True)
    for _, dest, edge in edges:
        if dest in over or (edge["condition_fn"] is None and edge["input_fn"] is None):
            continue
        src_key = edge.get("src_key")
        output = next(iter(output_dict.values())) if src_key is None else output_dict[src_key]
        after = run_state.all_module_inputs[dest]
        changed = {
            key for key, value in after.items() if before[dest].get(key, _UNKNOWN) is not value
        }
        key = edge.get("dest_key")
        if key is None:
            named = {each.get("dest_key") for _, _, each in pipeline.dag.in_edges(dest, data=True)}
            key = next(iter(changed - named), None)
        through = key in changed or edge["condition_fn"] is None
        run.given.let(edge, output, through, after.get(key) if through else None)
    return len(edges) > 0


# Values


def _has_unknown(value: Any) -> bool:
    return any(each is _UNKNOWN for each in _leaves(value))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _leaves(each)
    elif type(value) in (list, tuple):
        for each in value:
            yield from _leaves(each)
    else:
        yield value
