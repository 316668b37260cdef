"""What every peer's process does: load once, then answer jobs, one JSON line each.

A job is a list of requests, which are all wanted at once; the answer has the seconds that it took and
the fields of `Result`. Prints nothing else on stdout.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Request(NamedTuple):
    """`length` tokens after `prompt`, greedy, end tokens ignored.

    The rest is for Parrot's own engine alone: stop at an end token, sample with a seed, and what the
    answer may repeat.
    """

    prompt: list[int]
    length: int
    until_end: bool = False
    temperature: float = 0.0
    draft: Sequence[int] = ()


class Result(NamedTuple):
    """The generated ids of each request, and how many of the prompts' tokens were not computed.

    `shared` is None where the peer doesn't tell.
    """

    tokens: list[list[int]]
    shared: int | None = None
    drafted: int = 0
    accepted: int = 0


Generate = Callable[[list[Request]], Result]


def serve(load: Callable[[str], tuple[str, Generate]]) -> None:
    """Load the model that argv names, say what runs it and how, and answer until stdin ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print; that must not get between the lines
    version, generate = load(sys.argv[1])
    print(json.dumps({"version": version}), file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(generate, json.loads(line))), file=out, flush=True)


def _answer(generate: Generate, job: list[list[Any]]) -> dict[str, Any]:
    requests = [Request(*request) for request in job]
    start = time.perf_counter()
    result = generate(requests)
    return {"seconds": time.perf_counter() - start, **result._asdict()}
