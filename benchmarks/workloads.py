"""The workloads: each has a peer answer jobs, and says what that took.

Prompts come from `rng`, so that every peer gets the same ones and nobody has seen them before.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from machine import Shape, bytes_read, operations
from peer import Peer
from peers.worker import Request
from texts import Texts


@dataclass(frozen=True, slots=True)
class Measured:
    """Jobs added up; what a peer doesn't tell is NaN."""

    seconds: float
    prompts: int
    shared: float
    generated: int
    drafted: int
    accepted: int
    operations: float
    bytes: float
    outputs: list[list[int]]

    def __add__(self, other: "Measured") -> "Measured":
        return self._joined(other, 1)

    def __sub__(self, other: "Measured") -> "Measured":
        return self._joined(other, -1)

    def _joined(self, other: "Measured", sign: int) -> "Measured":
        return Measured(
            self.seconds + sign * other.seconds,
            self.prompts + sign * other.prompts,
            self.shared + sign * other.shared,
            self.generated + sign * other.generated,
            self.drafted + sign * other.drafted,
            self.accepted + sign * other.accepted,
            self.operations + sign * other.operations,
            self.bytes + sign * other.bytes,
            self.outputs + other.outputs,
        )


class Bench:
    """A peer under measurement: `scale` shortens prompts and answers, for a quick look."""

    def __init__(self, peer: Peer, shape: Shape, texts: Texts, scale: float) -> None:
        self.peer, self.texts = peer, texts
        self._shape, self._scale = shape, scale

    def length(self, tokens: int) -> int:
        """A number of tokens, scaled."""
        return max(2, round(tokens * self._scale))

    def prompt(self, rng: random.Random, tokens: int) -> list[int]:
        """Random token ids, `tokens` of them, scaled."""
        return [rng.randrange(1000, 40_000) for _ in range(self.length(tokens))]

    def run(self, requests: list[Request]) -> Measured:
        """Have the peer answer requests that arrive at once."""
        answer = self.peer.run(requests)
        return Measured(
            answer.seconds,
            sum(len(request.prompt) for request in requests),
            float("nan") if answer.shared is None else answer.shared,
            sum(map(len, answer.tokens)),
            answer.drafted,
            answer.accepted,
            operations(requests, answer, self._shape),
            bytes_read(requests, answer, self._shape, self.peer.spec),
            answer.tokens,
        )


Workload = Callable[[Bench, random.Random], Measured]


def _decode(batch: int, bench: Bench, rng: random.Random) -> Measured:
    """The time of as many requests with 1 out is taken off."""
    whole = [Request(bench.prompt(rng, 128), bench.length(64)) for _ in range(batch)]
    first = [Request(bench.prompt(rng, 128), 1) for _ in range(batch)]
    return bench.run(whole) - bench.run(first)


def _questions(bench: Bench, rng: random.Random, shared: list[int]) -> Measured:
    count = bench.length(64)
    return bench.run([Request(shared + bench.prompt(rng, 64), count) for _ in range(16)])


def _w1(bench: Bench, rng: random.Random) -> Measured:
    return _questions(bench, rng, bench.prompt(rng, 1024))


def _w1_warm(bench: Bench, rng: random.Random) -> Measured:
    shared = bench.prompt(rng, 1024)
    bench.run([Request(shared, 1)])
    return _questions(bench, rng, shared)


def _w2(bench: Bench, rng: random.Random) -> Measured:
    instruction, count = bench.prompt(rng, 60), bench.length(50)
    maps = bench.run([Request(instruction + bench.prompt(rng, 900), count) for _ in range(16)])
    joined = [token for summary in maps.outputs for token in summary]
    return maps + bench.run([Request(bench.prompt(rng, 60) + joined, bench.length(100))])


def _refine(bench: Bench, rng: random.Random) -> Measured:
    first, *others = bench.texts.passages(rng, 10)
    count = bench.length(128)
    total = bench.run([Request(bench.texts.summarize(first), count, until_end=True)])
    for passage in others:
        answer = total.outputs[-1]
        prompt = bench.texts.refine(answer, passage)
        total += bench.run([Request(prompt, count, until_end=True, draft=answer)])
    return total


def _novel(bench: Bench, rng: random.Random) -> Measured:
    count = bench.length(128)
    first, *others = (Request(bench.texts.story(rng), count, True, 1.0) for _ in range(10))
    total = bench.run([first])
    for request in others:
        total += bench.run([request])
    return total


WORKLOADS: dict[str, Workload] = {
    "decode-1": partial(_decode, 1),
    "decode-8": partial(_decode, 8),
    "decode-16": partial(_decode, 16),
    "W1": _w1,
    "W1-warm": _w1_warm,
    "W2": _w2,
    "refine": _refine,
    "novel": _novel,
}
TEXT_WORKLOADS = frozenset({"refine", "novel"})
