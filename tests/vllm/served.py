"""`parrot serve --engine vllm:MODEL` with the default model, small enough for two on a machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import httpx

from tests import processes
from tests.processes import Served, children, parrot_serve

BATCH = 8
ARGUMENTS = (
    *("--dtype", "float32", "--enforce-eager"),
    *("--max-model-len", "4096", "--max-num-seqs", str(BATCH)),
    # By itself it shares blocks of 128 tokens on CPUs, which is more than the suites' prompts have.
    *("--block-size", "32"),
)
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1"}
START_SECONDS = 600  # a minute of one core's, most of it for imports


@contextmanager
def vllm_served(model: str, *arguments: str, **environment: str) -> Iterator[Served]:
    """A Parrot whose engine is a vLLM of its own; `arguments` are Parrot's."""
    engine = ("--engine", f"vllm:{model}", *arguments, "--", *ARGUMENTS)
    with (
        patch.object(processes, "LOADED_SECONDS", START_SECONDS),
        parrot_serve(*engine, **ENVIRONMENT, **environment) as served,
    ):
        yield served


def vllm_process(served: Served) -> int:
    """The first process of its vLLM."""
    (process,) = children(served.process.pid)
    return process


def url_of(served: Served) -> str:
    """Where its vLLM listens."""
    command = Path(f"/proc/{vllm_process(served)}/cmdline").read_text().split("\0")
    return f"http://127.0.0.1:{command[command.index('--port') + 1]}"


def key_of(served: Served) -> str:
    """The key that its vLLM wants to see."""
    environment = Path(f"/proc/{vllm_process(served)}/environ").read_text().split("\0")
    return dict(each.partition("=")[::2] for each in environment)["VLLM_API_KEY"]


def running(served: Served) -> int:
    """The requests that its vLLM runs or keeps waiting, as it says."""
    metrics = httpx.get(f"{url_of(served)}/metrics", timeout=30).text.splitlines()
    counted = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
    return int(sum(float(line.split()[-1]) for line in metrics if line.startswith(counted)))
