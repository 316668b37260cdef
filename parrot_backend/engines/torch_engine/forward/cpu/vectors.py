"""LLVM's vectors, which numba's own code does not have: what the tiles are written in."""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

F32, F16 = ir.FloatType(), ir.HalfType()
I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))

# 2 to the power of something from -1/2 to 1/2, as a polynomial, from its highest term.
_POWER_TERMS = (
    1.535336188319500e-4,
    1.339887440266574e-3,
    9.618437357674640e-3,
    5.550332471162809e-2,
    2.402264791363012e-1,
    6.931472028550421e-1,
    1.0,
)
_LOG2_E = 1.4426950408889634
# Adding and subtracting it rounds a float32; the sum's lowest bits are the whole number.
_ROUNDING = 12582912.0


class Code:
    """A builder of LLVM's code. `types` are numba's types of the `arguments`.

    An array comes as a tuple `(array, first)` or `(array, first, stride)`, which count elements.
    """

    def __init__(self, context: Any, builder: Any, kinds: Any, arguments: Any) -> None:
        self.b, self._context = builder, context
        self.types, self.arguments = kinds, arguments

    def place(self, index: int) -> "Place":
        """Where argument number `index`, a tuple, points to."""
        kinds, value = self.types[index], self.arguments[index]
        array, *numbers = (self.b.extract_value(value, part) for part in range(len(kinds)))
        data = self._context.make_array(kinds[0])(self._context, self.b, array).data
        first, *stride = (
            self._context.cast(self.b, number, kind, types.intp)
            for number, kind in zip(numbers, kinds[1:], strict=True)
        )
        return Place(self, kinds[0].dtype, self.b.gep(data, [first]), *stride)

    def number(self, value: float, like: Any) -> Any:
        """A constant in every lane."""
        return ir.Constant(like, [value] * like.count)

    def splat(self, scalar: Any, lanes: int) -> Any:
        """A scalar in every lane."""
        undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
        first = self.b.insert_element(undefined, scalar, I32(0))
        return self.shuffle(first, undefined, [0] * lanes)

    def shuffle(self, left: Any, right: Any, lanes: Sequence[int]) -> Any:
        """A vector of the `lanes` of two."""
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return self.b.shuffle_vector(left, right, mask)

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """`x * y + z`, rounded once."""
        kind = z.type
        form = ir.FunctionType(kind, [kind] * 3)
        name = f"llvm.fma.v{kind.count}f32"
        return self.b.call(cgutils.get_or_insert_function(self.b.module, form, name), [x, y, z])

    def larger(self, x: Any, y: Any) -> Any:
        """The larger of two, lane by lane; `y` where one is NaN."""
        return self.b.select(self.b.fcmp_ordered(">", x, y), x, y)

    def exp(self, x: Any) -> Any:
        """The exponential of each float32, to 5e-6 of it, as if none was beyond 87 or -87.

        The whole part of the power of 2 goes into the exponent's bits.
        """
        whole = ir.VectorType(I32, x.type.count)
        most = self.number(87.0, x.type)
        x = self.larger(self.number(-87.0, x.type), x)
        x = self.b.select(self.b.fcmp_ordered("<", most, x), most, x)
        power = self.b.fmul(x, self.number(_LOG2_E, x.type))
        shifted = self.b.fadd(power, self.number(_ROUNDING, x.type))
        rounded = self.b.fsub(shifted, self.number(_ROUNDING, x.type))
        rest = self.b.fsub(power, rounded)
        total = self.number(_POWER_TERMS[0], x.type)
        for term in _POWER_TERMS[1:]:
            total = self.fma(total, rest, self.number(term, x.type))
        bits = self.b.shl(self.b.bitcast(shifted, whole), self.number(23, whole))
        return self.b.bitcast(self.b.add(self.b.bitcast(total, whole), bits), x.type)

    def loop(self, count: Any, step: int, values: list[Any], body: Callable[..., list[Any]]) -> Any:
        """`values = body(i, values)` for i = 0, step, .. below `count`; at least once."""
        before = self.b.block
        inside, after = (self.b.function.append_basic_block(name) for name in ("loop", "after"))
        self.b.branch(inside)
        self.b.position_at_end(inside)
        index = self.b.phi(I64)
        index.add_incoming(I64(0), before)
        phis = [self.b.phi(value.type) for value in values]
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(value, before)
        results = body(index, phis)
        following = self.b.add(index, I64(step))
        index.add_incoming(following, self.b.block)
        for phi, result in zip(phis, results, strict=True):
            phi.add_incoming(result, self.b.block)
        self.b.cbranch(self.b.icmp_signed("<", following, count), inside, after)
        self.b.position_at_end(after)
        return results


class Place:
    """Where elements of one type lie; row r begins r times `stride` later."""

    def __init__(self, code: Code, kind: Any, pointer: Any, stride: Any = None) -> None:
        self._code, self.kind, self.pointer, self.stride = code, kind, pointer, stride

    def row(self, row: int) -> "Place":
        """Row number `row`."""
        return self.moved(self._code.b.mul(I64(row), self.stride))

    def moved(self, *elements: Any) -> "Place":
        """So many elements later."""
        pointer = self.pointer
        for count in elements:
            pointer = self._code.b.gep(pointer, [count])
        return Place(self._code, self.kind, pointer, self.stride)

    def load(self, kind: Any) -> Any:
        """A scalar or a vector; no more is known than that it lies there."""
        return self._code.b.load(self._code.b.bitcast(self.pointer, kind.as_pointer()), align=1)

    def floats(self, lanes: int) -> Any:
        """A vector of float32, of elements of that type or of float16 kept as int16."""
        if self.kind == types.float32:
            return self.load(ir.VectorType(F32, lanes))
        halves = self.load(ir.VectorType(F16, lanes))
        return self._code.b.fpext(halves, ir.VectorType(F32, lanes))

    def store(self, value: Any) -> None:
        """Write a vector."""
        self._code.b.store(
            value, self._code.b.bitcast(self.pointer, value.type.as_pointer()), align=1
        )


def generated(write: Callable[[Code], Any], result: Any = types.void) -> Callable[..., Any]:
    """What a typing function of `numba.extending.intrinsic` returns for code that `write` writes."""

    def typed(*kinds: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value = write(Code(context, builder, signature.args, arguments))
            return context.get_dummy_value() if value is None else value

        return result(*kinds), generate

    return typed


@intrinsic
def half_bits(typing: Any, number: Any) -> Any:
    """The bits of a float32 as the nearest float16, in an int16."""
    write = lambda code: code.b.bitcast(code.b.fptrunc(code.arguments[0], F16), I16)  # noqa: E731
    return generated(write, types.int16)(types.float32)
