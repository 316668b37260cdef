"""Chains that Hypothesis writes do the same compiled and as they are, whatever they are asked for."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from parrot_backend.wire.views import SessionView
from parrot_integrations.langchain import ChatParrot, compile
from parrot_integrations.planning.session import PlannedSession
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling import watching
from tests.integrations.langchain.compiling.generated import Description, build, chains, concurrent
from tests.integrations.langchain.compiling.watching import Recorder, plain, submitting
from tests.servers import serving

TEXTS = ["sunny day", "FAIL now", "x & y", "moon"]


def transform(chain: Any, value: str, config: Any) -> Any:
    return list(chain.transform(iter([value[:2], value[2:]]), config))


SINGLE: dict[str, Callable[..., Any]] = {
    "invoke": watching.invoke,
    "ainvoke": watching.ainvoke,
    "stream": watching.stream,
    "astream": watching.astream,
    "transform": transform,
    "astream_events": watching.astream_events,
}
BATCH: dict[str, Callable[..., Any]] = {
    "batch": watching.batch,
    "batch, exceptions returned": partial(watching.batch, return_exceptions=True),
    "abatch": watching.abatch,
    "abatch, exceptions returned": partial(watching.abatch, return_exceptions=True),
    "batch_as_completed": partial(watching.batch_as_completed, return_exceptions=True),
    "abatch_as_completed": partial(watching.abatch_as_completed, return_exceptions=True),
}
MODES = {**SINGLE, **BATCH}
STREAMS = ("stream", "astream", "transform")


class Seen:
    """A run from outside; `whole`: however its streams are cut into chunks."""

    def __init__(
        self, chain: Any, mode: str, value: Any, concurrency: int | None, whole: bool
    ) -> None:
        recorder = Recorder(whole)
        config: dict[str, Any] = {"callbacks": [recorder]}
        if concurrency:
            config["max_concurrency"] = concurrency
        self.result: Any = None
        self.error: Any = None
        try:
            self.result = plain(MODES[mode](chain, value, config))
            if whole and mode in STREAMS:
                self.result = "".join(self.result)
            if whole and mode == "astream_events":
                self.result = [event for event in self.result if not event[0].endswith("_stream")]
        except Exception as error:
            self.error = (type(error), str(error))
        self.events = recorder.events
        self.failed = bool(self.error) or any("error" in event[0] for event in self.events)


def assert_equal(found: Seen, expected: Seen, mode: str, concurrent: bool) -> None:
    """Where parts run side by side and one fails, which and what the rest do is a matter of time."""
    if concurrent:
        found.error, expected.error = bool(found.error), bool(expected.error)
        found.result, expected.result = _alike(found.result), _alike(expected.result)
    assert found.error == expected.error
    assert found.result == expected.result
    if mode in SINGLE and not concurrent:
        assert found.events == expected.events
    elif not expected.failed:
        assert Counter(found.events) == Counter(expected.events)


def _alike(result: Any) -> Any:
    """Batch results with any error as good as any other."""
    if not isinstance(result, list):
        return result
    return ["failed" if _is_error(item) else item for item in result]


def _is_error(item: Any) -> bool:
    value = item[1] if isinstance(item, list) and len(item) == 2 else item
    return isinstance(value, tuple) and isinstance(value[0], type)


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(lambda prompt: prompt[::-1][:5])) as url:
        yield ChatParrot(base_url=url, temperature=0)


class Comparison:
    """Compares chains as they come, and counts what was compared."""

    def __init__(self, llm: ChatParrot, whole: bool = False) -> None:
        self.llm = llm
        self.whole = whole
        self.chains: set[Description] = set()
        self.modes: Counter[str] = Counter()
        self.sessions: list[PlannedSession] = []
        self.counts: list[SessionView] = []

    def compare(self, chain: Description, mode: str, texts: list[str], most: int | None) -> None:
        self.chains.add(chain)
        self.modes[mode] += 1
        value = texts[0] if mode in SINGLE else texts[:3]
        original = build(chain, self.llm)
        if self.modes.total() % 2:
            compiled = compile(original)
        else:
            compiled = submitting(original, self.sessions.append)
        expected = Seen(original, mode, value, most, self.whole)
        found = Seen(compiled, mode, value, most, self.whole)
        # At once: the backend keeps those of the last sessions only.
        finals = [session.final for session in self.sessions]
        self.sessions.clear()
        self.counts += [final for final in finals if final is not None]
        assert_equal(found, expected, mode, concurrent(chain))

    def run(self, count: int) -> None:
        several = st.permutations(TEXTS)
        drawn = given(
            chains(), st.sampled_from(sorted(MODES)), several, st.sampled_from([None, 1, 2])
        )
        how = settings(
            max_examples=count,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        how(drawn(lambda chain, mode, texts, most: self.compare(chain, mode, texts, most)))()

    def claimed(self) -> float:
        """The share of calls that were planned, and asked for as they were planned."""
        claimed = sum(c.claimed for c in self.counts)
        unplanned = sum(c.unplanned for c in self.counts)
        return claimed / (claimed + unplanned)


# LangChain itself leaves coroutines behind when one of an `abatch` with max_concurrency fails.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def test_generated_chains_do_the_same_compiled(llm: ChatParrot) -> None:
    comparison = Comparison(llm)
    comparison.run(400)
    assert len(comparison.chains) >= 300
    assert min(comparison.modes[mode] for mode in MODES) >= 10
    assert comparison.claimed() > 0.75


@pytest.mark.model
def test_generated_chains_do_the_same_compiled_on_the_real_engine(base_url: str) -> None:
    llm = ChatParrot(base_url=base_url, temperature=0, max_tokens=6)
    Comparison(llm, whole=True).run(12)
