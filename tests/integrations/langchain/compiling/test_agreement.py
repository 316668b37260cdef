"""What a plan says is what the run asks for: of generated chains, every call is claimed."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from parrot_integrations.langchain import ChatParrot
from parrot_integrations.planning.session import PlannedSession
from tests.doubles import ScriptedEngine
from tests.integrations.langchain.compiling import watching
from tests.integrations.langchain.compiling.generated import BINDINGS, build, chains, parts
from tests.integrations.langchain.compiling.watching import Recorder, submitting
from tests.servers import serving

MODES = {
    "invoke": watching.invoke,
    "ainvoke": watching.ainvoke,
    "batch": watching.batch,
    "stream": watching.stream,
}
TEXTS = ["sunny day", "x & y", "moon"]


@pytest.fixture(scope="module")
def llm() -> Iterator[ChatParrot]:
    with serving(ScriptedEngine(lambda prompt: prompt[::-1][:5])) as url:
        yield ChatParrot(base_url=url, temperature=0)


class Agreement:
    """Runs chains as they come; where nothing failed, the plan and the run made the same calls."""

    def __init__(self, llm: ChatParrot) -> None:
        self.llm = llm
        self.checked: Counter[str] = Counter()

    def check(self, description: Any, mode: str, texts: list[str]) -> None:
        recorder, sessions = Recorder(), list[PlannedSession]()
        compiled = submitting(build(description, self.llm), sessions.append)
        value = texts[:2] if mode == "batch" else texts[0]
        try:
            MODES[mode](compiled, value, {"callbacks": [recorder]})
        except Exception:  # as it is natively, which other tests see to
            return
        if any("error" in event[0] for event in recorder.events):
            return  # an attempt that failed leaves its plan, and the next one runs anew
        asked = sum(event[0] == "llm end" for event in recorder.events)
        counts = [session.final for session in sessions if session.final is not None]
        found = [(c.planned, c.claimed, c.unplanned) for c in counts]
        assert found == ([(asked, asked, 0)] if asked else [])
        self.checked.update({mode, *(part[0] for part in parts(description))})


def test_what_is_planned_is_claimed_and_what_runs_was_planned(llm: ChatParrot) -> None:
    agreement = Agreement(llm)
    how = settings(
        max_examples=400,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    drawn = given(chains(), st.sampled_from(sorted(MODES)), st.permutations(TEXTS))
    how(drawn(agreement.check))()
    assert min(agreement.checked[mode] for mode in MODES) >= 30
    assert min(agreement.checked[kind] for kind in (*BINDINGS, "map", "retry", "branch")) >= 5
    assert agreement.checked["read"] >= 30
