"""A step computes as much of prompts as fits into the time that it should take."""

from collections.abc import Callable
from typing import Any

import pytest

from parrot_backend.engines.torch_engine.schedule import stepper as stepper_module
from parrot_backend.engines.torch_engine.schedule.budget import PrefillBudget
from tests.engines.torch_engine.conftest import CheckedStepper


def learned(per_row: float, *, most: int = 2048) -> int:
    budget = PrefillBudget(most, 0.25)
    for _ in range(20):
        budget.learn(budget.tokens, budget.tokens * per_row)
    return budget.tokens


def test_it_is_as_many_tokens_as_the_time_is_enough_for() -> None:
    assert learned(0.002) == 120
    assert learned(0.0002) == 1248
    assert learned(0.0001) == 2048, "no more than is allowed"
    assert learned(0.1) == 48, "fewer take hardly less time"


def test_without_a_time_it_is_always_the_same() -> None:
    budget = PrefillBudget(512, None)
    budget.learn(512, 100.0)
    assert budget.tokens == 512


def test_steps_of_a_few_rows_tell_nothing_of_prompts() -> None:
    """They take as long as it takes to read the weights."""
    budget = PrefillBudget(2048, 0.25)
    before = budget.tokens
    budget.learn(4, 1.0)
    assert budget.tokens == before


def test_one_slow_step_does_not_make_the_next_ones_small() -> None:
    budget = PrefillBudget(2048, 0.25)
    for _ in range(20):
        budget.learn(240, 0.24)
    budget.learn(240, 0.72)
    assert budget.tokens > 120
    for _ in range(10):
        budget.learn(240, 0.24)
    assert budget.tokens > 230


def test_the_chunks_of_a_long_prompt_take_the_time_that_they_should(
    make_stepper: Callable[..., CheckedStepper],
    monkeypatch: pytest.MonkeyPatch,
    tiny_reference: Any,
) -> None:
    """Of a model that takes two milliseconds for a token."""
    stepper, now, took = make_stepper(prefill_budget=2048, step_seconds=0.25), [0.0], []
    compute = stepper.step_model.forward

    def slow(chunks: Any) -> Any:
        took.append(0.002 * sum(len(chunk.tokens) for chunk in chunks))
        now[0] += took[-1]
        return compute(chunks)

    monkeypatch.setattr(stepper.step_model, "forward", slow)
    monkeypatch.setattr(stepper_module, "perf_counter", lambda: now[0])
    client = stepper.add([5 + index % 200 for index in range(480)], drafts=False)
    while not client.tokens:
        stepper.step()
    assert len(took) == 4
    assert all(0.2 < seconds <= 0.26 for seconds in took[:3])
    stepper.run()
    tiny_reference.check(client.prompt, client.tokens, 12)
