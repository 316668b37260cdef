"""What can be seen of a run from outside: its events, its result, its error."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable

from parrot_integrations.langchain import compile
from parrot_integrations.langchain.compiling.compiled import CompiledRunnable
from parrot_integrations.langchain.compiling.planner import RULES, rule
from parrot_integrations.planning.plan import Plan
from parrot_integrations.planning.session import PlannedSession

_OF_ONE_ANSWER = {"id", "token_usage"}


class SubmittingAll(CompiledRunnable[Any, Any]):
    """A compiled runnable that submits each planned call, also one that starts no earlier by it."""

    def plan(self, inputs: Sequence[Any], config: Any = None, kwargs: Any = None) -> Plan:
        plan = super().plan(inputs, config, kwargs)
        plan._parts._comes_next = lambda call: False
        return plan


rule(SubmittingAll)(RULES[CompiledRunnable])


def submitting(chain: Any, on_session: Callable[[PlannedSession], None]) -> Any:
    """The chain compiled so that each planned call is submitted, for the session to tell of it."""
    compiled = compile(chain, on_session=on_session)
    return SubmittingAll(**{name: getattr(compiled, name) for name in type(compiled).model_fields})


def plain(value: Any) -> Any:
    """A value without what differs from run to run: ids, what was cached, the order of branches."""
    if isinstance(value, BaseMessage):
        told = {k: v for k, v in value.response_metadata.items() if k not in _OF_ONE_ANSWER}
        return (type(value), value.content, told)
    if isinstance(value, PromptValue):
        return [plain(message) for message in value.to_messages()]
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return (type(value), str(value)) if isinstance(value, Exception) else value


class Recorder(BaseCallbackHandler):
    """Every event as (type, name, names of its parents, tags, value).

    With `whole`, the tokens of a run are one event: how an engine cuts its text is a matter of time.
    """

    def __init__(self, whole: bool = False) -> None:
        self._whole = whole
        self._tokens: defaultdict[UUID, str] = defaultdict(str)
        self.events: list[tuple[str, str, tuple[str, ...], str, str]] = []
        self._runs: dict[UUID, tuple[tuple[str, ...], str]] = {}
        self._lock = threading.Lock()

    def _start(self, kind: str, run_id: UUID, inputs: Any, kwargs: dict[str, Any]) -> None:
        with self._lock:
            above, _ = self._runs.get(kwargs["parent_run_id"], ((), ""))
            tags = ",".join(sorted(kwargs.get("tags") or []))
            self._runs[run_id] = ((*above, kwargs["name"]), tags)
            self.events.append((f"{kind} start", kwargs["name"], above, tags, repr(plain(inputs))))

    def _note(self, kind: str, run_id: UUID, value: Any) -> None:
        with self._lock:
            (*above, name), tags = self._runs[run_id]
            self.events.append((kind, name, tuple(above), tags, repr(plain(value))))

    def on_chain_start(self, serialized, inputs, *, run_id, **kwargs) -> None:
        self._start(kwargs.get("run_type") or "chain", run_id, inputs, kwargs)

    def on_chat_model_start(self, serialized, messages, *, run_id, **kwargs) -> None:
        self._start("chat model", run_id, messages, kwargs)

    def on_llm_new_token(self, token, *, run_id, **kwargs) -> None:
        if self._whole:
            self._tokens[run_id] += token
        else:
            self._note("token", run_id, token)

    def on_chain_end(self, outputs, *, run_id, **kwargs) -> None:
        self._note("chain end", run_id, outputs)

    def on_llm_end(self, response, *, run_id, **kwargs) -> None:
        text = response.generations[0][0].text
        self._note("llm end", run_id, (text, self._tokens.pop(run_id, "")))

    def on_chain_error(self, error, *, run_id, **kwargs) -> None:
        self._note("chain error", run_id, error)

    def on_llm_error(self, error, *, run_id, **kwargs) -> None:
        self._note("llm error", run_id, error)


Mode = Callable[..., Any]


def invoke(chain: Runnable, value: Any, config: Any) -> Any:
    return chain.invoke(value, config)


def ainvoke(chain: Runnable, value: Any, config: Any) -> Any:
    return asyncio.run(chain.ainvoke(value, config))


def stream(chain: Runnable, value: Any, config: Any) -> Any:
    return list(chain.stream(value, config))


def astream(chain: Runnable, value: Any, config: Any) -> Any:
    return asyncio.run(_collect(lambda: chain.astream(value, config)))


def astream_events(chain: Runnable, value: Any, config: Any) -> Any:
    events = asyncio.run(_collect(lambda: chain.astream_events(value, config, version="v2")))
    return sorted((e["event"], e["name"], len(e["parent_ids"]), sorted(e["tags"])) for e in events)


async def _collect(start: Callable[[], Any]) -> list[Any]:
    return [item async for item in start()]


def batch(chain: Runnable, values: list[Any], config: Any, **options: Any) -> Any:
    return chain.batch(values, config, **options)


def abatch(chain: Runnable, values: list[Any], config: Any, **options: Any) -> Any:
    return asyncio.run(chain.abatch(values, config, **options))


def batch_as_completed(chain: Runnable, values: list[Any], config: Any, **options: Any) -> Any:
    return sorted(chain.batch_as_completed(values, config, **options), key=lambda pair: pair[0])


def abatch_as_completed(chain: Runnable, values: list[Any], config: Any, **options: Any) -> Any:
    found = asyncio.run(_collect(lambda: chain.abatch_as_completed(values, config, **options)))
    return sorted(found, key=lambda pair: pair[0])
