"""A child as the operating system has it: started, ended, and how it ended."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass

from parrot_backend.endpoints.process.exits import exit_code_of, how_it_ended
from parrot_backend.endpoints.process.recipe import Recipe
from parrot_backend.engines.cores import usable_cores

CHILD = "parrot_backend.endpoints.process.child"

_STDERR = 2
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """A process, and what we hold of it: the ends of its channel, and of its lifeline."""

    process: subprocess.Popen[bytes]
    exit_code: asyncio.Future[int]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    lifeline: int

    @classmethod
    async def start(cls, recipe: Recipe, heartbeat_seconds: float) -> "ChildProcess":
        """Start one; only it inherits what it is given, so that nothing else keeps a lifeline open."""
        ours, theirs = socket.socketpair()
        watched, lifeline = os.pipe()
        try:
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own module; it takes no time
                [
                    # Nothing is imported from where we were started.
                    *(sys.executable, "-P", "-m", CHILD),
                    *("--channel", str(theirs.fileno()), "--lifeline", str(watched)),
                    *("--heartbeat", str(heartbeat_seconds)),
                    *("--factory", recipe.factory, "--options", json.dumps(dict(recipe.options))),
                ],
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,  # ours belongs to who started us; the engine has nothing to say there
                pass_fds=(theirs.fileno(), watched),
                env=_environment(),
            )
        except BaseException:
            ours.close()
            os.close(lifeline)
            raise
        finally:
            theirs.close()
            os.close(watched)
        exit_code = exit_code_of(process)
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_READ_BYTES)
        return cls(process, exit_code, reader, writer, lifeline)

    def terminate(self) -> None:
        """Have it end in its own way."""
        self.process.terminate()

    async def exited(self) -> None:
        """When it is gone."""
        await asyncio.shield(self.exit_code)

    async def killed(self) -> str:
        """End it at once, unless it has ended, and let go of what we hold; says how it ended."""
        self.process.kill()
        await self.exited()
        self.writer.close()
        os.close(self.lifeline)
        return how_it_ended("the engine's process", self.exit_code.result())


def _environment() -> dict[str, str]:
    """Ours, with what OpenMP looks for when torch is loaded, unless the user has chosen it.

    By itself it takes no account of a quota, and its threads wait by spinning, which leaves them no
    core where they share it with another process.
    """
    ours = {"OMP_NUM_THREADS": str(usable_cores()), "OMP_WAIT_POLICY": "passive"}
    return ours | os.environ
