"""A step's work in phases, whose pieces go to whichever thread has a core.

    phase 0   [0][1][2][3]...     a thread claims some pieces, computes them, claims the next;
    phase 1   [0][1]              a phase is over when its pieces are done, whoever did them

So a thread that has lost its core holds up the others for the pieces that it has claimed and not for
its share, and one that comes late, or never, for nothing. Each phase of a step has counters of its
own, and each step has new ones: who comes too late finds nothing left to claim.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from parrot_backend.engines.torch_engine.forward.cpu.compiling import compiled
from parrot_backend.engines.torch_engine.forward.cpu.vectors import I32, Code, generated

# A cache line for each phase.
_LINE = 8
# Where all have a core, a phase's last pieces are done sooner than so many looks take, some 150 us;
# whoever has lost its core comes back after milliseconds, and has ours while we sleep. With a tenth as
# many, a step of one token takes 19 % longer alone, and beside busy processes 2 to 8 % less.
_LOOKS = 3000
_NAP_MICROSECONDS = 20

_sleep = types.ExternalFunction("usleep", types.int32(types.uint32))


class Work(NamedTuple):
    """What a step's threads share: of each phase, how many pieces are claimed, and how many done."""

    counters: np.ndarray
    threads: int

    @classmethod
    def of(cls, phases: int, threads: int) -> "Work":
        """Of a step that begins."""
        return cls(np.zeros((phases, _LINE), np.int64), threads)


# Not kept by itself but in what calls it: of a generator that is loaded, numba knows no state.
@njit
def pieces(work: Any, phase: Any, count: Any, among: Any, most: Any) -> Any:
    """Runs of a phase's pieces for this thread, as `(first, stop)`, each to be computed in its turn.

    When it ends, all `count` are done, and what was written of them can be read.

    Args:
        among: all pieces of a run are of the same group of so many.
        most: how many a run has at most.
    """
    first, stop = _claim(work, phase, count, among, most)
    while first < stop:
        yield first, stop
        _add((work.counters, phase * _LINE + 1), stop - first)
        first, stop = _claim(work, phase, count, among, most)
    _await_all(work, phase, count)


@compiled()
def _claim(work: Any, phase: Any, count: Any, among: Any, most: Any) -> Any:
    """The fewer are left, the fewer it gives, so that all threads end at the same time; then none."""
    place = phase * _LINE
    first = _read((work.counters, place))
    while first < count:
        fair = max(1, (count - first) // (2 * work.threads))
        taken = min(fair, most, among - first % among)
        found = _swap((work.counters, place), first, first + taken)
        if found == first:
            return first, first + taken
        first = found
    return count, count


@compiled()
def _await_all(work: Any, phase: Any, count: Any) -> None:
    looks = 0
    while _read((work.counters, phase * _LINE + 1)) < count:
        if looks < _LOOKS:
            looks += 1
            _pause()
        else:
            _sleep(types.uint32(_NAP_MICROSECONDS))


@intrinsic
def _read(typing: Any, place: Any) -> Any:
    write = lambda code: code.b.load_atomic(code.place(0).pointer, "acquire", 8)  # noqa: E731
    return generated(write, types.int64)(place)


@intrinsic
def _add(typing: Any, place: Any, number: Any) -> Any:
    def write(code: Code) -> None:
        code.b.atomic_rmw("add", code.place(0).pointer, code.arguments[1], "acq_rel")

    return generated(write)(place, types.int64)


@intrinsic
def _swap(typing: Any, place: Any, expected: Any, number: Any) -> Any:
    """Write `number` where `expected` is found; what was found."""

    def write(code: Code) -> Any:
        order = ("acq_rel", "acquire")
        found = code.b.cmpxchg(code.place(0).pointer, *code.arguments[1:], *order)
        return code.b.extract_value(found, 0)

    return generated(write, types.int64)(place, types.int64, types.int64)


@intrinsic
def _pause(typing: Any) -> Any:
    def write(code: Code) -> None:
        if binding.get_default_triple().startswith("x86"):
            name, arguments = "llvm.x86.sse2.pause", []
        else:
            name, arguments = "llvm.aarch64.hint", [I32(1)]
        form = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        code.b.call(cgutils.get_or_insert_function(code.b.module, form, name), arguments)

    return generated(write)()
