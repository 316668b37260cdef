"""Whatever the wire lets through, what is drawn is a token, and an allowed one where not all are."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from parrot_backend.endpoints.generation import sampling_of
from parrot_backend.engines.base import Sampling
from parrot_backend.engines.torch_engine.choose.sampling import Choices, Sampler
from parrot_backend.wire.errors import EngineError
from parrot_backend.wire.parameters import OPENAI_DEFAULTS, GenerationParameters

CPU = torch.device("cpu")
# Beside the bounds: what is 0, or hardly anything, in float32, and what is nearly 1.
TINY = [5e-324, 1e-300, 1e-46, 1e-45, 1e-38, 1.2e-7, 1e-5, 1 - 2**-53, 1 - 2**-24]
# The largest float32 and the smallest, and what a model really computes.
HUGE = [-math.inf, -3.4e38, 3.4e38, 1e37, -1e37, 1e-45, -1e-45, 0.0, 20.0]


def numbers(name: str) -> st.SearchStrategy[float]:
    """A parameter's values, its bounds first of all."""
    bounds = GenerationParameters.model_json_schema()["properties"][name]["anyOf"][0]
    above, high = bounds.get("exclusiveMinimum"), bounds["maximum"]
    low = bounds["minimum"] if above is None else math.nextafter(above, math.inf)
    assert low < high, name
    ends = [low, high, *(number for number in TINY if low <= number <= high)]
    return st.sampled_from(ends) | st.floats(low, high)


NUMBERS = [
    "temperature",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
]
parameters = st.fixed_dictionaries(
    {"seed": st.sampled_from([-(2**63), 0, 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1)},
    optional={name: numbers(name) for name in NUMBERS}
    | {
        "top_k": st.sampled_from([-1, 0, 1, 2, 255, 256, 257, 2**31 - 1]),
        "logit_bias": st.dictionaries(st.integers(0, 5), st.sampled_from([-100.0, 0.5, 100.0])),
    },
)


@st.composite
def logits(draw: st.DrawFn) -> torch.Tensor:
    """`[vocabulary]`: any numbers, of which the largest is finite."""
    size = draw(st.sampled_from([6, 7, 300]))
    scale = draw(st.sampled_from([0.0, 1.0, 20.0, 1e30]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    row = torch.randn(size, generator=generator) * scale
    for at in draw(st.sets(st.integers(0, size - 1), max_size=6)):
        row[at] = draw(st.sampled_from(HUGE))
    if row.max() == -math.inf:
        row[draw(st.integers(0, size - 1))] = 1.0
    return row


def sampler(told: dict[str, Any], vocabulary: int) -> Sampler:
    """With a prompt of half the tokens and an answer of some, so that penalties have their say."""
    sampling = sampling_of(GenerationParameters.model_validate(told), OPENAI_DEFAULTS)
    sampler = Sampler(sampling, CPU, prompt=range(0, vocabulary, 2))
    for token in [0, 1, 1, vocabulary - 1]:
        sampler.accept(token)
    return sampler


@settings(max_examples=600, deadline=None)
@example(row=torch.zeros(300), told={"seed": 0, "top_p": 1e-300})
@example(row=torch.zeros(300), told={"seed": 0, "top_p": 1e-300, "top_k": 1, "min_p": 1.0})
@example(row=torch.full((6,), 3.4e38), told={"seed": 0, "repetition_penalty": 0.01})
@example(row=torch.full((6,), -3.4e38), told={"seed": 0, "repetition_penalty": 100})
@given(row=logits(), told=parameters)
def test_what_is_drawn_is_a_token(row: torch.Tensor, told: dict[str, Any]) -> None:
    (token,) = Choices(row[None]).choose([0], [sampler(told, len(row))])
    assert isinstance(token, int)
    assert 0 <= token < len(row)


def choose_of(row: torch.Tensor, sampler: Sampler, allowed: torch.Tensor) -> Any:
    """What it chooses where a grammar allows these tokens."""
    sampler.constraint = SimpleNamespace(forced=[], check=lambda: None)  # type: ignore[assignment]
    choices = Choices(row[None])
    choices._masks = lambda _: {sampler: allowed}  # type: ignore[method-assign]
    (token,) = choices.choose([0], [sampler])
    return token


@settings(max_examples=600, deadline=None)
@example(row=torch.tensor([0.0, -torch.inf]), told={"seed": 0, "temperature": 0}, mask=[1])
@example(row=torch.tensor([0.0, -torch.inf]), told={"seed": 0, "top_p": 1e-300}, mask=[1])
@given(
    row=logits(),
    told=parameters,
    mask=st.lists(st.integers(0, 299), min_size=1, max_size=8),
)
def test_what_is_drawn_is_allowed(row: torch.Tensor, told: dict[str, Any], mask: list[int]) -> None:
    allowed = torch.zeros(len(row), dtype=torch.bool)
    allowed[[token % len(row) for token in mask]] = True
    before = row.clone()
    token = choose_of(row, sampler(told, len(row)), allowed)
    assert torch.equal(row, before), "they are told as they were"
    assert 0 <= token < len(row)
    assert allowed[token]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_nothing_is_allowed_there_is_an_error(temperature: float) -> None:
    nothing = torch.zeros(6, dtype=torch.bool)
    told = choose_of(torch.zeros(6), Sampler(Sampling(temperature=temperature), CPU), nothing)
    assert isinstance(told, EngineError)
    assert "no token" in told.message
