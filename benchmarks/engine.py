"""Our engine against what people run today: the same prompts, alternating, in one run.

    python benchmarks/engine.py [--peers parrot vllm ...] [--workloads decode-16 W1 ...] [--rounds 3]
        [--scale 1.0] [--model FOLDER]

Each peer has an environment of its own under .benchmarks/, which is made once. Workloads, greedy, token
ids in and out, fixed lengths, every round with prompts that nobody has seen before:

    decode-N  N requests of 128 tokens, 64 out; the time of such prompts with 1 out is taken off
    W1        16 requests, 1,024 shared + 64 own tokens, 64 out
    W1-warm   the same after a request with the shared tokens alone, which is not counted
    W2        16 maps (60 shared + 900 own, 50 out), then one reduce over their outputs (100 out)
    refine    a summary in 10 steps, one request each, which carries the answer before; up to 128 out
    novel     10 stories one after the other, sampled, so that nothing repeats; up to 128 out

The last two are real text up to an end token, for our own engine, with drafting and without. Only the
peer called parrot-drafting drafts.

Printed per workload and peer: median seconds (fastest-slowest); per peer of ours, the peer's time per
generated token over ours, median (lowest-highest) of the rounds; prompt tokens computed and shared,
tokens drafted and accepted, all summed over the rounds; how many outputs equal the first peer's; and of
the machine's measured limits, the share of fp32 operations per second, and that of bytes per second,
with the bytes that the steps must read at least (a drafting engine needs fewer steps). A peer that does
not tell its shared tokens has a dash.
"""

import argparse
import random
import signal
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack

from machine import Limits, Shape, machine, measure_limits
from peer import FOLDER, PEERS, Peer
from texts import Texts
from workloads import TEXT_WORKLOADS, WORKLOADS, Bench, Measured

from parrot_backend.engines.store.catalog import resolve_model

DEFAULT_PEERS = [
    "parrot",
    "parrot-int8",
    "parrot-drafting",
    "vllm",
    "vllm-all-cores",
    "openvino-q4_1",
    "llamacpp-q4_0-1",
    "transformers",
]
Rounds = list[Measured]


def _ours(name: str) -> bool:
    return name.startswith("parrot")


def _takes_part(peer: str, workload: str) -> bool:
    return (peer == "parrot-drafting") <= (workload in TEXT_WORKLOADS) and (
        _ours(peer) or workload not in TEXT_WORKLOADS
    )


def _measure(benches: list[Bench], workload: str, round_number: int) -> dict[str, Measured]:
    """One round of a workload: every peer with the same prompts."""
    measured = {}
    for bench in benches:
        if _takes_part(bench.peer.name, workload):
            rng = random.Random(f"{round_number} {workload}")
            measured[bench.peer.name] = WORKLOADS[workload](bench, rng)
            print(f"round {round_number} {workload} {bench.peer.name}", file=sys.stderr)
    return measured


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _ratio(theirs: Rounds, own: Rounds) -> str:
    pairs = zip(theirs, own, strict=True)
    return _spread([t.seconds / t.generated / (o.seconds / o.generated) for t, o in pairs])


def _equal(rounds: Rounds, first: Rounds) -> str:
    pairs = [
        pair
        for one, other in zip(rounds, first, strict=True)
        for pair in zip(one.outputs, other.outputs, strict=True)
    ]
    return f"{sum(a == b for a, b in pairs)}/{len(pairs)}"


def _known(value: float, form: str = "{:.0f}") -> str:
    return form.format(value) if value == value else "-"


def _share(rounds: Rounds, done: Callable[[Measured], float], limit: float) -> str:
    rate = statistics.median(done(measured) / measured.seconds for measured in rounds)
    return _known(rate / limit, "{:.0%}")


def _print_table(workload: str, results: dict[str, Rounds], limits: Limits) -> None:
    ours = [peer for peer in results if _ours(peer)]
    heads = ["s", *(f"over {peer}" for peer in ours), "computed", "shared", "drafted", "accepted"]
    heads = [workload, *heads, "equal", "operations", "bytes"]
    print(f"\n| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    first = next(iter(results.values()))
    for peer, rounds in results.items():
        cells = [
            peer,
            _spread([measured.seconds for measured in rounds]),
            *(_ratio(rounds, results[reference]) for reference in ours),
            _known(sum(measured.prompts - measured.shared for measured in rounds)),
            _known(sum(measured.shared for measured in rounds)),
            str(sum(measured.drafted for measured in rounds)),
            str(sum(measured.accepted for measured in rounds)),
            _equal(rounds, first),
            _share(rounds, lambda measured: measured.operations, limits.flops),
            _share(rounds, lambda measured: measured.bytes, limits.bandwidth),
        ]
        print(f"| {' | '.join(cells)} |")


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--peers", nargs="+", default=DEFAULT_PEERS, choices=list(PEERS))
    options.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--scale", type=float, default=1.0, help="shortens prompts and answers")
    options.add_argument("--model", help="a Hugging Face folder; the default model otherwise")
    args = options.parse_args()
    if args.model and any(PEERS[name].form for name in args.peers):
        options.error("the GGUF peers have the default model only: leave out --model, or them")
    return args


def main() -> None:
    """Run the workloads, and print a table for each."""
    args = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the peers are to be ended too
    model = args.model or resolve_model(None).path
    FOLDER.mkdir(exist_ok=True)
    limits, shape, texts = measure_limits(), Shape.read(model), Texts(model, args.scale)
    print(f"{machine()}\nmodel {model}; {args.rounds} rounds, scale {args.scale}")
    print(
        f"limits: {limits.flops / 1e9:.0f} GFLOP/s in fp32, {limits.bandwidth / 1e9:.1f} GB/s read"
    )
    with ExitStack() as stack:
        benches = []
        for name in args.peers:
            peer = Peer(name, model)
            stack.callback(peer.close)
            print(f"{name}: {peer.version}", flush=True)
            benches.append(Bench(peer, shape, texts, args.scale))
            # Whoever compiles or allocates at first use has done it then.
            WORKLOADS["decode-1"](benches[-1], random.Random(0))
        for workload in args.workloads:
            rounds = [_measure(benches, workload, number) for number in range(args.rounds)]
            _print_table(workload, {p: [r[p] for r in rounds] for p in rounds[0]}, limits)


if __name__ == "__main__":
    main()
