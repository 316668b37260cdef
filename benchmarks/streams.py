"""Many streams at once, over the tests' paced engine in the model's place: what each chunk waits for.

    python benchmarks/streams.py [--streams 1000] [--tokens 10] [--pace 1] [--rounds 3]

Every stream gets a token each `--pace` seconds; they begin evenly spread over the first of these. The
server is a process of its own, and so is the engine, where it is *apart* (as `parrot serve` has it),
or it is *within* the server's; the two take turns. *Added* is the time from the engine's step to the
client, in ms over all rounds; of the client's own share in it, one stream alone, printed first, shows
the least. Memory is that of the server and its engine, above what they held before.
"""

import argparse
import asyncio
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

from machine import machine

sys.path.append(str(Path(__file__).parents[1]))
from tests.processes import allow_connections
from tests.streams import Read, paced, read_all

PACKAGES = ("fastapi", "uvicorn", "h11")
WAYS = {"within": False, "apart": True}


def measured(streams: int, tokens: int, pace: float, *, apart: bool) -> tuple[Read, float]:
    """What they brought from a fresh server that has answered one, and the seconds that it took."""
    with paced(tokens, pace, apart=apart) as (url, server):
        asyncio.run(read_all(url, server, 1, pace))
        begin = time.perf_counter()
        read = asyncio.run(read_all(url, server, streams, pace))
        return read, time.perf_counter() - begin


def print_row(way: str, streams: int, reads: list[Read], seconds: list[float]) -> None:
    """All rounds of one way."""
    added = sorted(1000 * time for read in reads for time in read.added)
    rate = len(added) / sum(seconds)
    p99 = added[int(0.99 * (len(added) - 1))]
    size = max(read.bytes_per_stream for read in reads) / 1024
    errors = sum(len(read.errors) for read in reads)
    print(
        f"{way:8}{streams:8}{errors:8}{rate:10.0f}{statistics.median(added):9.2f}{p99:9.2f}"
        f"{added[-1]:9.2f}{size:9.0f}",
        flush=True,
    )
    for error in {error for read in reads for error in read.errors}:
        print(f"        {error}")


def main() -> None:
    """Print the figures."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--streams", type=int, default=1000)
    options.add_argument("--tokens", type=int, default=10)
    options.add_argument("--pace", type=float, default=1.0, help="seconds from token to token")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    args = options.parse_args()
    allow_connections()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"{machine()}\nPython {sys.version.split()[0]}, {packages}")
    print(f"{args.tokens} tokens a stream, one every {args.pace:g} s, {args.rounds} rounds\n")
    print(f"{'engine':8}{'streams':>8}{'errors':>8}{'chunks/s':>10}{'p50 ms':>9}{'p99':>9}", end="")
    print(f"{'most':>9}{'KiB each':>9}")
    for streams in (1, args.streams):
        found: dict[str, list[tuple[Read, float]]] = {way: [] for way in args.ways}
        for _ in range(args.rounds):
            for way in args.ways:
                found[way].append(measured(streams, args.tokens, args.pace, apart=WAYS[way]))
        for way, results in found.items():
            reads, seconds = zip(*results, strict=True)
            print_row(way, streams, list(reads), list(seconds))


if __name__ == "__main__":
    main()
