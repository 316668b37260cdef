"""A chain run as it is and compiled: equal in what can be seen, and what the plan was good for."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from langchain_core.runnables import Runnable

from parrot_integrations.planning.session import PlannedSession
from tests.integrations.langchain.compiling import watching
from tests.integrations.langchain.compiling.watching import Mode, Recorder, plain, submitting

MODES: dict[str, Mode] = {
    "invoke": watching.invoke,
    "ainvoke": watching.ainvoke,
    "stream": watching.stream,
    "astream": watching.astream,
    "batch": watching.batch,
    "abatch": watching.abatch,
    "batch_as_completed": watching.batch_as_completed,
}
STREAMS = ("stream", "astream")
SINGLE = ("invoke", "ainvoke", *STREAMS)


class Claims(NamedTuple):
    """Of one run: calls planned before it began, calls that it made, and those of them claimed."""

    ahead: int
    asked: int
    claimed: int


def claims(
    build: Callable[[], Runnable[Any, Any]],
    value: Any,
    mode: str = "invoke",
    config: Mapping[str, Any] | None = None,
) -> Claims:
    """Both runs give the same, or raise the same, with the same events; a batch has the value twice."""
    sessions: list[PlannedSession] = []
    compiled = submitting(build(), sessions.append)
    values = value if mode in SINGLE else [value] * 2
    ahead = len(compiled.plan(values if mode not in SINGLE else [value], config).calls)
    found, expected = _seen(compiled, mode, values, config), _seen(build(), mode, values, config)
    assert found == expected
    asked = sum(number for event, number in found[2].items() if event[0] == "chat model start")
    counts = [session.final for session in sessions if session.final is not None]
    return Claims(ahead, asked, sum(c.claimed for c in counts))


def _seen(
    chain: Runnable[Any, Any], mode: str, value: Any, config: Mapping[str, Any] | None
) -> tuple[Any, Any, Counter[Any]]:
    recorder = Recorder()
    result = error = None
    try:
        result = MODES[mode](chain, value, {**(config or {}), "callbacks": [recorder]})
    except Exception as raised:
        error = type(raised), str(raised)
    return plain(result), error, Counter(recorder.events)
