"""The ways in which `benchmarks/llama_index.py` runs a workload."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from llama_index.core.indices.prompt_helper import PromptHelper
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMCompletionEndEvent
from llama_index.core.llms import LLM
from llama_index.llms.openai_like import OpenAILike
from llama_index_workloads import Workload

from parrot_integrations.llama_index import Parrot, compile
from parrot_integrations.planning.session import PlannedSession
from tests.processes import Served, parrot_serve


@dataclass(frozen=True, slots=True)
class Way:
    """An LLM's class, whether the framework does at once what it can, and whether it is compiled."""

    llm: Callable[..., LLM]
    by_itself: bool = False
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run. Tokens are of prompts, packing is in seconds."""

    seconds: float
    text: str
    calls: int
    claimed: int
    dependent: int
    ahead: int
    computed: int
    shared: int
    packing: float


# OpenAI's async clients, once nobody has them, close their sockets by number, at a time when other
# clients may have these numbers: such a request then waits for an answer that nobody reads.
_KEPT: list[LLM] = []


def openai_like(url: str, context_window: int, max_tokens: int, **fields: Any) -> LLM:
    """As its documentation says for a server of one's own."""
    llm = OpenAILike(
        model="smollm2-135m-instruct",
        api_base=f"{url}/v1",
        api_key="none",
        is_chat_model=True,
        temperature=0,
        context_window=context_window,
        max_tokens=max_tokens,
        timeout=600,
        additional_kwargs=fields,
    )
    _KEPT.append(llm)
    return llm


def parrot(url: str, context_window: int, max_tokens: int, **fields: Any) -> LLM:
    """Ours, with the same settings."""
    return Parrot(
        base_url=url,
        temperature=0,
        context_window=context_window,
        max_tokens=max_tokens,
        additional_kwargs=fields,
    )


WAYS = {
    "openai": Way(openai_like),
    "openai-async": Way(openai_like, by_itself=True),
    "parrot": Way(parrot),
    "parrot-async": Way(parrot, by_itself=True),
    "compiled": Way(parrot, compiled=True),
}


class Answers(BaseEventHandler):
    """Counts the model's answers."""

    count: int = 0

    @classmethod
    def class_name(cls) -> str:
        """Its name."""
        return "Answers"

    def handle(self, event: Any, **_: Any) -> None:
        """Hear of an event."""
        self.count += isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent)


class Packing:
    """Seconds that prompts were cut to size, of which there may be several at once."""

    seconds = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure it in here."""
        originals = {name: getattr(PromptHelper, name) for name in ("repack", "truncate")}
        for name, original in originals.items():
            setattr(PromptHelper, name, self._timed(original))
        try:
            yield
        finally:
            for name, original in originals.items():
                setattr(PromptHelper, name, original)

    def _timed(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begin

        return timed


def run(workload: Workload, way: Way, server: list[str]) -> Run:
    """Run it on a server that was just started and has answered one other question."""
    with parrot_serve(*server) as served:
        parrot(served.url, 2_048, 4).complete("Say hello.")
        return _run(workload, way, served)


def _run(workload: Workload, way: Way, served: Served) -> Run:
    sessions: list[PlannedSession] = []
    answers, packing = Answers(), Packing()
    dispatcher = get_dispatcher()
    built = workload.build(partial(way.llm, served.url), way.by_itself)
    before = served.stats()
    dispatcher.add_event_handler(answers)
    try:
        with packing.measured():
            begin = time.perf_counter()
            if way.compiled:
                built = compile(built, on_session=sessions.append, **workload.compiling)
            text = workload.run(built, way.by_itself)
            seconds = time.perf_counter() - begin
    finally:
        dispatcher.event_handlers.remove(answers)
    after, views = served.stats(), [session.view() for session in sessions]
    return Run(
        seconds,
        text,
        answers.count,
        sum(view.claimed for view in views),
        sum(view.dependent for view in views),
        sum(view.ahead for view in views),
        after["tokens_prefilled"] - before["tokens_prefilled"],
        after["tokens_shared"] - before["tokens_shared"],
        packing.seconds,
    )
