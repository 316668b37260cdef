"""How long a backend takes to be ready, and what it takes of the memory.

    python benchmarks/start.py [--model NAME] [--quantization int8] [--rounds 5] [--cold] [--idle]
    python benchmarks/start.py --make FOLDER

From the start of `parrot serve` to the first answer of `/ready`, and from there to the first token of
an answer. *Cold* has an empty store: the model is fetched and converted, kernels are compiled, weights
packed. The others find all of that in the store and in the system's page cache; the median of several
starts, lowest and highest. Memory is that of the server and of its engine, each page in proportion to
how many processes share it (PSS). *Own* is what no other process could have and the system can't take
back (private and written to). It is read at rest, behind an answer of `--tokens`, and, with `--idle`,
when the engine has waited long enough to give back what it only needs to compute.

*Scripts* name no backend. From their imports to the first token of their `ChatParrot`: the first one
starts a backend, the others find it.

`--make` writes a model of random weights in float16, in the shape of Llama 3.2 1B.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx

sys.path.append(str(Path(__file__).parents[1]))
from machine import machine

from tests.processes import Served, parrot_serve

PACKAGES = ("torch", "numba", "fastapi", "tokenizers", "transformers")
MIB = 2**20
IDLE_SECONDS = 70
"""A little longer than `worker.IDLE_SECONDS`."""

SCRIPT = """
import time
from parrot_integrations.langchain import ChatParrot
begin = time.perf_counter()
next(ChatParrot(temperature=0, max_tokens=8).stream("What is a parrot?"))
print(time.perf_counter() - begin)
"""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a server and of its engine: their pages, and those that are theirs alone."""

    server: int
    engine: int
    own: int

    @classmethod
    def of(cls, served: Served) -> "Memory":
        """As it is now."""
        server, engine = (_rollup(pid) for pid in (served.process.pid, served.engine()))
        return cls(server["Pss"], engine["Pss"], server["Private_Dirty"] + engine["Private_Dirty"])

    def __str__(self) -> str:
        parts = (self.server + self.engine, self.server, self.engine, self.own)
        return "".join(f"{part / MIB:9.0f}" for part in parts)


def _rollup(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in map(str.split, lines)}


@contextmanager
def started(arguments: list[str], **environment: str) -> Iterator[tuple[Served, float]]:
    """A server, and the seconds until it was ready."""
    begin = time.perf_counter()
    with parrot_serve(*arguments, **environment) as served:
        httpx.get(f"{served.url}/ready", timeout=30).raise_for_status()
        yield served, time.perf_counter() - begin


def first_token(served: Served, tokens: int) -> float:
    """Seconds to the first token of an answer, which is read to its end."""
    body = {
        "messages": [{"role": "user", "content": "What is a parrot?"}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
    }
    begin, first = time.perf_counter(), 0.0
    url = f"{served.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=300) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if '"content"' in line and not first:
                first = time.perf_counter() - begin
    return first


def scripts(count: int, model: str | None, quantization: str | None) -> list[float]:
    """Seconds to the first token of each of so many scripts, one after the other."""
    with tempfile.TemporaryDirectory() as runtime:
        chosen = {"PARROT_MODEL": model, "PARROT_QUANTIZATION": quantization}
        own = {"XDG_RUNTIME_DIR": runtime, "PARROT_LINGER": "60"}
        environment = os.environ | own | {name: value for name, value in chosen.items() if value}
        try:
            return [
                float(
                    subprocess.run(
                        [sys.executable, "-c", SCRIPT],
                        env=environment,
                        stdout=subprocess.PIPE,
                        text=True,
                        check=True,
                    ).stdout
                )
                for _ in range(count)
            ]
        finally:
            stop = [sys.executable, "-m", "parrot_backend", "stop", "--all"]
            subprocess.run(stop, env=environment, stdout=subprocess.DEVNULL, check=True)


def make(folder: Path) -> None:
    """Random weights, one tensor in memory at a time; tokenizer and template of the default model."""
    import json
    import shutil

    import torch
    from safetensors.torch import save_file

    from parrot_backend.engines.store.catalog import resolve_model

    source = Path(resolve_model(None).path)
    config = json.loads((source / "config.json").read_text()) | {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
        "dtype": "float16",
    }  # fmt: skip
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens": (128256, 2048), "model.norm": (2048,)}
    for layer in range(16):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.input_layernorm": (2048,), f"{at}.post_attention_layernorm": (2048,),
            f"{at}.self_attn.q_proj": (2048, 2048), f"{at}.self_attn.k_proj": (512, 2048),
            f"{at}.self_attn.v_proj": (512, 2048), f"{at}.self_attn.o_proj": (2048, 2048),
            f"{at}.mlp.gate_proj": (8192, 2048), f"{at}.mlp.up_proj": (8192, 2048),
            f"{at}.mlp.down_proj": (2048, 8192),
        }  # fmt: skip
    weights = {
        f"{name}.weight": torch.randn(*shape, dtype=torch.float32).mul_(0.02).half()
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Measure and print the rows."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--model")
    options.add_argument("--quantization")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--tokens", type=int, default=64)
    options.add_argument("--cold", action="store_true")
    options.add_argument("--idle", action="store_true")
    options.add_argument("--make", type=Path)
    args = options.parse_args()
    if args.make:
        make(args.make)
        return
    chosen = {"--model": args.model, "--quantization": args.quantization}
    arguments = [part for name, value in chosen.items() if value for part in (name, value)]
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"{machine()}\nPython {sys.version.split()[0]}, {packages}")
    print(f"parrot serve {' '.join(arguments)}, {args.rounds} rounds\n")
    print(f"{'start':24}{'ready s':>22}{'first token s':>22}")
    if args.cold:
        with (
            tempfile.TemporaryDirectory() as empty,
            started(arguments, PARROT_CACHE_DIR=empty) as (served, seconds),
        ):
            print(f"{'cold':24}{seconds:22.1f}{first_token(served, args.tokens):22.2f}", flush=True)
    ready, first, memory = [], [], {}
    with started(arguments):
        pass  # what is not in the store yet is from now on
    for last in [*[False] * (args.rounds - 1), True]:
        with started(arguments) as (served, seconds):
            ready.append(seconds)
            memory["at rest"] = Memory.of(served)
            first.append(first_token(served, args.tokens))
            memory["behind an answer"] = Memory.of(served)
            if last and args.idle:
                time.sleep(IDLE_SECONDS)
                memory["after idle"] = Memory.of(served)
                again = first_token(served, args.tokens)
    print(f"{'warm':24}{_told(ready):>22}{_told(first):>22}")
    if args.idle:
        print(f"{'after idle':24}{'':22}{again:22.2f}")
    script, *others = scripts(args.rounds + 1, args.model, args.quantization)
    print(f"{'first script':24}{'':22}{script:22.2f}")
    print(f"{'other scripts':24}{'':22}{_told(others):>22}")
    print(f"\n{'MiB':24}{'all':>9}{'server':>9}{'engine':>9}{'own':>9}")
    for when, taken in memory.items():
        print(f"{when:24}{taken}")


def _told(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"


if __name__ == "__main__":
    main()
