"""The innermost loops of products and of attention: some rows and columns at a time, in registers.

Every number that comes out is summed in one order, along the depth of its product, whatever is computed
beside it. So a token's numbers are the same bits alone, in a batch, in a prompt's chunk or after a
preemption.

Operands are tuples of an array, the element that they begin with and the stride of their rows. Two
pairs of types are multiplied:

    float32 x float32     sums in float32; instead of the second also float16, as the bits of an int16
    int16 x int8          sums in int32, exact as long as they fit; the depth lies in pairs
"""

from typing import Any

from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

from parrot_backend.engines.torch_engine.forward.cpu.vectors import (
    F32,
    I8,
    I16,
    I32,
    I64,
    Code,
    Place,
    generated,
)

# A 512-bit vector holds sixteen numbers of 32 bits, a 256-bit one eight.
LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8
# Six rows of two vectors fit into sixteen registers beside their operands, and two rows' four products
# of whole vectors.
COLUMNS = 2 * LANES
TILE_ROWS = 6
KEYS = 4
QUERIES = 2
# Attention's vectors: a head's width is a multiple of two of them.
HEAD_LANES = 8
HEAD_COLUMNS = 2 * HEAD_LANES


class _FloatStep:
    """One element of depth: a number of each row, a row of the second operand."""

    depth = unrolled = 1

    def __init__(self, code: Code, lanes: int) -> None:
        self._code, self._lanes = code, lanes
        self.sums = ir.VectorType(F32, lanes)

    def first(self, place: Place) -> Any:
        return self._code.splat(place.load(F32), self._lanes)

    def second(self, row: Place, vector: int) -> Any:
        return row.moved(I64(vector * self._lanes)).floats(self._lanes)

    def added(self, total: Any, x: Any, w: Any) -> Any:
        return self._code.fma(x, w, total)


class _IntegerStep:
    """A pair of depth: two numbers of each row, and the pairs of the second operand's columns.

    What is written as a widening product and a sum of neighbours is one instruction (`pmaddwd`).
    """

    depth = unrolled = 2

    def __init__(self, code: Code, lanes: int) -> None:
        self._code, self._lanes = code, lanes
        self.sums = ir.VectorType(I32, lanes)

    def first(self, place: Place) -> Any:
        pair = self._code.splat(place.load(I32), self._lanes)
        return self._code.b.bitcast(pair, ir.VectorType(I16, 2 * self._lanes))

    def second(self, row: Place, vector: int) -> Any:
        pairs = row.moved(I64(2 * vector * self._lanes)).load(ir.VectorType(I8, 2 * self._lanes))
        return self._code.b.sext(pairs, ir.VectorType(I16, 2 * self._lanes))

    def added(self, total: Any, x: Any, w: Any) -> Any:
        b, wide = self._code.b, ir.VectorType(I32, 2 * self._lanes)
        products = b.mul(b.sext(x, wide), b.sext(w, wide))
        lefts, rights = (
            self._code.shuffle(products, products, range(first, 2 * self._lanes, 2))
            for first in (0, 1)
        )
        return b.add(total, b.add(lefts, rights))


def _tile(rows: int, lanes: int) -> Any:
    def write(code: Code) -> None:
        x, w, sums = (code.place(index) for index in (0, 1, 3))
        step = (_IntegerStep if x.kind == types.int16 else _FloatStep)(code, lanes)
        places = [
            sums.row(row).moved(I64(vector * lanes)) for row in range(rows) for vector in (0, 1)
        ]

        def body(index: Any, totals: list[Any]) -> list[Any]:
            totals = list(totals)
            for turn in range(step.unrolled):
                here = code.b.add(index, I64(turn))
                row_of_w = w.moved(code.b.mul(here, w.stride))
                seconds = [step.second(row_of_w, vector) for vector in (0, 1)]
                along = code.b.mul(here, I64(step.depth))
                for row in range(rows):
                    first = step.first(x.row(row).moved(along))
                    for vector, second in enumerate(seconds):
                        place = 2 * row + vector
                        totals[place] = step.added(totals[place], first, second)
            return totals

        before = [place.load(step.sums) for place in places]
        after = code.loop(code.arguments[2], step.unrolled, before, body)
        for place, total in zip(places, after, strict=True):
            place.store(total)

    @intrinsic
    def tile(typing: Any, x: Any, w: Any, depth: Any, sums: Any) -> Any:
        return generated(write)(x, w, types.intp, sums)

    return tile


