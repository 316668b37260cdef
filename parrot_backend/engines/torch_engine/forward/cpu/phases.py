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
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from parrot_backend.engines.torch_engine.forward.cpu.compiling import compiled
from parrot_backend.engines.torch_engine.forward.cpu.vectors import I32, Code, generated

# A cache line for each phase.
_LINE = 8
# Where all have a core, a phase's last pieces are done within some 10 us, which this many looks take;
# whoever has lost its core comes back after milliseconds. Waiting asleep gives it ours.
_LOOKS = 300
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


@compiled()
def claim(work: Any, phase: Any, count: Any, among: Any, most: Any) -> Any:
    """Some pieces of a phase of `count`, from the first to before the last; none are left where equal.

    The fewer are left, the fewer it gives, so that all threads end at the same time.

    Args:
        among: all are of the same group of so many.
        most: how many it gives at most.
    """
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
def finished(work: Any, phase: Any, pieces: Any) -> None:
    """So many pieces that were claimed are done."""
    _add((work.counters, phase * _LINE + 1), pieces)


@compiled()
def await_all(work: Any, phase: Any, count: Any) -> None:
    """Return when all pieces of a phase are done, and what was written can be read."""
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
