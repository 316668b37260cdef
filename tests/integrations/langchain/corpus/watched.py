"""A run of an entry, seen from outside: its result, its error, its events."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from langchain_core.runnables import Runnable

from tests.integrations.langchain.compiling import watching
from tests.integrations.langchain.compiling.watching import Recorder, plain
from tests.integrations.langchain.corpus.entry import Entry

MODES: dict[str, Callable[..., Any]] = {
    "invoke": watching.invoke,
    "ainvoke": watching.ainvoke,
    "stream": watching.stream,
    "batch": watching.batch,
    "astream_events": watching.astream_events,
}
_RANDOM = re.compile(
    r"(lc_run-{1,2}|run-{1,2})?[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}"
    r"|(call|chatcmpl|chat|request)[-_/][0-9A-Za-z]+|0x[0-9a-f]+"
)


class WholeRecorder(Recorder):
    """Records what retrievers and tools do as well."""

    def on_retriever_start(self, serialized, query, *, run_id, **kwargs) -> None:
        self._start("retriever", run_id, query, kwargs)

    def on_retriever_end(self, documents, *, run_id, **kwargs) -> None:
        self._note("retriever end", run_id, documents)

    def on_tool_start(self, serialized, input_str, *, run_id, **kwargs) -> None:
        self._start("tool", run_id, input_str, kwargs)

    def on_tool_end(self, output, *, run_id, **kwargs) -> None:
        self._note("tool end", run_id, output)


class Watched:
    """What can be seen of a run, without ids and addresses, which differ from run to run.

    Where steps run side by side, what has no one order is compared without it.
    """

    def __init__(self, chain: Runnable[Any, Any], entry: Entry, mode: str) -> None:
        recorder = WholeRecorder()
        self.result: Any = None
        self.error: Any = None
        try:
            result = _run(chain, entry, mode, recorder)
            self.result = _lasting(result)
            if mode == "stream":  # chunks of what runs side by side come in any order
                self.result = (
                    list(map(_lasting, result)) if entry.ordered else Counter(map(_lasting, result))
                )
        except Exception as error:
            self.error = (type(error), _lasting(str(error)))
        self.events: Any = [_lasting(event) for event in recorder.events]
        if not entry.ordered or mode in ("batch", "astream_events"):
            self.events = Counter(self.events)


def _run(chain: Runnable[Any, Any], entry: Entry, mode: str, recorder: Recorder) -> Any:
    """Two runs where it is a batch, whose errors are results."""
    if mode != "batch":
        return MODES[mode](chain, entry.input, {"callbacks": [recorder], **entry.config(0)})
    configs = [{"callbacks": [recorder], **entry.config(run)} for run in range(2)]
    return watching.batch(chain, [entry.input] * 2, configs, return_exceptions=True)


def _lasting(value: Any) -> str:
    """What of it is the same in every run."""
    return _RANDOM.sub("<random>", repr(plain(value)))
