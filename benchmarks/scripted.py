"""The tests' scripted engine in a server of its own, for what a client costs beside the model.

    python benchmarks/scripted.py DELAY

Each call takes DELAY seconds. The first line printed is the address; the server ends with its stdin.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
from tests.integrations.langchain.corpus.delayed import DelayedEngine
from tests.servers import serving


@contextmanager
def scripted(delay: float) -> Iterator[str]:
    """Base URL of a server in a process of its own, whose engine takes `delay` seconds a call."""
    command = [sys.executable, __file__, str(delay)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        yield process.stdout.readline().strip()
        process.stdin.close()


if __name__ == "__main__":
    with serving(DelayedEngine(float(sys.argv[1]))) as url:
        print(url, flush=True)
        sys.stdin.read()
