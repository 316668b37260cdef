"""Starts engines as their users do, each a process of its own on a free port."""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

from benchmarks.gguf_files import gguf_file
from parrot_backend import DEFAULT_MODEL
from parrot_backend.endpoints.vllm.command import command_of
from parrot_backend.endpoints.vllm.finding import find_vllm
from parrot_backend.engines.store.catalog import resolve_model
from parrot_backend.engines.store.folders import cache_folder
from tests.processes import children, parrot_serve
from tests.servers import eventually

READY_SECONDS = 600  # vLLM imports torch in three processes, one after another
NO_LLAMA_CPP = "xllamacpp is missing: pip install it, or name an environment in PARROT_LLAMA_CPP"
NO_VLLM = "there is no vLLM: make test-vllm makes an environment for it"


@dataclass(frozen=True, slots=True)
class Running:
    """An engine that answers: its address, and its process, which leads a group."""

    url: str
    pid: int

    def signal(self, number: int) -> None:
        """Send it to all of its processes."""
        for process in (self.pid, *children(self.pid)):
            with suppress(ProcessLookupError):
                os.kill(process, number)


def llama_cpp_python() -> str | None:
    """The interpreter that has xllamacpp: this one, or that of PARROT_LLAMA_CPP's environment."""
    if folder := os.environ.get("PARROT_LLAMA_CPP"):
        return str(Path(folder) / "bin" / "python")
    return sys.executable if importlib.util.find_spec("xllamacpp") else None


def vllm_command() -> str | None:
    """vLLM's command, where one is named or found."""
    return find_vllm(os.environ)


def default_gguf() -> str:
    """The default model as a GGUF file, as it is published."""
    return str(gguf_file(cache_folder() / "gguf-published", "q4_1"))


@contextmanager
def llama_cpp(slots: int = 4, context: int = 4096, *flags: str) -> Iterator[Running]:
    """llama.cpp's server with the default model; `context` is of each slot."""
    python = llama_cpp_python()
    assert python, NO_LLAMA_CPP
    script = str(Path(__file__).parent / "llama_server.py")
    command = [python, script, default_gguf(), "--slots", str(slots), "--context", str(context)]
    command += flags
    with _process(command) as (process, log):
        eventually(lambda: process.poll() is not None or _address(log), READY_SECONDS)
        yield _answering(_address(log), process, log)


@contextmanager
def vllm(
    *arguments: str, port: int | None = None, context: int = 4096, one_thread: bool = False
) -> Iterator[Running]:
    """vLLM in float32 with the default model, started as Parrot starts one of its own.

    By itself it takes all cores but one, and always the same: several have `one_thread` each, anywhere.
    """
    executable = vllm_command()
    assert executable, NO_VLLM
    port = port or free_port()
    flags = (
        *("--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", str(context), "--max-num-seqs", "32"),
    )
    path = str(resolve_model(None).path)
    command = command_of(executable, path, DEFAULT_MODEL, port, (*flags, *arguments))
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if one_thread:
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    with _process(command, **environment) as (process, log):
        yield _answering(f"http://127.0.0.1:{port}", process, log)


@contextmanager
def ours(*arguments: str, port: int = 0) -> Iterator[Running]:
    """`parrot serve` with the default model, as an engine for another."""
    settings = ("--kv-memory", "512MiB", "--port", str(port))
    with parrot_serve(*settings, *arguments) as served:
        yield Running(served.url, served.process.pid)


@contextmanager
def _process(
    command: list[str], **environment: str
) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """A process that leads a group, which is killed at the end, and what it writes."""
    variables = {**environment, **os.environ}
    variables.pop("PYTHONPATH", None)  # its environment is another
    with tempfile.TemporaryFile("a+") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
            env=variables,
        )
        try:
            yield process, log
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _address(log: IO[str]) -> str:
    """The address that was written, between all else."""
    log.seek(0)
    found = re.search(r"^at (http://\S+)$", log.read(), re.MULTILINE)
    return found[1] if found else ""


def _answering(url: str, process: subprocess.Popen[str], log: IO[str]) -> Running:
    """It, once its health check is answered."""

    def healthy() -> bool:
        try:
            return httpx.get(f"{url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    eventually(lambda: process.poll() is not None or healthy(), READY_SECONDS)
    if process.poll() is not None or not healthy():
        log.seek(0)
        raise AssertionError(f"{url} does not answer:\n{log.read()[-4000:]}")
    return Running(url, process.pid)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
