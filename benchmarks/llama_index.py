"""What LlamaIndex does in a row, as it is and compiled: the same answers from a cold backend each.

    python benchmarks/llama_index.py [--rounds 3] [--workloads tree ...] [--ways openai ...]
        [--answer 256] [--quantization int8] [--quick] [--markdown]

The workloads: *tree* is `tree_summarize` over 40 chunks, *accumulate* one answer on each of 24,
*refine* an answer that is carried through ten, *ingestion* titles, summaries and keywords for 60
nodes of four documents, *sub-question* a question that is taken apart for five tools, each a BM25
retriever and an answer of its own. *simple* is one call, where there is nothing to gain: the worst
case.

The ways: *openai* is the framework's default, one call after another (but for the extractors, of
which it runs four), with `OpenAILike`; *parrot* the same with `Parrot`; *compiled* is `compile()`
of *parrot*. *openai-async* and *parrot-async* are what the framework can do by itself:
`use_async=True`, and for the ingestion `arun` and as many workers as there are nodes.

Each run has a `parrot serve` of its own that has seen nothing, the ways take turns, and another one
begins in each round. Answers have up to 256 tokens, which is what LlamaIndex leaves room for unless it
is told otherwise. Temperature is 0, and all ways must give the same text. Printed are seconds,
median with lowest and highest, and the default over each way, of the same round: above 1 the way is
faster. Calls are the model's answers, claimed ones were planned, dependent ones were dispatched by
the backend when another ended, and ahead ones were with the engine 10 ms and more before they were
asked for. Prompt tokens were computed, or shared by the prefix tree. Packing is what the framework
took to cut the chunks to size, for the plan and for the run. They are of the last round. `--quick`
has few short pieces, to see that it runs.
"""

import argparse
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

# This file has the framework's name, and would be imported in its place from this folder.
sys.path.remove(str(Path(__file__).parent))
from llama_index.core.constants import DEFAULT_NUM_OUTPUTS

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from llama_index_ways import WAYS, Run, run
from llama_index_workloads import PURE, WORKLOADS, Size
from machine import machine
from tables import print_table, spread

PACKAGES = (
    "llama-index-core", "llama-index-llms-openai-like", "llama-index-retrievers-bm25", "openai",
    "torch", "uvicorn", "httpx",
)  # fmt: skip
DEFAULT, COMPILED = "openai", "compiled"
BY_ITSELF = ("openai-async", "parrot-async")
FLOORS = {"tree": 3.0, "accumulate": 3.0, "ingestion": 3.0, "sub-question": 2.0, "refine": 1.3}
HEADS = (
    "seconds", f"{DEFAULT} over it", "calls", "claimed", "dependent", "ahead", "computed", "shared",
    "packing",
)  # fmt: skip


def ratios(slow: list[Run], fast: list[Run]) -> list[float]:
    """One way's time over another's, of each round."""
    return [one.seconds / other.seconds for one, other in zip(slow, fast, strict=True)]


def cells(runs: list[Run], defaults: list[Run] | None) -> list[str]:
    """One way's row, under `HEADS`."""
    last = runs[-1]
    return [
        spread([each.seconds for each in runs], 1),
        spread(ratios(defaults, runs), 2) if defaults else "",
        *map(str, (last.calls, last.claimed, last.dependent, last.ahead)),
        *map(str, (last.computed, last.shared)),
        f"{last.packing * 1000:.0f} ms",
    ]


def print_sums(name: str, runs: dict[str, list[Run]]) -> None:
    """Whether all gave the same, and how compiled stands beside its floors."""
    texts = {each.text for mine in runs.values() for each in mine}
    print("the same text by all" if len(texts) == 1 else f"{len(texts)} DIFFERENT TEXTS")
    if (compiled := runs.get(COMPILED)) is None:
        return
    if DEFAULT in runs:
        gained = statistics.median(ratios(runs[DEFAULT], compiled))
        print(f"{DEFAULT} over {COMPILED}: {gained:.2f}, the floor is {FLOORS.get(name, 1.0)}")
    if mine := [runs[way] for way in BY_ITSELF if way in runs]:
        faster = [min(pair, key=lambda run: run.seconds) for pair in zip(*mine, strict=True)]
        print(f"the faster async over {COMPILED}: {spread(ratios(faster, compiled), 2)}")


def measured(name: str, args: argparse.Namespace, size: Size) -> None:
    """Run one workload in all ways, in turn, and print what came of it."""
    server = ["--quantization", args.quantization] if args.quantization else []
    runs: dict[str, list[Run]] = {way: [] for way in args.ways}
    for number in range(args.rounds):
        first = number % len(args.ways)
        for way in args.ways[first:] + args.ways[:first]:
            runs[way].append(run(WORKLOADS[name](size), WAYS[way], server))
    print(f"\n{name}: {WORKLOADS[name].__doc__}\n")
    rows = {way: cells(mine, runs.get(DEFAULT)) for way, mine in runs.items()}
    print_table(HEADS, rows, markdown=args.markdown)
    print()
    print_sums(name, runs)
    if name == "sub-question" and COMPILED in args.ways:
        print(f"compiled with pure_retrievers=True: {PURE}")
    sys.stdout.flush()


def main() -> None:
    """Run the workloads and print their tables."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    options.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    options.add_argument("--answer", type=int, default=DEFAULT_NUM_OUTPUTS)
    options.add_argument("--quantization", choices=["int8"])
    options.add_argument("--quick", action="store_true")
    options.add_argument("--markdown", action="store_true")
    args = options.parse_args()
    size = Size(0.1, 12) if args.quick else Size(1.0, args.answer)
    print(machine())
    print(", ".join(f"{package} {version(package)}" for package in PACKAGES))
    print(
        f"{args.quantization or 'fp32'}, {args.rounds} rounds, temperature 0, answers of up to "
        f"{size.answer} tokens, {size.share:.0%} of the pieces, packed by LlamaIndex's own tokenizer",
        flush=True,
    )
    for name in args.workloads:
        measured(name, args, size)


if __name__ == "__main__":
    main()