def _multiplier(lanes: int) -> Any:
    one, two, three, four, five, six = (_tile(rows, lanes) for rows in range(1, TILE_ROWS + 1))

    @njit(inline="always")
    def multiply(rows: Any, x: Any, w: Any, depth: Any, sums: Any) -> None:
        if rows == 6:
            six(x, w, depth, sums)
        elif rows == 5:
            five(x, w, depth, sums)
        elif rows == 4:
            four(x, w, depth, sums)
        elif rows == 3:
            three(x, w, depth, sums)
        elif rows == 2:
            two(x, w, depth, sums)
        else:
            one(x, w, depth, sums)

    return multiply


# `multiply(rows, x, w, depth, sums)` adds to `sums` `[rows, COLUMNS]` the product of `x` and `w`, for 1
# to `TILE_ROWS` rows. In whole numbers `depth` counts pairs, and is even.
multiply = _multiplier(LANES)
# The same for `HEAD_COLUMNS`.
multiply_head = multiply if LANES == HEAD_LANES else _multiplier(HEAD_LANES)


def _dots(rows: int) -> Any:
    def write(code: Code) -> None:
        queries, keys, sums = (code.place(index) for index in (0, 1, 4))
        depth, count = code.arguments[2:4]
        zero = code.number(0.0, ir.VectorType(F32, HEAD_LANES))

        def score(key: Any, _: list[Any]) -> list[Any]:
            here = keys.moved(code.b.mul(key, keys.stride))

            def body(index: Any, totals: list[Any]) -> list[Any]:
                seconds = [here.row(row).moved(index).floats(HEAD_LANES) for row in range(KEYS)]
                firsts = [queries.row(row).moved(index).floats(HEAD_LANES) for row in range(rows)]
                pairs = [(first, second) for first in firsts for second in seconds]
                return [code.fma(*pair, total) for pair, total in zip(pairs, totals, strict=True)]

            totals = code.loop(depth, HEAD_LANES, [zero] * (rows * KEYS), body)
            for row in range(rows):
                of_row = totals[row * KEYS : (row + 1) * KEYS]
                sums.row(row).moved(key).store(_totals(code, of_row))
            return []

        code.loop(count, KEYS, [], score)

    @intrinsic
    def dots(typing: Any, queries: Any, keys: Any, depth: Any, count: Any, sums: Any) -> Any:
        return generated(write)(queries, keys, types.intp, types.intp, sums)

    return dots


def _totals(code: Code, vectors: list[Any]) -> Any:
    """The sum of each of four vectors, as one, all by the same tree."""
    low, high = [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]
    left, right = (
        code.b.fadd(code.shuffle(a, b, low), code.shuffle(a, b, high))
        for a, b in (vectors[:2], vectors[2:])
    )
    low, high = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
    halves = code.b.fadd(code.shuffle(left, right, low), code.shuffle(left, right, high))
    return code.b.fadd(*(code.shuffle(halves, halves, range(at, at + 4)) for at in (0, 4)))


_one_dots, _two_dots = _dots(1), _dots(2)


@njit(inline="always")
def dots(rows: Any, queries: Any, keys: Any, depth: Any, count: Any, sums: Any) -> None:
    """`sums` `[rows, count]`: products of 1 or 2 queries and `count` keys, of `depth` numbers each.

    Up to three numbers behind the count are written as well.
    """
    if rows == 2:
        _two_dots(queries, keys, depth, count, sums)
    else:
        _one_dots(queries, keys, depth, count, sums)


