"""What the graph of a session costs: programs are added, analysed and rendered, and nothing runs.

    python benchmarks/program.py [--calls 1 100 10000]

Printed are microseconds of processor time per call. *add* is checking a program and taking it in, what
its calls may be told apart by included; *analyse* places them; *render* makes the requests, *key* what
they are claimed by; *path* is the critical path at the end. *chain*: each call reads the one before;
*map*: all but one are read by the last; *tree*: each reads its parent; *behind*: the second half reads
the end of a chain of as many transforms. *extend* grows a graph call by call, each reading the first
one; nothing ends meanwhile. The collector of cycles is off: it costs by what is alive, and is told
apart.
"""

import argparse
import gc
import time
from collections.abc import Callable

from machine import machine

from parrot_backend.program.analysis import Analysis, deduce
from parrot_backend.program.critical_path import critical_path
from parrot_backend.program.graph import Graph
from parrot_backend.program.render import render_call
from parrot_backend.wire.messages import SemanticMessage, Text, TextSegment, VariableSegment
from parrot_backend.wire.protocol import Program, SemanticCall
from parrot_backend.wire.transforms import Transform
from parrot_backend.wire.views import CallView


def reading(*names: str) -> Text:
    """A text of some variables."""
    return [TextSegment(text="Go on: "), *(VariableSegment(name=name) for name in names)]


def call(number: int, *names: str) -> SemanticCall:
    """A call that reads variables, and writes one of its number."""
    messages = [SemanticMessage(role="user", content=reading(*names))]
    return SemanticCall(id=f"c{number}", messages=messages, output=f"v{number}", max_tokens=64)


def chain(count: int) -> Program:
    """Each call reads the one before."""
    return Program(calls=[call(i, *([f"v{i - 1}"] if i else [])) for i in range(count)])


def mapped(count: int) -> Program:
    """The last call reads all others."""
    parts = [call(i) for i in range(count - 1)]
    return Program(calls=[*parts, call(count - 1, *(part.output for part in parts))])


def tree(count: int) -> Program:
    """Each call reads its parent."""
    return Program(calls=[call(i, *([f"v{(i - 1) // 2}"] if i else [])) for i in range(count)])


def behind(count: int) -> Program:
    """Half of the calls read the end of a chain of transforms, which begins with the other half."""
    half = count // 2
    first = [call(i) for i in range(count - half)]
    steps = [Transform(inputs=[reading(*(c.output for c in first))], output="t0")]
    steps += [Transform(inputs=[reading(f"t{i - 1}")], output=f"t{i}") for i in range(1, count)]
    rest = [call(i, f"t{count - 1}") for i in range(count - half, count)]
    return Program(transforms=steps, calls=[*first, *rest])


SHAPES: dict[str, Callable[[int], Program]] = {
    "chain": chain,
    "map": mapped,
    "tree": tree,
    "behind": behind,
}


def seconds(act: Callable[[], object]) -> float:
    """Processor time."""
    begin = time.process_time()
    act()
    return time.process_time() - begin


def measured(program: Program) -> list[float]:
    """Microseconds per call of each step; of few calls, the best of some rounds."""
    count, best = len(program.calls), [float("inf")] * 5
    values = dict.fromkeys(
        [node.output for node in (*program.transforms, *program.calls)], "x" * 20
    )
    for _ in range(max(1, 100 // count)):
        graph = Graph()
        views = [
            CallView(
                id=c.id, state="done", planned=True, claimed=True, claimed_at=i, finished=i + 1
            )
            for i, c in enumerate(program.calls)
        ]
        rendered = []
        steps: list[Callable[[], object]] = [
            lambda graph=graph: graph.add(program),
            lambda graph=graph: deduce(graph),
            lambda rendered=rendered: rendered.extend(
                [render_call(c, values, program.texts) for c in program.calls]
            ),
            lambda rendered=rendered: [request.claim_key() for request in rendered],
            lambda graph=graph, views=views: critical_path(views, graph),
        ]
        times = [seconds(step) / count * 1e6 for step in steps]
        best = [min(pair) for pair in zip(best, times, strict=True)]
    return best


def extended(count: int) -> list[float]:
    """Seconds of each extension by one call."""
    graph = Graph()
    grows = Analysis(graph)
    programs = [Program(calls=[call(i, *(["v0"] if i else []))]) for i in range(count)]
    return [seconds(lambda p=program: grows.extend(graph.add(p))) for program in programs]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", nargs="+", type=int, default=[1, 100, 10_000])
    args = parser.parse_args()
    gc.disable()
    print(machine())
    print(
        f"{'shape':8}{'calls':>8}{'add':>8}{'analyse':>9}{'render':>8}{'key':>8}{'path':>8}  (us)"
    )
    for name, shape in SHAPES.items():
        for count in args.calls:
            add, analyse, render, key, path = measured(shape(count))
            print(f"{name:8}{count:8d}{add:8.1f}{analyse:9.1f}{render:8.1f}{key:8.1f}{path:8.1f}")
    times = extended(max(args.calls))
    mean, worst = sum(times) / len(times), max(times)
    print(f"extend  {len(times):8d}{mean * 1e6:8.1f}, the slowest {worst * 1e3:.1f} ms")
    print(f"one full collection of what is alive then: {seconds(gc.collect) * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
