"""Products of rows with packed weights, against torch's."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional

from parrot_backend.engines.torch_engine.forward.cpu.microkernels import COLUMNS, LANES
from parrot_backend.engines.torch_engine.forward.cpu.packing import Packed, pack, side_by_side
from parrot_backend.engines.torch_engine.forward.cpu.phases import Work
from parrot_backend.engines.torch_engine.forward.cpu.products import ADD, GATE, STORE, product
from parrot_backend.engines.torch_engine.forward.cpu.rows import normalized, operand
from parrot_backend.engines.torch_engine.forward.cpu.team import together
from parrot_backend.engines.torch_engine.forward.layer_weights import Affine

ROWS = [1, 2, 5, 6, 7, 16, 200]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8)


@njit
def _operand(
    x: np.ndarray, packed: Packed, rows: np.ndarray, steps: np.ndarray, work: Work
) -> tuple:
    return operand(x, packed, rows, steps, work, 0)


@njit
def _normalized(
    x: np.ndarray,
    weight: np.ndarray,
    packed: Packed,
    rows: np.ndarray,
    steps: np.ndarray,
    work: Work,
) -> tuple:
    return normalized(x, weight, 1e-5, packed, rows, steps, work, 0)


@njit(nogil=True)
def _product(
    x: np.ndarray,
    depth: int,
    steps: np.ndarray,
    packed: Packed,
    out: np.ndarray,
    finish: int,
    work: Work,
) -> None:
    product(x, depth, steps, packed, out, finish, work, 0)


def multiply(x: Tensor, affine: Affine, finish: int = STORE, out: Tensor | None = None) -> Tensor:
    """As a layer does it, with buffers of the layer's kind."""
    packed = pack(affine)
    kind = np.float32 if affine.scales is None else np.int16
    rows, steps = np.empty(x.numel() + 4 * len(x), kind), np.ones(len(x), np.float32)
    numbers, depth = _operand(x.numpy(), packed, rows, steps, Work.of(1, 1))
    width = len(packed.scales) // (2 if finish == GATE else 1)
    out = torch.empty(len(x), width) if out is None else out
    together(_product, 1, numbers, depth, steps, packed, out.numpy(), finish)
    return out


@pytest.mark.parametrize("count", ROWS)
@pytest.mark.parametrize(("outputs", "depth"), [(COLUMNS, 24), (5 * COLUMNS, 576), (40, 1500)])
def test_in_float32_it_is_a_linear_layer(count: int, outputs: int, depth: int) -> None:
    weight, bias, x = random(outputs, depth), random(outputs, seed=1), random(count, depth, seed=2)
    got = multiply(x, Affine(weight, bias))[:, :outputs]
    torch.testing.assert_close(got, functional.linear(x, weight, bias), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("count", ROWS)
@pytest.mark.parametrize(("outputs", "depth"), [(COLUMNS, 24), (5 * COLUMNS, 574), (40, 3001)])
def test_in_8_bits_it_is_exact_for_whole_numbers(count: int, outputs: int, depth: int) -> None:
    """Rows whose largest number is a level are in whole steps already."""
    weight, steps = whole(outputs, depth), random(outputs, seed=1).abs() + 0.1
    affine = Affine(weight, None, steps)
    levels = int(pack(affine).levels)
    x = torch.randint(-levels, levels + 1, (count, depth))
    x[:, 0] = levels
    expected = (x.double() @ weight.double().T) * steps
    got = multiply(x.float(), affine)[:, :outputs]
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=1e-3)


def test_no_sum_is_too_large_for_32_bits() -> None:
    weight = torch.full((COLUMNS, 20_000), 127, dtype=torch.int8)
    x = torch.ones(3, 20_000)
    affine = Affine(weight, None, torch.ones(COLUMNS))
    torch.testing.assert_close(multiply(x, affine), torch.full((3, COLUMNS), 127.0 * 20_000))
    assert pack(affine).levels * 127 * 20_000 < 2**31


@pytest.mark.parametrize("affine", [Affine(random(64, 48), random(64, seed=1)), None])
def test_it_is_added_to_what_is_there(affine: Affine | None) -> None:
    affine = affine or Affine(whole(64, 48), random(64, seed=1), random(64).abs())
    x, before = random(9, 48, seed=2), random(9, 64, seed=3)
    expected = multiply(x, affine) + before
    torch.testing.assert_close(multiply(x, affine, ADD, before.clone()), expected)


@pytest.mark.parametrize("outputs", [LANES, 3 * LANES, 44])
@pytest.mark.parametrize("int8", [False, True])
def test_gates(outputs: int, int8: bool) -> None:
    def side(seed: int) -> Affine:
        if int8:
            return Affine(whole(outputs, 32, seed=seed), None, random(outputs).abs() / 100)
        return Affine(random(outputs, 32, seed=seed), random(outputs, seed=seed + 1))

    x = random(7, 32, seed=4)
    x[0] *= 1000
    gate, up = side(5), side(7)
    expected = functional.silu(multiply(x, gate)) * multiply(x, up)
    got = multiply(x, side_by_side(gate, up), GATE)[:, :outputs]
    torch.testing.assert_close(got, expected[:, :outputs], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("int8", [False, True])
def test_a_row_is_the_same_bits_whatever_is_beside_it(int8: bool) -> None:
    affine = Affine(whole(96, 700), None, random(96)) if int8 else Affine(random(96, 700), None)
    x = random(250, 700, seed=1)
    x[3] *= 1000
    together = multiply(x, affine)
    for rows in (slice(0, 1), slice(3, 4), slice(5, 21), slice(20, 250)):
        assert torch.equal(multiply(x[rows].contiguous(), affine), together[rows])


def in_steps(normed: bool) -> Callable[[Tensor], Tensor]:
    def get(x: Tensor) -> Tensor:
        """The rows as a product in 8 bits sees them."""
        packed = pack(Affine(whole(16, x.shape[1]), None, torch.ones(16)))
        rows, steps = np.empty(x.numel() + 4 * len(x), np.int16), np.empty(len(x), np.float32)
        weight = np.full(x.shape[1], 1.5, np.float32)
        if normed:
            numbers, depth = _normalized(x.numpy(), weight, packed, rows, steps, Work.of(1, 1))
        else:
            numbers, depth = _operand(x.numpy(), packed, rows, steps, Work.of(1, 1))
        seen = torch.from_numpy(numbers[: depth * len(x)].reshape(len(x), depth))
        return seen[:, : x.shape[1]] * torch.from_numpy(steps)[:, None]

    return get


def test_rows_keep_16_bits() -> None:
    x = random(4, 66) * torch.tensor([[1e-6], [1.0], [50.0], [1e6]])
    largest = x.abs().amax(1, keepdim=True)
    assert ((in_steps(False)(x) - x).abs() <= largest / 2**15).all()
    norm = 1.5 * functional.rms_norm(x, (66,), eps=1e-5)
    largest = norm.abs().amax(1, keepdim=True)
    assert ((in_steps(True)(x) - norm).abs() <= 1.01 * largest / 2**15).all()


@pytest.mark.parametrize("normed", [False, True])
def test_zeros_stay_zeros_and_nan_is_not_hidden(normed: bool) -> None:
    x = random(4, 66)
    x[1], x[2, 7], x[3, 8] = 0, torch.nan, torch.inf
    got = in_steps(normed)(x)
    assert (got[1] == 0).all()
    assert got[0].isfinite().all()
    assert not got[2:].isfinite().any()
