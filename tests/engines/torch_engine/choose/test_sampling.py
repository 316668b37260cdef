"""Drawing tokens: the right ones, in the right proportions, the same for the same seed."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from parrot_backend.engines.base import Sampling
from parrot_backend.engines.torch_engine.choose.sampling import Choices, Sampler
from parrot_backend.wire.errors import EngineError

CPU = torch.device("cpu")
LOGITS = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05]).log()


def choose_tokens(logits: torch.Tensor, samplers: list[Sampler]) -> list[Any]:
    return Choices(logits).choose(range(len(samplers)), samplers)


def draws(sampling: Sampling, count: int = 2000, logits: torch.Tensor = LOGITS) -> Counter[int]:
    sampler = Sampler(sampling, CPU)
    return Counter(choose_tokens(logits[None], [sampler])[0] for _ in range(count))


def test_temperature_zero_is_the_most_likely_token() -> None:
    rows = torch.tensor([[0.0, 3.0, 1.0], [5.0, 4.0, 4.9]])
    samplers = [Sampler(Sampling(temperature=t), CPU) for t in (0.0, 1e-9)]
    assert choose_tokens(rows, samplers) == [1, 0]


def test_temperature_one_draws_by_probability() -> None:
    counts = draws(Sampling(seed=1), 4000)
    for token, probability in enumerate([0.5, 0.2, 0.15, 0.1, 0.05]):
        assert counts[token] / 4000 == pytest.approx(probability, abs=0.03)


def test_a_higher_temperature_is_flatter() -> None:
    assert draws(Sampling(temperature=2.0, seed=1))[0] < draws(Sampling(seed=1))[0]
    assert draws(Sampling(temperature=0.5, seed=1))[0] > draws(Sampling(seed=1))[0]


def test_a_tiny_temperature_does_not_overflow() -> None:
    logits = torch.tensor([3000.0, -3000.0, 2999.0])
    assert draws(Sampling(temperature=1e-4, seed=1), 20, logits) == {0: 20}


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        (Sampling(top_k=2, seed=1), {0, 1}),
        (Sampling(top_k=1, seed=1), {0}),
        (Sampling(top_k=-1, seed=1), {0, 1, 2, 3, 4}),
        (Sampling(top_k=99, seed=1), {0, 1, 2, 3, 4}),
        (Sampling(top_p=0.6, seed=1), {0, 1}),
        (Sampling(top_p=0.8, seed=1), {0, 1, 2}),
        (Sampling(top_p=1e-9, seed=1), {0}),
        (Sampling(top_k=4, top_p=0.8, seed=1), {0, 1, 2}),
        (Sampling(min_p=0.25, seed=1), {0, 1, 2}),
        (Sampling(min_p=1.0, seed=1), {0}),
        (Sampling(min_p=0.15, top_k=3, seed=1), {0, 1, 2}),
        (Sampling(logit_bias={0: -100, 3: 1.0}, top_p=0.5, seed=1), {3, 1}),
    ],
)
def test_top_k_and_top_p_leave_the_likely_ones(sampling: Sampling, possible: set[int]) -> None:
    assert set(draws(sampling)) == possible


def test_top_p_is_the_same_found_among_the_first_or_by_sorting() -> None:
    logits = torch.randn(5000, generator=torch.Generator().manual_seed(1)) * 3
    probabilities = logits.softmax(-1)
    for p in (0.1, 0.5, 0.9, 0.99, 0.9999):
        ranked, order = probabilities.double().sort(descending=True)
        kept = order[: int((ranked.cumsum(-1) < p).sum()) + 1]
        sampler = Sampler(Sampling(top_p=p, seed=1), CPU)
        drawn = {choose_tokens(logits[None], [sampler])[0] for _ in range(300)}
        assert drawn <= set(kept.tolist())
        assert len(drawn) > 1 or len(kept) == 1


def choose(sampling: Sampling, prompt: list[int], generated: list[int]) -> int:
    sampler = Sampler(sampling, CPU, prompt=prompt)
    for token in generated:
        sampler.accept(token)
    (token,) = choose_tokens(torch.tensor([[3.0, 2.5, -1.0, -1.2]]), [sampler])
    assert isinstance(token, int)
    return token


@pytest.mark.parametrize(
    ("sampling", "prompt", "generated", "token"),
    [
        (Sampling(temperature=0, presence_penalty=0.4), [0], [0, 0], 0),
        (Sampling(temperature=0, presence_penalty=0.6), [0], [0], 1),
        (Sampling(temperature=0, presence_penalty=0.6), [0], [], 0),
        (Sampling(temperature=0, frequency_penalty=0.3), [0, 0], [0], 0),
        (Sampling(temperature=0, frequency_penalty=0.3), [], [0, 0], 1),
        (Sampling(temperature=0, frequency_penalty=-0.3), [], [1, 1], 1),
        (Sampling(temperature=0, repetition_penalty=1.3), [0], [], 1),
        (Sampling(temperature=0, repetition_penalty=1.3), [], [0], 1),
        (Sampling(temperature=0, repetition_penalty=0.5, logit_bias={1: -1.2}), [1], [], 0),
        (Sampling(temperature=0, logit_bias={2: 100}), [], [], 2),
        (Sampling(temperature=0, logit_bias={0: -100, 1: -100}), [], [], 2),
    ],
)
def test_bias_and_penalties_move_the_choice(
    sampling: Sampling, prompt: list[int], generated: list[int], token: int
) -> None:
    assert choose(sampling, prompt, generated) == token


def test_penalties_leave_the_logits_as_they_are() -> None:
    logits = torch.tensor([[3.0, 2.5, -1.0]])
    sampling = Sampling(temperature=0, repetition_penalty=2.0, logit_bias={2: 50})
    choose_tokens(logits, [Sampler(sampling, CPU, prompt=[0])])
    assert logits.tolist() == [[3.0, 2.5, -1.0]]


def test_rows_without_a_finite_maximum_fail_alone() -> None:
    rows = torch.zeros(4, 3)
    rows[0, 1] = torch.nan
    rows[1] = -torch.inf
    rows[2, 0] = torch.inf
    rows[3, 2] = 1.0
    samplers = [Sampler(Sampling(temperature=t, seed=1), CPU) for t in (0, 1, 1, 0)]
    chosen = choose_tokens(rows, samplers)
    assert [isinstance(token, EngineError) for token in chosen] == [True, True, True, False]
    assert chosen[3] == 2


@pytest.mark.parametrize("seed", [0, -(2**63), 2**63 - 1])
def test_every_seed_of_the_protocol_works(seed: int) -> None:
    assert draws(Sampling(seed=seed), 50) == draws(Sampling(seed=seed), 50)


def test_without_a_seed_draws_differ() -> None:
    flat = torch.zeros(1000)
    assert draws(Sampling(), 20, flat) != draws(Sampling(), 20, flat)


PENALIZED = {
    "min_p": 0.01,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.2,
    "logit_bias": {7: 3.0},
}


@pytest.mark.parametrize("more", [{}, PENALIZED], ids=["plain", "penalized"])
def test_a_seed_gives_the_same_tokens_alone_in_a_batch_and_after_preemption(
    make_stepper: Callable[..., Any], more: dict[str, Any]
) -> None:
    def sampling(seed: int) -> Sampling:
        return Sampling(temperature=1.3, top_p=0.95, top_k=200, seed=seed, max_tokens=30, **more)

    alone = []
    for number in range(6):
        stepper = make_stepper()
        client = stepper.add([3 + number] * 12, sampling(number))
        stepper.run()
        alone.append(client.tokens)
    for slots in (4096, 100):
        stepper = make_stepper(slots=slots)
        clients = [stepper.add([3 + number] * 12, sampling(number)) for number in range(6)]
        stepper.run()
        assert [client.tokens for client in clients] == alone
    assert stepper.preemptions > 0
    assert len({tuple(tokens) for tokens in alone}) == 6


def test_a_penalty_against_repetition_holds_over_a_whole_generation(
    make_stepper: Callable[..., Any],
) -> None:
    stepper = make_stepper()
    client = stepper.add([5, 6], Sampling(temperature=0, max_tokens=60, frequency_penalty=2.0))
    free = stepper.add([5, 6], Sampling(temperature=0, max_tokens=60))
    stepper.run()
    assert len(set(client.tokens)) > len(set(free.tokens))
