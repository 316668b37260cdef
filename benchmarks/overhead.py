"""What `compile()` costs, and what it gains, over chains as people write them.

    python benchmarks/overhead.py [--chains NAME ...] [--rounds 20] [--mode invoke] [--retrieval 0]
        [--url URL] [--markdown]

The chains are those of tests/integrations/langchain/corpus, the engine is the tests' scripted one, in
a server process of its own. Each chain runs as it is and compiled, in turn, in one process; a pause
after each run lets what goes on in the background end where it belongs. First the engine answers at
once (`--rounds` pairs): *added* is compiled minus native, in ms per model call, median over the pairs
with its quartiles. Then each call takes 50 ms (a quarter of the rounds): *ratio* is compiled over
native, median with lowest and highest. With `--url`, both are of a backend that runs there, whose
answers may be such that a chain fails; that is part of its run.

Of each chain's calls: *claimed* ones were planned and found, *dependent* ones were dispatched by the
backend when another call ended, with no client in between, *ahead* ones were with the engine 10 ms and
more before the client asked. The last three are those of the second part, median over its runs.

The floor: the median of added is under 1 ms, and no ratio is above 1.10.
"""

import argparse
import asyncio
import warnings
from contextlib import ExitStack
from importlib.metadata import version

from machine import machine
from overhead_rows import Row, print_sums, print_table
from pairs import Measured, Run, measure, runs_in
from scripted import scripted

from parrot_integrations.langchain import ChatParrot
from tests.integrations.langchain.corpus.chains import CORPUS
from tests.integrations.langchain.corpus.parts import Notes

DELAY = 0.05
PACKAGES = ("langchain-core", "langchain", "langchain-classic", "langgraph", "uvicorn", "httpx")


def measured(args: argparse.Namespace, delay: float, rounds: int, run: Run) -> dict[str, Measured]:
    """Each chain at the backend that is named, or at an engine whose calls take `delay` seconds."""
    with ExitStack() as stack:
        url = args.url or stack.enter_context(scripted(delay))
        llm = ChatParrot(base_url=url, temperature=0, max_tokens=32, max_retries=0)
        may_fail = {name for name in args.chains if args.url or CORPUS[name].fails}
        return {
            name: measure(CORPUS[name], llm, run, rounds, name in may_fail) for name in args.chains
        }


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--chains", nargs="+", default=list(CORPUS), choices=list(CORPUS))
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--mode", choices=["invoke", "ainvoke"], default="invoke")
    options.add_argument("--retrieval", type=float, default=0, help="ms that a retriever takes")
    options.add_argument("--url", help="a backend that runs, in place of the scripted engine")
    options.add_argument("--markdown", action="store_true")
    return options.parse_args()


def main() -> None:
    """Measure the chains and print the table."""
    args = _options()
    warnings.simplefilter("ignore")  # LangChain's, of chains that it would have written otherwise
    Notes.delay = args.retrieval / 1000
    print(machine())
    print(", ".join(f"{package} {version(package)}" for package in PACKAGES))
    print(f"{args.mode}, {args.rounds} rounds, retrieval {args.retrieval:g} ms", flush=True)
    with asyncio.Runner() as runner:
        run = runs_in(runner, args.mode)
        at_once = measured(args, 0, args.rounds, run)
        later = at_once if args.url else measured(args, DELAY, max(3, args.rounds // 4), run)
    rows = [Row(name, CORPUS[name].calls, at_once[name], later[name]) for name in args.chains]
    print_table(rows, args.markdown)
    print_sums(rows)


if __name__ == "__main__":
    main()
