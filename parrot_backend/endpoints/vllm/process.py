"""`vllm serve` as the operating system has it: a process group of its own, which ends with us."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from parrot_backend.endpoints.process.exits import exit_code_of, how_it_ended
from parrot_backend.endpoints.vllm.log_lines import LogLines

_LAST_WORDS_SECONDS = 2.0
_OOM_SCORE = "500"


@dataclass(frozen=True, slots=True)
class VllmProcess:
    """A process and all that it starts, of which it has several.

    The kernel ends the group when we have ended, however that came: we hold one end of a pipe, the
    lifeline, and when that is closed every process of the group gets SIGIO, of which it dies.
    """

    process: subprocess.Popen[bytes]
    exit_code: asyncio.Future[int]
    lines: LogLines
    reading: threading.Thread
    lifeline: int

    @classmethod
    def start(
        cls, command: Sequence[str], environment: dict[str, str], lines: LogLines
    ) -> "VllmProcess":
        """Start it; only it inherits the lifeline's other end.

        Raises:
            OSError: the command can't be run.
        """
        watched, lifeline = os.pipe()
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(watched,),
                process_group=0,
                env=environment,
            )
            _end_group_with(watched, process.pid)
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(watched)
        # Of all processes, that an engine is killed where memory runs out is the least harm.
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/oom_score_adj", "w") as score:
            score.write(_OOM_SCORE)
        exit_code = exit_code_of(process)
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        reading = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
        reading.start()
        return cls(process, exit_code, lines, reading, lifeline)

    def terminate(self) -> None:
        """Have it end in its own way."""
        self.process.terminate()

    async def exited(self) -> None:
        """When its first process is gone."""
        await asyncio.shield(self.exit_code)

    async def killed(self) -> str:
        """End all of it at once, unless it has ended; says how it ended, and what it said of that."""
        told_to = not self.exit_code.done()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.exited()
        os.close(self.lifeline)
        await asyncio.to_thread(self.reading.join, _LAST_WORDS_SECONDS)
        code = self.exit_code.result()
        said = self.lines.last_error if code > 0 and not told_to else ""
        return f"{how_it_ended('vLLM', code)}{': ' if said else ''}{said}"


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _end_group_with(watched: int, group: int) -> None:
    """What the group has inherited signals all of it when the other end is closed."""
    fcntl.fcntl(watched, fcntl.F_SETOWN, -group)
    fcntl.fcntl(watched, fcntl.F_SETFL, fcntl.fcntl(watched, fcntl.F_GETFL) | os.O_ASYNC)


def _read(output: IO[bytes], lines: LogLines) -> None:
    with contextlib.suppress(ValueError, OSError), output:
        for line in output:
            lines.take(line.decode(errors="replace").rstrip())
