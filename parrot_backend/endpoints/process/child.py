"""The process of an engine: `python -m parrot_backend.endpoints.process.child ...`, for a server only.

It ends when its server does. The kernel sees to that and not our code, which may be inside torch, or
still loading: the server holds one end of a pipe, the lifeline, and when that is closed, however the
server came to its end, this process gets SIGIO, of which it dies.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.endpoints.process import frames
from parrot_backend.endpoints.process.factories import made
from parrot_backend.endpoints.process.jobs import Jobs
from parrot_backend.endpoints.process.logs import log_to_stderr
from parrot_backend.endpoints.process.recipe import Recipe
from parrot_backend.endpoints.process.troubles import Trouble
from parrot_backend.engines import stages
from parrot_backend.wire.errors import EngineError, ParrotError

logger = logging.getLogger(__name__)

# Of all processes, that an engine is killed where memory runs out is the least harm: it comes back.
_OOM_SCORE = "500"
# Between two heartbeats of a load that goes on; threads that only wait and look now and then take less.
_LEAST_CPU_SECONDS = 0.001
# So often those who wait see a bar move.
_STAGE_SECONDS = 0.25


def main() -> int:
    """Load the engine, say whether it is ready, run what the server asks for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to decide
    args = _arguments()
    _end_with(args.lifeline)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(_OOM_SCORE)
    log_to_stderr()
    with socket.socket(fileno=args.channel) as channel:
        try:
            with _beating(channel, min(args.heartbeat, _STAGE_SECONDS)):
                engine = made(Recipe(json.loads(args.options), args.factory))
        except (ParrotError, OSError) as error:
            told = error if isinstance(error, ParrotError) else EngineError(str(error))
            channel.sendall(frames.encoded(frames.NotStarted(Trouble.of(told))))
            return 1
        asyncio.run(_serve(LocalEndpoint(engine), channel, args.heartbeat))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--lifeline", type=int, required=True)
    parser.add_argument("--heartbeat", type=float, required=True)
    parser.add_argument("--factory", required=True)
    parser.add_argument("--options", required=True)
    return parser.parse_args()


def _end_with(lifeline: int) -> None:
    """Die when the other end of the pipe is closed, or has been."""
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:
        os._exit(1)


@contextlib.contextmanager
def _beating(channel: socket.socket, seconds: float) -> Iterator[None]:
    """Tell the server, every so many seconds, that the load goes on."""
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(channel, seconds, over), daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()


def _beat(channel: socket.socket, seconds: float, over: threading.Event) -> None:
    """Where nothing is computed and no byte comes, the load waits for what may never come, and is not
    told to go on."""
    told, seen = 0.0, stages.Stage()
    with contextlib.suppress(OSError):  # the server is gone, and so are we
        while not over.wait(seconds):
            computed, stage = time.process_time() - time.thread_time(), stages.current()
            if computed - told >= _LEAST_CPU_SECONDS or stage != seen:
                channel.sendall(frames.encoded(frames.Loading(stage)))
                told, seen = computed, stage


async def _serve(endpoint: LocalEndpoint, channel: socket.socket, heartbeat: float) -> None:
    """Until the server is gone, or wants this process to end."""
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    writer.write(frames.encoded(frames.Ready(endpoint.card, endpoint.stats())))
    jobs = Jobs(endpoint, heartbeat)
    taking = asyncio.create_task(_take_all(reader, jobs), name="take")
    sending = asyncio.create_task(jobs.send(writer), name="send")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, taking.cancel)
    done, _ = await asyncio.wait({taking, sending}, return_when=asyncio.FIRST_COMPLETED)
    sending.cancel()
    await jobs.aclose()
    for task in done:
        if not task.cancelled():
            task.result()


async def _take_all(reader: asyncio.StreamReader, jobs: Jobs) -> None:
    while (frame := await frames.read(reader)) is not None:
        jobs.take(frame)


if __name__ == "__main__":
    sys.exit(main())
