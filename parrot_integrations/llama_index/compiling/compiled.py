"""What `compile` makes of an object: a copy whose class is the object's own, with one above it."""

import asyncio
import copy
import inspect
import logging
import types
from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any, NamedTuple, TypeVar

from llama_index.core.workflow import Workflow
from pydantic import BaseModel

from parrot_backend.wire.protocol import Objective
from parrot_integrations.llama_index.compiling.explaining import (
    UNEXPLAINED,
    aexplain_of,
    explain_of,
)
from parrot_integrations.llama_index.compiling.observing import observe, observer
from parrot_integrations.llama_index.compiling.remembering import remembering, shallow
from parrot_integrations.llama_index.compiling.run import ShadowedRun
from parrot_integrations.llama_index.compiling.shadow.copies import COMPILED, framework_type
from parrot_integrations.llama_index.compiling.shadow.operations import isolated
from parrot_integrations.llama_index.compiling.shadow.passing import Target
from parrot_integrations.llama_index.compiling.shadow.reading import aused_up, used_up
from parrot_integrations.llama_index.compiling.shadow.variants import BUILT
from parrot_integrations.llama_index.compiling.streams import ending
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import OnSession

logger = logging.getLogger(__name__)

T = TypeVar("T")

ENTRIES = {
    "query": "aquery",
    "synthesize": "asynthesize",
    "run": "arun",
    "process_nodes": "aprocess_nodes",
    "chat": "achat",
    "__call__": "acall",
    "get_response": "aget_response",
    "retrieve": "aretrieve",
    "postprocess_nodes": "apostprocess_nodes",
    "extract": "aextract",
    "stream_chat": "astream_chat",
    "run_multi": "arun_multi",
    "run_with_intermediates": "arun_with_intermediates",
}
"""The methods with which runs begin, and their async forms; what an object has first is explained."""


class Options(NamedTuple):
    """What `compile` was told."""

    objective: Objective | None
    ahead: bool
    on_session: OnSession | None
    pure_retrievers: bool

    def run(self, target: Target | None) -> ShadowedRun:
        """A run that begins with the target."""
        return ShadowedRun(
            target,
            objective=self.objective,
            on_session=self.on_session,
            pure_retrievers=self.pure_retrievers,
        )


Targets = Callable[[Any, Any], Target | None]
"""From a call's arguments to where its shadow begins; to None where it has none."""


class PlannedFunction:
    """A function of the framework's or the user's, whose calls are runs that are planned.

    Inside another run it is a part of that.
    """

    def __init__(self, native: Callable[..., Any], targets: Targets, options: Options) -> None:
        self.native = native
        self.objective = options.objective
        self._targets = targets
        self._options = options
        self._is_async = inspect.iscoroutinefunction(inspect.unwrap(native))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The native call, planned."""
        return self._called(self._options, args, kwargs)

    def plan(self, args: Any, kwargs: Any) -> Plan:
        """See `Explainable`.

        Raises:
            TypeError: a run does not take these arguments.
        """
        inspect.signature(self.native).bind(*args, **kwargs)
        return self._options.run(self._target(args, kwargs)).planned()

    def run(self, on_session: OnSession | None, args: Any, kwargs: Any) -> Any:
        """See `Explainable`."""
        if on_session is None:
            return used_up(self.native(*args, **kwargs))
        return used_up(self._called(self._options._replace(on_session=on_session), args, kwargs))

    async def arun(self, on_session: OnSession | None, args: Any, kwargs: Any) -> Any:
        """See `Explainable`."""
        if not self._is_async:
            return await asyncio.to_thread(self.run, on_session, args, kwargs)
        if on_session is None:
            return await aused_up(await self.native(*args, **kwargs))
        options = self._options._replace(on_session=on_session)
        return await aused_up(await self._called(options, args, kwargs))

    def _called(self, options: Options, args: Any, kwargs: Any) -> Any:
        around = observer.get()
        if (around is not None and not around.over) or not options.ahead:
            return self.native(*args, **kwargs)
        run = options.run(self._target(args, kwargs))
        if self._is_async:
            return self._awaited(run, args, kwargs)
        with ending(run) as keep:
            run.begin()
            with run.active():
                return keep(self.native(*args, **kwargs))

    def _target(self, args: Any, kwargs: Any) -> Target | None:
        try:
            return self._targets(args, kwargs)
        except Exception:  # the run never needs it
            logger.exception("looking for what can be planned failed")
            return None

    async def _awaited(self, run: ShadowedRun, args: Any, kwargs: Any) -> Any:
        with ending(run) as keep:
            await asyncio.to_thread(run.begin)  # packing takes its time
            with run.active():
                return keep(await self.native(*args, **kwargs))


def compiled_object(original: T, options: Options) -> T:
    """A copy of an object, whose runs are planned. The framework takes it for the original."""
    observe()
    made: T = shallow(original)
    vars(made).update({name: remembering(each) for name, each in vars(original).items()})
    object.__setattr__(made, "__class__", _above(framework_type(original), options))
    return made


def compiled_class(kind: type[T], options: Options) -> type[T]:
    """A class whose instances are made in a run that is planned."""
    observe()
    above = _empty_above(kind)
    made = kind.__init__

    def targets(args: Any, kwargs: Any) -> Target | None:
        return Target(kind, "__init__", isolated(args[1:]), isolated(kwargs))

    planned = PlannedFunction(made, targets if kind in BUILT else _nowhere, options)

    @wraps(made)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        planned(self, *args, **kwargs)

    type.__setattr__(above, "__init__", init)
    if kind in BUILT:
        build = PlannedFunction(kind, lambda args, kwargs: targets((None, *args), kwargs), options)
        type.__setattr__(above, "explain", staticmethod(explain_of(build)))
        type.__setattr__(above, "aexplain", staticmethod(aexplain_of(build)))
    return above


def compiled_function(function: Callable[..., T], options: Options) -> Callable[..., T]:
    """A function whose runs are planned as far as they call the framework."""
    observe()
    planned = PlannedFunction(function, _nowhere, options)

    @wraps(function)
    def entry(*args: Any, **kwargs: Any) -> Any:
        return planned(*args, **kwargs)

    @wraps(function)
    async def aentry(*args: Any, **kwargs: Any) -> Any:
        return await planned(*args, **kwargs)

    chosen: Any = aentry if inspect.iscoroutinefunction(function) else entry
    chosen.explain, chosen.aexplain = explain_of(planned), aexplain_of(planned)
    return chosen  # type: ignore[no-any-return]


def _nowhere(args: Any, kwargs: Any) -> None:
    """A function of the user's is not run in the shadow."""


