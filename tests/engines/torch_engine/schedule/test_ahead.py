"""Prefill ahead: what is expected is computed in rows and slots that nobody else needs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from parrot_backend.engines.base import Sampling

Make = Callable[..., Any]
BEGINNING = [(7 * i * i + 3) % 250 + 2 for i in range(150)]


def greedy(count: int) -> Sampling:
    return Sampling(temperature=0, max_tokens=count)


def ahead(stepper: Any) -> tuple[int, int, int]:
    """Tokens prefilled ahead, and those of them that were used and wasted."""
    stats = stepper.stepper.stats
    return stats.tokens_prefilled_ahead, stats.tokens_ahead_used, stats.tokens_ahead_wasted


def test_an_idle_engine_computes_what_is_expected_and_the_call_finds_it(
    make_stepper: Make, tiny_reference: Any
) -> None:
    stepper = make_stepper()
    stepper.stepper.expect("call", "", BEGINNING)
    stepper.run()
    assert ahead(stepper) == (150, 0, 0)
    assert stepper.memory.used == 0
    client = stepper.add([*BEGINNING, 9, 9])
    stepper.run()
    assert client.last.cached_tokens == 150
    tiny_reference.check(client.prompt, client.tokens, 12)
    stepper.stepper.unexpect("call")
    assert ahead(stepper) == (150, 150, 0)
    assert stepper.stepper.stats.tokens_prefilled == 2


def test_switched_off_nothing_is_computed_ahead(make_stepper: Make) -> None:
    stepper = make_stepper(prefill_ahead=False)
    stepper.stepper.expect("call", "", BEGINNING)
    assert not stepper.stepper.busy


def test_beside_decodes_it_fills_the_last_tile_and_prompts_go_before_it(make_stepper: Make) -> None:
    stepper = make_stepper()
    running = [stepper.add([5 + n] * 9, greedy(30), drafts=False) for n in range(4)]
    stepper.stepper.expect("call", "", BEGINNING)
    stepper.step()
    assert ahead(stepper)[0] == 0, "prompts"
    stepper.step()
    assert ahead(stepper)[0] == 2, "four rows, and two to the end of the tile"
    more = [stepper.add([50 + n] * 9, greedy(30), drafts=False) for n in range(2)]
    stepper.step()
    stepper.step()
    assert ahead(stepper)[0] == 2, "prompts, then a full tile"
    assert all(len(client.tokens) == 4 for client in running)
    assert all(len(client.tokens) == 2 for client in more)


def test_a_longer_beginning_goes_on_behind_a_shorter_one(make_stepper: Make) -> None:
    stepper = make_stepper()
    stepper.stepper.expect("first", "", BEGINNING[:60])
    stepper.run()
    stepper.stepper.expect("second", "", BEGINNING)
    stepper.stepper.unexpect("first")
    stepper.run()
    assert ahead(stepper) == (150, 0, 0)
    stepper.add([*BEGINNING, 9], greedy(1))
    stepper.run()
    assert ahead(stepper) == (150, 150, 0)


def test_what_is_forgotten_stops_and_is_wasted(make_stepper: Make) -> None:
    stepper = make_stepper()
    stepper.stepper.expect("call", "", BEGINNING)
    stepper.step()
    stepper.stepper.unexpect("call")
    assert not stepper.stepper.busy
    assert ahead(stepper) == (128, 0, 128)


def test_another_tenants_call_uses_nothing_of_it(make_stepper: Make) -> None:
    stepper = make_stepper()
    stepper.stepper.expect("call", "one", BEGINNING)
    stepper.run()
    client = stepper.add([*BEGINNING, 9], greedy(1), tenant="other")
    stepper.run()
    assert client.last.cached_tokens == 0
    assert ahead(stepper) == (150, 0, 0)


def test_it_takes_no_slot_that_is_held_or_expected_and_waits_for_one(make_stepper: Make) -> None:
    stepper = make_stepper(slots=200)
    stepper.stepper.expect("kept", "", [9] * 100)
    stepper.run()
    stepper.stepper.expect("call", "", BEGINNING)
    stepper.run()
    assert stepper.memory.match("", [9] * 100) == 100
    assert stepper.memory.match("", BEGINNING) == 100, "as much as there was room for"
    assert stepper.memory.evicted == 0
    stepper.stepper.unexpect("kept")
    stepper.run()
    assert stepper.memory.match("", BEGINNING) == 150


def test_whoever_comes_takes_its_slots(make_stepper: Make, tiny_reference: Any) -> None:
    stepper = make_stepper(slots=200)
    stepper.stepper.expect("call", "", BEGINNING)
    stepper.run()
    client = stepper.add([9] * 180, greedy(8))
    stepper.run()
    tiny_reference.check(client.prompt, client.tokens, 8)


def test_a_step_that_fails_ends_it(make_stepper: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stepper = make_stepper()
    stepper.stepper.expect("call", "", BEGINNING)

    def broken(chunks: object) -> torch.Tensor:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(stepper.step_model, "forward", broken)
        stepper.step()
    assert not stepper.stepper.busy
    assert ahead(stepper) == (0, 0, 0)
