"""The ways in which `benchmarks/applications.py` runs a workload, and the engines behind them."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from applications_workloads import Chain, Compile, Workload
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_openai import ChatOpenAI

from parrot_backend import DEFAULT_MODEL
from parrot_integrations.langchain import ChatParrot, compile
from parrot_integrations.planning.session import PlannedSession
from tests.engines_real.starting import Running, vllm
from tests.processes import parrot_serve

TENANTS = 2_000
EMBEDDED = "parrot"


@dataclass(frozen=True, slots=True)
class Servers:
    """The engine, and the Parrot in front of it; `salted` where the engine takes a `cache_salt`."""

    engine: str
    parrot: str
    salted: bool


@dataclass(frozen=True, slots=True)
class Way:
    """The model of a run, told who asks; and whether the chain is compiled."""

    llm: Callable[[Servers, str], BaseChatModel]
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run. Tokens are of prompts, but for those that were written."""

    seconds: float
    text: str
    calls: int
    claimed: int
    dependent: int
    prompt: int
    cached: int
    written: int
    chats: list[float]


def openai(url: str, key: str, **body: Any) -> ChatOpenAI:
    """As its documentation says for a server of one's own."""
    return ChatOpenAI(
        model=DEFAULT_MODEL,
        base_url=f"{url}/v1",
        api_key=key,
        temperature=0,
        frequency_penalty=0,
        timeout=600,
        max_retries=0,
        extra_body=body or None,
    )


def direct(servers: Servers, key: str) -> ChatOpenAI:
    """Straight to the engine; what is cached for others there is kept from it by a salt."""
    return openai(servers.engine, key, **({"cache_salt": key} if servers.salted else {}))


def behind(servers: Servers, key: str) -> ChatOpenAI:
    """The same through Parrot."""
    return openai(servers.parrot, key)


def swapped(servers: Servers, key: str) -> ChatParrot:
    """Ours, with the same settings."""
    return ChatParrot(
        base_url=servers.parrot,
        api_key=key,
        temperature=0,
        frequency_penalty=0,
        timeout=600,
        max_retries=0,
    )


WAYS = {
    "openai": Way(direct),
    "behind": Way(behind),
    "swapped": Way(swapped),
    "compiled": Way(swapped, compiled=True),
}


class Usage(BaseCallbackHandler):
    """Counts answers and tokens, as the model's class tells them."""

    def __init__(self) -> None:
        self.calls = self.prompt = self.cached = self.written = 0

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Hear of an answer."""
        self.calls += 1
        for generation in response.generations[0]:
            if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
                self._add(generation.message)

    def _add(self, message: AIMessage) -> None:
        if usage := message.usage_metadata:
            self.prompt += usage["input_tokens"]
            self.written += usage["output_tokens"]
            self.cached += usage.get("input_token_details", {}).get("cache_read") or 0


class Tenants:
    """Keys of which each is another tenant's: a run with a new one finds nothing cached."""

    def __init__(self) -> None:
        self._numbers = count()

    def write(self, folder: Path) -> str:
        """The file that `parrot serve` reads."""
        path = folder / "keys.json"
        names = [f"run-{number}" for number in range(TENANTS)]
        path.touch(mode=0o600)
        path.write_text(json.dumps({"keys": [{"name": name, "key": name} for name in names]}))
        return str(path)

    def next(self) -> str:
        """One that nobody has used."""
        return f"run-{next(self._numbers)}"


@contextmanager
def servers(engine: str, tenants: Tenants) -> Iterator[Servers]:
    """Those of an engine: `vllm`, one at an address, or `parrot`, which has its own."""
    with tempfile.TemporaryDirectory() as folder:
        keys = ("--api-keys", tenants.write(Path(folder)))
        if engine == EMBEDDED:
            with parrot_serve(*keys) as served:
                yield Servers(served.url, served.url, salted=False)
            return
        with (
            _running(engine) as running,
            parrot_serve("--engine", running.url, *keys) as served,
        ):
            yield Servers(running.url, served.url, salted=True)


def _running(engine: str) -> AbstractContextManager[Running]:
    return vllm() if engine == "vllm" else _at(engine)


@contextmanager
def _at(url: str) -> Iterator[Running]:
    """One that runs already."""
    yield Running(url.rstrip("/").removesuffix("/v1"), os.getpid())


async def run(workload: Workload, way: Way, servers: Servers, key: str) -> Run:
    """Run it once, cold."""
    sessions: list[PlannedSession] = []
    usage, llm = Usage(), way.llm(servers, key)

    def compiled(chain: Chain) -> Chain:
        return compile(chain, on_session=sessions.append)

    prepare: Compile = compiled if way.compiled else lambda chain: chain
    begin = time.perf_counter()
    outcome = await workload.run(llm, prepare, [usage])
    seconds = time.perf_counter() - begin
    views = [session.view() for session in sessions]
    return Run(
        seconds,
        outcome.text,
        usage.calls,
        sum(view.claimed for view in views),
        sum(view.dependent for view in views),
        usage.prompt,
        usage.cached,
        usage.written,
        outcome.chats,
    )
