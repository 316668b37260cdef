"""What every peer's process does: load once, then answer jobs, one JSON line each.

A job is `[[prompt token ids, tokens to generate], ...]`, all wanted at once; the answer has the
seconds that it took and the generated ids. Prints nothing else on stdout.
"""

import json
import os
import sys
import time
from collections.abc import Callable

Job = list[tuple[list[int], int]]


def serve(load: Callable[[str], tuple[str, Callable[[Job], list[list[int]]]]]) -> None:
    """Load a model from the folder in argv, say which version runs it, and answer until stdin ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print; that must not get between the lines
    version, generate = load(sys.argv[1])
    print(json.dumps({"version": version}), file=out, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        tokens = generate(json.loads(line))
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "tokens": tokens}), file=out, flush=True)
