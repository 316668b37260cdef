"""LangChain applications on an engine that people have: straight to it, and through Parrot.

    python benchmarks/applications.py [--engine vllm] [--vllm PATH] [--rounds 3] [--quick]
        [--workloads map-reduce ...] [--ways openai ...] [--markdown]

The engine is `vllm`, started for CPUs in float32 with prefix caching (`--vllm` or PARROT_VLLM names
an environment that has it); or the address of a vLLM that runs already, with prefix caching and
`--enable-prompt-tokens-details`; or `parrot`, our own engine. In front of it runs `parrot serve
--engine URL`; our own is in its server.

The workloads: *map-reduce* is the cookbook's chain over eight parts, *questions* are eight over one
document, *refine* carries a summary through ten pieces, *agents* write, review and revise four
sections, *chat* is the map-reduce with somebody who chats meanwhile. *plain* is twelve calls one
after another that share nothing: the worst case. All are run by `ainvoke`, where LangChain does at
once what it can.

The ways: *openai* is `ChatOpenAI` straight to the engine; *swapped* is `ChatParrot` through Parrot,
and *compiled* is `compile()` of that. *behind* is `ChatOpenAI` through Parrot, for who changes
nothing else.

Each run is cold, and asks the same: straight to vLLM it has a `cache_salt` that no other has,
through Parrot it is another tenant's, which has a salt of its own there. The ways take turns, and
another one begins in each round. Temperature is 0; whether all ways gave the same text is told.
Printed are seconds, median with lowest and highest, *openai* over each way in the same round (above
1 the way is faster), calls, claimed and dependent ones, and tokens as the model's class tells them,
of the last round; for *chat* the mean seconds of a chat.

The floor: no way through Parrot takes longer than *openai* by more than 3 % and 2 ms a call.
"""

import argparse
import asyncio
import os
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from applications_ways import WAYS, Run, Servers, Tenants, run, servers
from applications_workloads import WORKLOADS, Size
from machine import machine
from tables import print_table, spread

PACKAGES = ("langchain-core", "langchain-openai", "openai", "uvicorn", "httpx")
DEFAULT = "openai"
PART, PER_CALL = 0.03, 0.002
HEADS = (
    "seconds", f"{DEFAULT} over it", "calls", "claimed", "dependent", "computed", "cached",
    "written", "chat, s",
)  # fmt: skip


def ratios(slow: list[Run], fast: list[Run]) -> list[float]:
    """One way's time over another's, of each round."""
    return [one.seconds / other.seconds for one, other in zip(slow, fast, strict=True)]


def cells(runs: list[Run], defaults: list[Run] | None) -> list[str]:
    """One way's row, under `HEADS`."""
    last = runs[-1]
    chats = [statistics.fmean(each.chats) for each in runs if each.chats]
    return [
        spread([each.seconds for each in runs]),
        spread(ratios(defaults, runs)) if defaults else "",
        *map(str, (last.calls, last.claimed, last.dependent)),
        *map(str, (last.prompt - last.cached, last.cached, last.written)),
        spread(chats) if chats else "",
    ]


def print_sums(runs: dict[str, list[Run]]) -> None:
    """Whether all gave the same, and how each way stands beside the floor."""
    texts = {each.text for mine in runs.values() for each in mine}
    print("the same text by all" if len(texts) == 1 else f"{len(texts)} DIFFERENT TEXTS")
    for way, mine in runs.items():
        if way != DEFAULT and DEFAULT in runs:
            over = statistics.median(
                each.seconds - base.seconds * (1 + PART) - base.calls * PER_CALL
                for each, base in zip(mine, runs[DEFAULT], strict=True)
            )
            print(f"{way}: {'the floor is kept' if over <= 0 else f'{over:.2f} s OVER the floor'}")
    sys.stdout.flush()


class Where:
    """Servers, the tenants that ask there, and the event loop that all runs share."""

    def __init__(self, servers: Servers, tenants: Tenants, runner: asyncio.Runner) -> None:
        self._servers, self._tenants, self._runner = servers, tenants, runner

    def run(self, name: str, size: Size, way: str) -> Run:
        """One run, by somebody new."""
        workload = WORKLOADS[name](size)
        return self._runner.run(run(workload, WAYS[way], self._servers, self._tenants.next()))


def measured(name: str, size: Size, args: argparse.Namespace, where: Where) -> None:
    """Run one workload in all ways, in turn, and print what came of it."""
    runs: dict[str, list[Run]] = {way: [] for way in args.ways}
    for number in range(args.rounds):
        first = number % len(args.ways)
        for way in args.ways[first:] + args.ways[:first]:
            runs[way].append(where.run(name, size, way))
            print(f"round {number + 1}, {name}, {way}: done", file=sys.stderr, flush=True)
    print(f"\n{name}: {WORKLOADS[name].__doc__}\n")
    rows = {way: cells(mine, runs.get(DEFAULT)) for way, mine in runs.items()}
    print_table(HEADS, rows, markdown=args.markdown)
    print()
    print_sums(runs)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--engine", default="vllm", metavar="vllm|parrot|URL")
    options.add_argument("--vllm", type=Path, help="vLLM's environment (default: PARROT_VLLM)")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    ways = ["openai", "swapped", "compiled"]
    options.add_argument("--ways", nargs="+", default=ways, choices=list(WAYS))
    options.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options.add_argument("--markdown", action="store_true")
    args = options.parse_args()
    if args.vllm:
        os.environ["PARROT_VLLM"] = str(args.vllm.absolute())
    return args


def main() -> None:
    """Run the workloads and print their tables."""
    args = _options()
    size = Size(share=0.25, answer=12) if args.quick else Size()
    print(machine())
    print(", ".join(f"{package} {version(package)}" for package in PACKAGES))
    print(
        f"{args.engine}, {args.rounds} rounds, temperature 0, answers of up to {size.answer} tokens, "
        f"{size.share:.0%} of the pieces",
        flush=True,
    )
    tenants = Tenants()
    with servers(args.engine, tenants) as running, asyncio.Runner() as runner:
        where = Where(running, tenants, runner)
        for way in args.ways:  # warms up
            where.run("plain", Size(share=0.1, answer=12), way)
        for name in args.workloads:
            measured(name, size, args, where)


if __name__ == "__main__":
    main()
