"""How processes end: waited for by a thread, and told in words."""

import asyncio
import contextlib
import signal
import subprocess
import threading


def exit_code_of(process: "subprocess.Popen[bytes]") -> "asyncio.Future[int]":
    """The exit code of a process when it has ended.

    A thread waits for it. asyncio's own processes lose the exit code of one that ends just before it is
    sent a signal.
    """
    exit_code = asyncio.get_running_loop().create_future()
    threading.Thread(target=_wait, args=(process, exit_code), daemon=True).start()
    return exit_code


def how_it_ended(who: str, code: int) -> str:
    """What an exit code says of `who`."""
    if code >= 0:
        return f"{who} ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    memory = "; the machine may have run out of memory" if code == -signal.SIGKILL else ""
    return f"{who} was killed by {name}{memory}"


def _wait(process: "subprocess.Popen[bytes]", exit_code: "asyncio.Future[int]") -> None:
    code = process.wait()
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
        exit_code.get_loop().call_soon_threadsafe(exit_code.set_result, code)
