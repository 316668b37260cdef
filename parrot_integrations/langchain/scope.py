"""What LangChain and LangGraph reveal of a call: its thread, and the siblings that it runs beside."""

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Any
from uuid import uuid4

from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.runnables.config import var_child_runnable_config

from parrot_backend.wire.protocol import CallScope
from parrot_integrations.client.scope import active_scope, wire_name

_THREAD_KEYS = ("thread_id", "session_id", "conversation_id")  # LangSmith's names for a thread
_KNOWN_RUNS = 1024

_GRAPH_RUNTIME = "__pregel_runtime"
"""LangGraph's own key: where there is none, the calls of a graph's run are of no thread."""


def scope_of(run_manager: BaseRunManager | None) -> CallScope:
    """Where the call of a run belongs; nothing of it is seen by callbacks or cache keys.

    What `parrot_session` and `task_group` say goes before what the frameworks reveal. A stream gets
    no run manager from LangChain, but the configuration around it.
    """
    scope = active_scope.get()
    config = var_child_runnable_config.get() or {}
    configurable = config.get("configurable") or {}
    metadata = {**(config.get("metadata") or {}), **(run_manager.metadata if run_manager else {})}
    found = {
        "thread": scope.thread or _thread(metadata, configurable),
        "group": scope.group or _superstep(metadata, configurable) or _branches(run_manager),
    }
    return scope.model_copy(update=found)


def _thread(metadata: Mapping[str, Any], configurable: Mapping[str, Any]) -> str | None:
    """The thread that is named, or else the run of a graph."""
    named = (metadata.get(key) or configurable.get(key) for key in _THREAD_KEYS)
    thread = next((str(name) for name in named if name), None)
    if thread is not None:
        return wire_name(thread)
    control = getattr(configurable.get(_GRAPH_RUNTIME), "control", None)
    return None if control is None else _graph_runs.name(control)


def _superstep(metadata: Mapping[str, Any], configurable: Mapping[str, Any]) -> str | None:
    """The step of a graph whose tasks run side by side, and which ends with the last of them.

    The checkpoint of the outermost graph names it. In graphs that are nodes of it, steps that are at
    the same place are one: those of agents, say, that were sent out together.
    """
    checkpoint = (configurable.get("checkpoint_map") or {}).get("")
    step = metadata.get("langgraph_step")
    if checkpoint is None or step is None:
        return None
    namespace = str(metadata.get("langgraph_checkpoint_ns", "")).split("|")[:-1]
    nodes = [part.partition(":")[0] for part in namespace]
    return wire_name(".".join([str(checkpoint), *nodes, str(step)]))


def _branches(run_manager: BaseRunManager | None) -> str | None:
    """The parallel step that the model is a branch of, with no other step between."""
    if run_manager is None or run_manager.parent_run_id is None:
        return None
    branch = any(tag.startswith("map:key:") for tag in run_manager.tags)
    return str(run_manager.parent_run_id) if branch else None


class _GraphRuns:
    """Names for runs of graphs that name no thread: all their tasks have one object in common."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._names: OrderedDict[int, tuple[object, str]] = OrderedDict()

    def name(self, control: object) -> str:
        """The run's name; the object is kept, so that no other gets its id."""
        with self._lock:
            _, name = self._names.setdefault(id(control), (control, f"run-{uuid4().hex}"))
            self._names.move_to_end(id(control))
            if len(self._names) > _KNOWN_RUNS:
                self._names.popitem(last=False)
            return name


_graph_runs = _GraphRuns()