@intrinsic
def finish(
    typing: Any, sums: Any, row_scale: Any, scales: Any, bias: Any, out: Any, add: Any
) -> Any:
    """A row of a tile, scaled and with its bias, into `out` or, with `add`, on top of it."""

    def write(code: Code) -> None:
        for vector in (0, 1):
            value = _scaled(code, vector)
            out = code.place(4).moved(I64(vector * LANES))
            before = code.b.select(
                code.arguments[5], out.load(value.type), code.number(0.0, value.type)
            )
            out.store(code.b.fadd(value, before))

    return generated(write)(sums, types.float32, scales, bias, out, types.boolean)


@intrinsic
def finish_gate(typing: Any, sums: Any, row_scale: Any, scales: Any, bias: Any, out: Any) -> Any:
    """Of a row of a tile, scaled and with its bias: SiLU of its first vector, times its second."""

    def write(code: Code) -> None:
        gate, up = _scaled(code, 0), _scaled(code, 1)
        divisor = code.b.fadd(code.exp(code.b.fneg(gate)), code.number(1.0, gate.type))
        code.place(4).store(code.b.fmul(code.b.fdiv(gate, divisor), up))

    return generated(write)(sums, types.float32, scales, bias, out)


def _scaled(code: Code, vector: int) -> Any:
    sums, scales, bias = (code.place(index).moved(I64(vector * LANES)) for index in (0, 2, 3))
    if sums.kind == types.int32:
        whole = sums.load(ir.VectorType(I32, LANES))
        total = code.b.sitofp(whole, ir.VectorType(F32, LANES))
    else:
        total = sums.floats(LANES)
    scale = code.b.fmul(scales.floats(LANES), code.splat(code.arguments[1], LANES))
    return code.fma(total, scale, bias.floats(LANES))


@intrinsic
def softmax(typing: Any, scores: Any, count: Any, scaling: Any) -> Any:
    """Make exponentials of scaled scores, relative to the largest; returns their sum.

    Up to a vector behind the `count` scores becomes zero.
    """

    def write(code: Code) -> Any:
        [scores], [count, scaling] = [code.place(0)], code.arguments[1:]
        kind, lanes = ir.VectorType(F32, HEAD_LANES), ir.VectorType(I64, HEAD_LANES)
        lowest, zero = code.number(float("-inf"), kind), code.number(0.0, kind)
        end = code.splat(count, HEAD_LANES)

        def seen(index: Any) -> Any:
            numbers = ir.Constant(lanes, list(range(HEAD_LANES)))
            here = code.b.add(code.splat(index, HEAD_LANES), numbers)
            return code.b.icmp_signed("<", here, end)

        def compare(index: Any, largest: list[Any]) -> list[Any]:
            score = code.b.select(seen(index), scores.moved(index).floats(HEAD_LANES), lowest)
            return [code.larger(score, largest[0])]

        def weigh(index: Any, totals: list[Any]) -> list[Any]:
            place = scores.moved(index)
            score = code.b.fsub(place.floats(HEAD_LANES), largest)
            exponential = code.exp(code.b.fmul(score, code.splat(scaling, HEAD_LANES)))
            weight = code.b.select(seen(index), exponential, zero)
            place.store(weight)
            return [code.b.fadd(totals[0], weight)]

        [largest] = code.loop(count, HEAD_LANES, [lowest], compare)
        for distance in (4, 2, 1):
            turned = [lane ^ distance for lane in range(HEAD_LANES)]
            largest = code.larger(largest, code.shuffle(largest, largest, turned))
        [totals] = code.loop(count, HEAD_LANES, [zero], weigh)
        parts = [code.b.extract_element(totals, I32(lane)) for lane in range(HEAD_LANES)]
        total = parts[0]
        for part in parts[1:]:
            total = code.b.fadd(total, part)
        return total

    return generated(write, types.float32)(scores, types.intp, types.float32)
