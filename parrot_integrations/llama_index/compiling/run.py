"""One run of a compiled object: planned as far as the shadow sees, then further as the run goes on."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import BoundArguments
from typing import Any

from parrot_backend.wire.protocol import Objective
from parrot_integrations.llama_index.compiling.observing import method_of, observer
from parrot_integrations.llama_index.compiling.shadow.copies import (
    ShadowCopies,
    is_framework,
    original_of,
)
from parrot_integrations.llama_index.compiling.shadow.given import Given
from parrot_integrations.llama_index.compiling.shadow.ledger import Key, Ledger, key_of
from parrot_integrations.llama_index.compiling.shadow.llm import has_own_prompts
from parrot_integrations.llama_index.compiling.shadow.operations import OPERATIONS, Operations
from parrot_integrations.llama_index.compiling.shadow.passing import Target, run_shadow
from parrot_integrations.llama_index.models.llm import Parrot
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import OnSession, PlannedRun
from parrot_integrations.planning.values import Break, Unknown

logger = logging.getLogger(__name__)

_CHATS = frozenset({"chat", "achat", "stream_chat", "astream_chat"})
_COMPLETES = frozenset({"complete", "acomplete", "stream_complete", "astream_complete"})
_PREDICTS = frozenset({"structured_predict", "astructured_predict"})
_ENTRIES = frozenset(
    {
        *("synthesize", "asynthesize", "get_response", "aget_response", "query", "aquery"),
        *("__call__", "acall", "process_nodes", "aprocess_nodes", "extract", "aextract"),
        *("run", "arun"),
    }
)
_FRUITLESS = 2
_PATIENT = 8
_FUNCTION = Break(
    "the function",
    "is left to the run",
    "What LlamaIndex does inside is planned when the run comes to it.",
)


@dataclass(eq=False)
class _Origin:
    """Where shadows begin; `fruitless` counts those that did not show what the run asked for."""

    target: Target
    fruitless: int = 0


class ShadowedRun(PlannedRun):
    """A run that is observed.

    When it makes a call that is not planned, the shadow runs again, with what is known by then: from
    the run's own entry, or else from the outermost method of the framework's around the call.

    Args:
        target: the run's entry; None where no shadow can begin there.
        objective, on_session: as in `compile`.
        pure_retrievers: as in `compile`.
    """

    def __init__(
        self,
        target: Target | None,
        *,
        objective: Objective | None,
        on_session: OnSession | None,
        pure_retrievers: bool,
    ) -> None:
        self.plan = Plan()
        super().__init__(self.plan, objective, on_session)
        self._root = _Origin(target) if target is not None else None
        self._pure_retrievers = pure_retrievers
        self._ledger = Ledger(self.plan)
        self._operations = Operations()
        self.given = Given(original_of)
        self._open: dict[str, _Origin] = {}
        self._parents: dict[str, str | None] = {}
        self._calls: dict[str, Key] = {}
        self._predicting: dict[str, Key] = {}
        self._stops: list[Break] = []
        self._packing = 0.0
        self._unforeseen = self._in_vain = 0
        self._lock = threading.RLock()

    def begin(self) -> None:
        """Plan from the entry on."""
        try:
            if self._root is not None:
                self._shadow(self._root)
        except Exception:  # whatever went wrong, the run must not notice
            logger.exception("planning failed, running on without it")

    def planned(self) -> Plan:
        """The plan from the entry on, of which nothing is submitted."""
        if self._root is not None:
            self._pass(self._root.target)
        else:
            self.plan.stop(_FUNCTION)
        return self.plan

    def grow(self) -> None:
        """Plan from the entry on once more: something is known that was not."""
        with self._lock:
            if self._ledger.expects:
                # What is new does not come next: what was planned before it is still to come.
                self.plan.unknowns.setdefault("planned calls", Unknown())
            self.begin()

    @contextmanager
    def active(self) -> Iterator[None]:
        """The run goes on: its requests claim what was planned, and it is observed."""
        token = observer.set(self)
        try:
            with super().active():
                yield
        finally:
            observer.reset(token)

    @property
    def over(self) -> bool:
        """See `Observer`."""
        return self._over

    # What the framework tells

    def entered(
        self, span: str, method: str, instance: Any, arguments: BoundArguments, parent: str | None
    ) -> None:
        """See `Observer`."""
        if self._over:  # tasks that outlive it
            return
        with self._lock:
            self._parents[span] = parent
            if isinstance(instance, Parrot):
                if (key := _key(instance, method, arguments)) is not None:
                    self._asks(span, key)
            elif method in _ENTRIES and is_framework(instance):
                given = arguments.args, arguments.kwargs
                target = Target(instance, method, *given, self._ledger.answers)
                self._open[span] = _Origin(target)

    def answered(self, span: str | None, text: str) -> None:
        """See `Observer`."""
        if self._over:
            return
        with self._lock:
            if span is not None and (key := self._calls.pop(span, None)) is not None:
                self._ledger.answered(key, text)

    def left(self, span: str, method: str, instance: Any, arguments: Any, result: Any) -> None:
        """See `Observer`."""
        with self._lock:
            self._parents.pop(span, None)
            self._open.pop(span, None)
            if result is None or self._over:
                return
            if method in _PREDICTS and isinstance(instance, Parrot):
                if (key := self._predicting.pop(span, None)) is not None:
                    self._ledger.predicts(key, result)
            elif method in OPERATIONS and not is_framework(instance):
                self._operations.gave(instance, method, arguments.arguments.values(), result)

    def _asks(self, span: str, key: Key) -> None:
        if not self._ledger.asks(key) and self._is_worth_it():
            for origin in self._origins(span):
                before = len(self.plan.calls)
                self._shadow(origin)
                fruitful = len(self.plan.calls) > before + 1  # more than what is asked for anyway
                origin.fruitless = 0 if fruitful else origin.fruitless + 1
                self._in_vain = 0 if fruitful else self._in_vain + 1
                if self._ledger.asks(key):
                    break
        self._ledger.asked(key)
        self._calls[span] = key
        if (parent := self._parents.get(span)) is not None and method_of(parent) in _PREDICTS:
            self._predicting[parent] = key

    def _is_worth_it(self) -> bool:
        """Whether a shadow may help; after many in vain, one is tried ever more rarely."""
        self._unforeseen += 1
        every: int = 2 ** min(max(self._in_vain - _PATIENT, 0), 6)
        return self._unforeseen % every == 0

    def _origins(self, span: str) -> list[_Origin]:
        """Where a shadow may begin that shows the call of a span: the outermost first."""
        around: list[_Origin] = []
        at: str | None = span
        while at is not None:
            if at in self._open:
                around.append(self._open[at])
            at = self._parents.get(at)
        if self._root is not None:
            around.append(self._root)
        return [origin for origin in reversed(around) if origin.fruitless < _FRUITLESS]

    def _shadow(self, origin: _Origin) -> None:
        self._pass(origin.target)
        self.settle(())

    def _pass(self, target: Target) -> None:
        """The plan grows by what a shadow of the target shows."""
        # Whoever waits in an event loop must not wait for a retriever.
        may_retrieve = self._pure_retrievers and asyncio._get_running_loop() is None
        copies = ShadowCopies(self._ledger, self._operations, self.given, may_retrieve)
        stop, packing = run_shadow(target, copies)
        if stop is not None and stop not in self._stops:
            self._stops.append(stop)
            self.plan.stop(stop)
        if packing:
            self._packing += packing
            self.plan.note("packing", f"took {self._packing:.2f} s, before the calls were planned")


def _key(llm: Parrot, method: str, arguments: BoundArguments) -> Key | None:
    """What the call asks for; None where it is none, will fail, or the user's code would tell.

    Some spans name its arguments, others only tell their places.
    """
    if method not in _CHATS and (method not in _COMPLETES or has_own_prompts(llm)):
        return None
    names = ("prompt", "formatted") if method in _COMPLETES else ("messages",)
    given = dict(zip(names, arguments.args, strict=False)) | arguments.kwargs
    if method in _COMPLETES:
        messages = llm._user(given.pop("prompt"), given.pop("formatted", False))
    else:
        messages = given.pop("messages")
    try:
        return key_of(llm._body(messages, **given))
    except ValueError:
        return None