def begins(kind: type) -> tuple[str, str] | None:
    """The method that runs of a class begin with, and its async form; None where it has none."""
    return next((names for names in ENTRIES.items() if _has(kind, names[0])), None)


def _has(kind: type, name: str) -> bool:
    return any(name in vars(base) for base in kind.__mro__)


def _above(kind: type, options: Options) -> type:
    above = _empty_above(kind)
    for names in ENTRIES.items():
        for name in names:
            if _has(kind, name):
                # Behind the class's making, where the framework puts spans around methods.
                type.__setattr__(above, name, _entry(kind, name, options))
    first = begins(kind)
    if issubclass(kind, Workflow):  # whose runs are handlers
        for name in ("explain", "aexplain"):
            type.__setattr__(above, name, UNEXPLAINED)
    elif first is not None:
        name, aname = first

        def explain(self: Any) -> Callable[..., str]:
            return explain_of(_method(self, kind, name, options))

        def aexplain(self: Any) -> Callable[..., Any]:
            return aexplain_of(_method(self, kind, aname, options))

        type.__setattr__(above, "explain", property(explain))
        type.__setattr__(above, "aexplain", property(aexplain))
    return above


def _empty_above(kind: type[Any]) -> type[Any]:
    """A class above another, which spans and events can't tell from it."""
    names = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
    }
    above: type[Any] = types.new_class(
        kind.__name__, (kind,), exec_body=lambda body: body.update(names)
    )
    type.__setattr__(above, COMPILED, kind)
    type.__setattr__(above, "__reduce_ex__", _reduced)
    if not issubclass(kind, BaseModel):  # which has ways of its own to be copied
        type.__setattr__(above, "__copy__", shallow)
        type.__setattr__(above, "__deepcopy__", _deep)
    return above


def _deep(self: Any, memo: dict[int, Any]) -> Any:
    copied = memo[id(self)] = object.__new__(type(self))
    vars(copied).update(copy.deepcopy(vars(self), memo))
    return copied


def _reduced(self: Any, protocol: Any) -> Any:
    """Another process gets the original: its class can be found there, and nobody plans there."""
    original = shallow(self)
    object.__setattr__(original, "__class__", vars(type(self))[COMPILED])
    return _itself, (original,)


def _itself(original: T) -> T:
    return original


def _entry(kind: type, name: str, options: Options) -> Callable[..., Any]:
    native = getattr(kind, name)

    @wraps(native)
    def entry(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _method(self, kind, name, options)(*args, **kwargs)

    @wraps(native)
    async def aentry(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await _method(self, kind, name, options)(*args, **kwargs)

    return aentry if inspect.iscoroutinefunction(inspect.unwrap(native)) else entry


def _method(instance: Any, kind: type, name: str, options: Options) -> PlannedFunction:
    """A method of an object's own class, planned."""

    def targets(args: Any, kwargs: Any) -> Target:
        return Target(instance, name, isolated(args), isolated(kwargs))

    return PlannedFunction(MethodType(getattr(kind, name), instance), targets, options)
