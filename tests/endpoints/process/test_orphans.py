"""A child never outlives its server."""

import asyncio
import subprocess
import sys
import time

import pytest

from parrot_backend.endpoints.process.endpoint import ProcessEndpoint
from tests.endpoints.process.engines import recipe

# It takes milliseconds; this is for a machine that is busy.
WITHIN_SECONDS = 20


def serve(factory: str) -> None:
    """A server's process, which is then killed."""

    async def start() -> None:
        await ProcessEndpoint(recipe(factory)).start()
        print("ready", file=sys.stderr, flush=True)
        await asyncio.sleep(600)

    asyncio.run(start())


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("troubled", "ready"),
        ("loads_for_ever", "loading"),
        ("holds_the_interpreter", "holding"),
    ],
)
def test_a_child_is_gone_when_its_server_was_killed(factory: str, said: str) -> None:
    code = f"from {__name__} import serve; serve({factory!r})"
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        assert server.stderr.readline().strip() == said
        server.kill()
        killed = time.monotonic()
        # The child holds the other end of this pipe too: it is gone when the pipe is.
        assert server.stderr.read() == ""
        assert time.monotonic() - killed < WITHIN_SECONDS
