"""Engines for children: what a recipe of the tests names."""

import asyncio
import ctypes
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from parrot_backend.endpoints.process.recipe import Recipe
from parrot_backend.engines import stages
from parrot_backend.engines.base import Delta, EngineStats, GenerationRequest
from parrot_backend.wire.errors import ContextLengthError
from tests.doubles import ScriptedEngine


class TroubledEngine(ScriptedEngine):
    """The scripted one, which does as a prompt says, behind its first token.

    HOLD waits for ever, BLOCK stops the event loop, EXIT ends the process, BREAK raises what is no
    `ParrotError`, and END ends the answer without a reason. What is expected comes back in the counts.
    """

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        prompt = "".join(map(chr, request.prompt))
        async with aclosing(super().generate(request)) as deltas:
            async for delta in deltas:
                yield delta
                if "HOLD" in prompt:
                    await asyncio.sleep(600)
                if "BLOCK" in prompt:
                    time.sleep(600)  # noqa: ASYNC251 - that is what is wrong with it
                if "EXIT" in prompt:
                    os._exit(3)
                if "BREAK" in prompt:
                    raise ZeroDivisionError("by nothing")
                if "END" in prompt:
                    return

    def stats(self) -> EngineStats:
        return EngineStats(running=self.running, prefix_tree_nodes=len(self.expected))


def troubled() -> TroubledEngine:
    return TroubledEngine()


class TooLongError(ContextLengthError):
    """One that only the child knows, as an engine has its own."""


def no_model() -> TroubledEngine:
    raise TooLongError("there is no model: choose another", param="model", code="special")


def no_file() -> TroubledEngine:
    return TroubledEngine(open("/no/such/file").read)  # type: ignore[arg-type]


def killed_at_start() -> TroubledEngine:
    os._exit(4)


def works_once(mark: str) -> TroubledEngine:
    """No second time, as where a model is removed meanwhile."""
    Path(mark).touch(exist_ok=False)
    return TroubledEngine()


def works_once_here() -> TroubledEngine:
    """As the last, where the environment says."""
    return works_once(os.environ["MARK"])


def loads_for_ever() -> TroubledEngine:
    print("loading", flush=True)
    time.sleep(600)
    raise AssertionError


def loads_slowly(seconds: float) -> TroubledEngine:
    """It computes for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(10_000))
    return TroubledEngine()


def quick() -> TroubledEngine:
    return TroubledEngine()


def loads_for_a_while() -> TroubledEngine:
    """Three seconds, of which it tells."""
    stages.begin("counting", 30)
    for done in range(30):
        stages.advance(done)
        time.sleep(0.1)
    return TroubledEngine()


def hangs_again(mark: str) -> TroubledEngine:
    """It loads once; the second time it waits for ever."""
    if Path(mark).exists():
        return loads_for_ever()
    Path(mark).touch()
    return TroubledEngine()


def holds_the_interpreter() -> TroubledEngine:
    """As a library may which computes and lets no other thread run."""
    print("holding", flush=True)
    ctypes.PyDLL(None).sleep(600)
    raise AssertionError


def recipe(factory: str, **options: object) -> Recipe:
    return Recipe(options, f"{__name__}:{factory}")


def of_this_environment() -> ScriptedEngine:
    """It answers with what OpenMP finds."""
    names = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    told = " ".join(os.environ[name] for name in names)
    return ScriptedEngine(script=lambda _: told)
