"""What other busy processes cost our engine, and llama.cpp: alone, beside one, beside two.

    python benchmarks/neighbours.py [--peers parrot-int8 ...] [--rounds 5] [--tokens 40]

A neighbour is `while True: pass`. In a situation, each peer in turn gives an answer of so many tokens,
and four at once, greedy, to prompts of 32 tokens that nobody has seen. Peers stand still while another
computes, but for the situations with two engines, in which two of a kind compute at the same time, each
its own answers. See `engine.py` for the peers; parrot-int8-spinning is ours with OpenMP's own way to
wait.

Printed per peer and job: median seconds alone (fastest-slowest), and per situation the time over that
alone, median (lowest-highest) of the rounds.
"""

import argparse
import random
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from machine import machine
from peer import FOLDER, PEERS, Peer
from peers.worker import Request

from parrot_backend.engines.store.catalog import resolve_model

DEFAULT_PEERS = ["parrot-int8", "parrot-int8-spinning", "parrot", "llamacpp-q8_0-4"]
PROMPT = 32
JOBS = {"one answer": 1, "four at once": 4}


class Situation(NamedTuple):
    """How many processes are busy, and how many engines of a kind compute."""

    busy: int
    engines: int = 1


ALONE = "alone"
SITUATIONS = {
    ALONE: Situation(0),
    "beside one": Situation(1),
    "beside two": Situation(2),
    "two engines": Situation(0, 2),
    "two engines, two beside": Situation(2, 2),
}
Times = dict[tuple[str, str, str], list[float]]


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many busy processes."""
    loop = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(loop) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def requests(count: int, length: int) -> list[Request]:
    """So many prompts that nobody has seen."""
    prompts = (random.choices(range(1000, 40_000), k=PROMPT) for _ in range(count))
    return [Request(prompt, length) for prompt in prompts]


def seconds(engines: list[Peer], count: int, length: int) -> float:
    """That engines take for a job each, all at the same time."""
    with ThreadPoolExecutor(len(engines)) as pool:
        answers = pool.map(lambda engine: engine.run(requests(count, length)), engines)
        return statistics.mean(answer.seconds for answer in answers)


def measure(peers: dict[str, list[Peer]], rounds: int, length: int) -> Times:
    """All situations, in turn, and in each all peers."""
    for engines in peers.values():  # warms up
        for count in JOBS.values():
            seconds(engines, count, length)
    times: Times = {}
    for number in range(rounds):
        for name, situation in SITUATIONS.items():
            with neighbours(situation.busy):
                for peer in sorted(peers, reverse=number % 2 == 0):
                    for job, count in JOBS.items():
                        taken = seconds(peers[peer][: situation.engines], count, length)
                        times.setdefault((peer, job, name), []).append(taken)
                        print(f"{number} {name}, {peer}, {job}: {taken:.2f} s", file=sys.stderr)
    return times


def spread(numbers: list[float]) -> str:
    """Median (lowest-highest)."""
    return f"{statistics.median(numbers):.2f} ({min(numbers):.2f}-{max(numbers):.2f})"


def report(peers: dict[str, list[Peer]], times: Times) -> None:
    """Print a table of Markdown."""
    rest = [name for name in SITUATIONS if name != ALONE]
    print(f"| peer | job | {ALONE}, s |", " | ".join(rest), "|")
    print("| --- " * (3 + len(rest)) + "|")
    for peer in peers:
        for job in JOBS:
            alone = times[peer, job, ALONE]
            usual = statistics.median(alone)
            ratios = [spread([taken / usual for taken in times[peer, job, name]]) for name in rest]
            print(f"| {peer} | {job} | {spread(alone)} |", " | ".join(ratios), "|", flush=True)


def main() -> None:
    """Start two of each peer, measure, print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--peers", nargs="+", choices=PEERS, default=DEFAULT_PEERS)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--tokens", type=int, default=40)
    args = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the peers are to be ended too
    FOLDER.mkdir(exist_ok=True)
    model = resolve_model(None).path
    print(f"{machine()}, {args.rounds} rounds, {args.tokens} tokens", flush=True)
    with ExitStack() as stack:
        peers: dict[str, list[Peer]] = {}
        for name in args.peers:
            peers[name] = [Peer(name, model) for _ in range(2)]
            for engine in peers[name]:
                stack.callback(engine.close)
            print(f"{name}: {peers[name][0].version}", flush=True)
        report(peers, measure(peers, args.rounds, args.tokens))


if __name__ == "__main__":
    main()
