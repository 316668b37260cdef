"""From a command to a server that answers: as long as its process lives, there is hope."""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from parrot_backend.endpoints.upstream.address import Secret
from parrot_backend.endpoints.vllm.command import command_of, value_of
from parrot_backend.endpoints.vllm.log_lines import LogLines
from parrot_backend.endpoints.vllm.process import VllmProcess, free_port
from parrot_backend.engines.store.catalog import ResolvedModel, resolve_model
from parrot_backend.engines.store.conversions import converted, find_gguf
from parrot_backend.wire.errors import EngineError

logger = logging.getLogger(__name__)

START_SECONDS = 1800.0
"""Weights of hundreds of gigabytes come over networks."""

_LOOK_SECONDS = 0.25
_ANSWER_SECONDS = 5.0
_TELL_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Launch:
    """What is started: a model as a user names it, with the user's `arguments`."""

    executable: str
    model: str
    arguments: Sequence[str] = ()
    start_seconds: float = START_SECONDS

    @property
    def label(self) -> str:
        """What the log calls it."""
        return f"vLLM ({self.model.rstrip('/').rpartition('/')[2]})"

    def resolved(self) -> ResolvedModel:
        """The model's name, and a folder or hub id; fetches and converts what has to be.

        Raises:
            ParrotError: there is no such model, or it can't be had.
        """
        resolved = resolve_model(self.model)
        if (gguf := find_gguf(resolved.path)) is None:
            return resolved
        return ResolvedModel(resolved.name, str(converted(gguf)))


@dataclass(frozen=True, slots=True)
class Started:
    """A vLLM that answers, the name of its model, the address, and the key that it wants to see."""

    process: VllmProcess
    served_name: str
    url: str
    key: Secret


async def started(launch: Launch) -> Started:
    """Start vLLM and wait until it answers.

    Raises:
        ParrotError: there is no such model, or vLLM ended before, or took too long; says what it
            said of that.
        OSError: the command can't be run.
    """
    model = await asyncio.to_thread(launch.resolved)
    port, key = free_port(), Secret(secrets.token_urlsafe(24))
    command = command_of(launch.executable, model.path, model.name, port, launch.arguments)
    process = VllmProcess.start(command, _environment(key), LogLines(launch.label))
    logger.info("starting %s, process %d", launch.label, process.process.pid)
    began = time.monotonic()
    try:
        wrong = await _answering(process, f"http://127.0.0.1:{port}/health", launch, began)
    except BaseException:
        await process.killed()
        raise
    if wrong is not None:
        how = await process.killed()
        raise EngineError(f"{launch.label} did not start: {wrong or how}")
    process.lines.tell()
    logger.info("%s answers after %.0f s", launch.label, time.monotonic() - began)
    name = value_of("--served-model-name", launch.arguments) or model.name
    return Started(process, name, f"http://127.0.0.1:{port}", key)


def _environment(key: Secret) -> dict[str, str]:
    """Ours. The key keeps other users of the machine from asking past our own keys and tenants."""
    return {"VLLM_NO_USAGE_STATS": "1", **os.environ, "VLLM_API_KEY": key.reveal()}


async def _answering(process: VllmProcess, url: str, launch: Launch, began: float) -> str | None:
    """None when it answers; else what is wrong, which is nothing where it has ended by itself."""
    told = began
    async with httpx.AsyncClient(timeout=_ANSWER_SECONDS, trust_env=False) as client:
        while not await _answers(client, url):
            await asyncio.wait((process.exit_code,), timeout=_LOOK_SECONDS)
            now, last = time.monotonic(), process.lines.last or "nothing said yet"
            if process.exit_code.done():
                return ""
            if now - began > launch.start_seconds:
                return (
                    f"it did not answer within {launch.start_seconds:.0f} s; it said last: {last}"
                )
            if now - told > _TELL_SECONDS:
                told = now
                logger.info("%s starts since %.0f s: %.120s", launch.label, now - began, last)
    return None


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).is_success
    except httpx.HTTPError:
        return False
