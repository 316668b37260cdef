"""Drafts and forced tokens change the number of steps, and nothing that anybody is told."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.engines.base import Delta, Grammar, Sampling
from parrot_backend.engines.torch_engine.choose.constraints import Grammars
from parrot_backend.engines.torch_engine.choose.vocabulary import Vocabulary
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel
from parrot_backend.engines.torch_engine.schedule.drafting import Drafter, Lookup, Match

Make = Callable[..., Any]
words = st.lists(st.sampled_from([1, 1, 1, 2, 3]), max_size=40)

SAMPLINGS = {
    "greedy": Sampling(temperature=0, max_tokens=40),
    "seeded": Sampling(temperature=1.0, top_p=0.95, top_k=100, seed=5, max_tokens=40),
    "penalized": Sampling(
        temperature=0.8,
        seed=6,
        min_p=0.01,
        presence_penalty=0.5,
        frequency_penalty=0.5,
        repetition_penalty=1.2,
        logit_bias={7: 3.0},
        max_tokens=40,
    ),
    "logprobs": Sampling(temperature=0.9, seed=7, logprobs=3, max_tokens=40),
}


def greedy(count: int, *stop: str) -> Sampling:
    return Sampling(temperature=0, max_tokens=count, stop=stop)


def naive_find(tokens: list[int], text: list[int], most: int) -> Match:
    """Of the latest 16 places behind the text's last pair, the one that agrees the longest."""
    places = [p for p in range(2, len(tokens)) if tokens[p - 2 : p] == text[-2:]][-16:]
    if not places:
        return Match(0, [])
    place = max(places, key=lambda p: (agreement(tokens[:p], text), p))
    return Match(agreement(tokens[:place], text), tokens[place : place + most])


def agreement(before: list[int], text: list[int]) -> int:
    length = 0
    while length < min(len(before), len(text), 16) and before[-1 - length] == text[-1 - length]:
        length += 1
    return length


@given(st.lists(words, max_size=6), words, st.integers(1, 9))
def test_the_index_finds_what_a_search_finds(
    parts: list[list[int]], text: list[int], most: int
) -> None:
    tokens: list[int] = []
    lookup = Lookup(tokens)
    for part in parts:
        tokens += part
        for wanted in (text, tokens):
            assert lookup.find(wanted, most) == naive_find(tokens, wanted, most)


def test_a_draft_is_twice_as_long_as_what_agrees_and_prefers_the_reference() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2]
    assert Drafter(tokens).draft(99, 1, []) == [3, 4, 5, 6]
    assert Drafter(tokens).draft(3, 1, []) == [3, 4, 5]
    assert Drafter([*tokens, 10]).draft(99, 1, []) == []
    drafter = Drafter([5, 6], [1, 2, 30, 40])
    assert drafter.draft(99, 1, []) == [1, 2, 30, 40], "an answer begins as its reference does"
    drafter = Drafter(text := list(tokens), [1, 2, 30, 40])
    text += [1, 2]
    assert drafter.draft(99, 1, []) == [30, 40]
    assert drafter.draft(99, 1, [50, 60]) == [50, 60], "what came before goes before both"


def test_a_draft_goes_round_with_a_text_that_does() -> None:
    assert Drafter([7, 1, 2, 3, 1, 2, 3, 1, 2]).draft(12, 1, []) == [3, 1, 2] * 3 + [3]
    assert Drafter([5, 5, 5, 5]).draft(4, 1, []) == [5, 5, 5, 5]


def drafts_of(rows: int, accepted: int, steps: int = 1000) -> int:
    """Drafts in so many steps of a text that always has a match, which is never quite right."""
    drafter = Drafter([1, 2, 3, 4, 5, 6, 7, 1, 2])
    drafts = [draft for _ in range(steps) if (draft := learnt(drafter, rows, accepted))]
    return len(drafts)


def learnt(drafter: Drafter, rows: int, accepted: int) -> list[int]:
    if draft := drafter.draft(4, rows, []):
        drafter.learn(len(draft), accepted)
    return draft


def test_drafts_that_fail_become_rare_and_those_that_pay_do_not() -> None:
    assert drafts_of(rows=1, accepted=0) < 30
    assert drafts_of(rows=1, accepted=1) == 1000, "beside one row, a quarter is enough"
    assert drafts_of(rows=12, accepted=1) < 30, "beside twelve it is not"
    assert drafts_of(rows=12, accepted=3) == 1000


def test_after_a_success_drafts_are_tried_again_at_once() -> None:
    drafter = Drafter([1, 2, 3, 4, 5, 6, 7, 1, 2])
    for _ in range(200):
        learnt(drafter, 1, 0)
    while not drafter.draft(4, 1, []):
        pass
    drafter.learn(4, 4)
    assert all(learnt(drafter, 1, 4) for _ in range(20))


# What a sequence says


def reference_of(tokens: list[int], every: int) -> list[int]:
    return [t if (i + 1) % every else 2 + t % 250 for i, t in enumerate(tokens)]


def run_alone(stepper: Any, prompt: list[int], sampling: Sampling, **options: Any) -> Any:
    client = stepper.add(prompt, sampling, tenant=str(stepper.steps), **options)
    stepper.run()
    return client


def told(client: Any) -> tuple[list[int], str, Any]:
    assert isinstance(client.last, Delta), client.last
    return client.tokens, client.text, client.last.finish_reason


def logprobs_of(client: Any) -> list[Any]:
    return [logprobs for delta in client.events for logprobs in delta.logprobs]


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_drafts_change_nothing_that_is_told(make_stepper: Make, sampling: Sampling) -> None:
    """References that are right, wrong in every ninth or third token, and wrong altogether."""
    stepper = make_stepper()
    prompt = [9, 8, 7, 9, 8]
    without = run_alone(stepper, prompt, sampling, drafts=False)
    assert stepper.stepper.stats.tokens_drafted == 0
    for every, accepted in ((99, 32), (9, 16), (3, 1), (1, 0)):
        before = stepper.stepper.stats
        client = run_alone(stepper, prompt, sampling, draft=reference_of(without.tokens, every))
        assert told(client) == told(without)
        check_logprobs(client, without)
        stats = stepper.stepper.stats
        assert stats.tokens_generated - before.tokens_generated == len(without.tokens)
        assert stats.tokens_accepted - before.tokens_accepted >= accepted
        assert stats.tokens_drafted - before.tokens_drafted >= max(1, accepted)


def check_logprobs(client: Any, expected: Any) -> None:
    for got, wanted in zip(logprobs_of(client), logprobs_of(expected), strict=True):
        assert got.chosen.token == wanted.chosen.token
        assert got.chosen.logprob == pytest.approx(wanted.chosen.logprob, abs=1e-4)
        assert [c.token for c in got.top] == [c.token for c in wanted.top]


def test_what_was_said_before_to_the_same_prompt_is_drafted(make_stepper: Make) -> None:
    stepper = make_stepper()
    prompt = list(range(60, 80))
    steps, clients = [], []
    for tenant in ("a", "a", "b"):
        before = stepper.steps
        clients.append(stepper.add(prompt, greedy(40), tenant=tenant))
        stepper.run()
        steps.append(stepper.steps - before)
    assert len({tuple(client.tokens) for client in clients}) == 1
    assert steps[1] == 3 < steps[0] == steps[2], "a tenant drafts from its own answers only"


@pytest.mark.parametrize("most", [1, 2, 3, 9, 16, 17, 30])
def test_max_tokens_cut_a_draft(make_stepper: Make, most: int) -> None:
    stepper = make_stepper()
    free = run_alone(stepper, [5, 6, 7], greedy(40), drafts=False)
    client = run_alone(stepper, [5, 6, 7], greedy(most), draft=free.tokens)
    assert (client.tokens, client.last.finish_reason) == (free.tokens[:most], "length")


def test_the_context_cuts_a_draft(make_stepper: Make) -> None:
    stepper = make_stepper()
    prompt = [5, 6, 7] * 165
    free = run_alone(stepper, prompt, greedy(99), drafts=False)
    client = run_alone(stepper, prompt, greedy(99), draft=[*free.tokens, *range(50, 80)])
    assert told(client) == told(free)
    assert len(prompt + client.tokens) == 512


@pytest.mark.parametrize("at", range(2, 14, 3))
def test_a_stop_string_inside_a_draft_ends_the_answer_there(make_stepper: Make, at: int) -> None:
    stepper = make_stepper()
    prompt = list(range(60, 80))
    free = run_alone(stepper, prompt, greedy(30), drafts=False)
    stop = free.text[at : at + 3]
    without = run_alone(stepper, prompt, greedy(30, stop), drafts=False)
    client = run_alone(stepper, prompt, greedy(30, stop), draft=free.tokens)
    assert told(client) == told(without)
    assert client.last.finish_reason == "stop"
    assert len(client.tokens) < 30


def test_an_end_token_inside_a_draft_ends_the_answer_there(
    make_stepper: Make, tiny: LoadedModel
) -> None:
    free = run_alone(make_stepper(), [5, 6, 7], greedy(20), drafts=False)
    ends = frozenset({free.tokens[7]})
    ended = make_stepper(loaded=replace(tiny, end_tokens=ends))
    client = run_alone(ended, [5, 6, 7], greedy(20), draft=free.tokens)
    assert client.tokens == free.tokens[: free.tokens.index(free.tokens[7]) + 1]
    assert client.last.finish_reason == "stop"


def test_a_sequence_keeps_slots_for_what_it_accepted_only(make_stepper: Make) -> None:
    stepper = make_stepper()
    free = run_alone(stepper, [9, 8, 7], greedy(60), drafts=False)
    client = stepper.add([9, 8, 7], greedy(60), tenant="x", draft=reference_of(free.tokens, 5))
    while stepper.stepper.busy:
        stepper.step()
        if (holding := client.sequence.holding) is not None:
            assert holding.length == client.sequence.computed == len(client.sequence.tokens) - 1
    assert client.tokens == free.tokens
    assert stepper.memory.match("x", client.prompt + client.tokens) == 62


def test_drafts_stop_where_the_step_is_full_of_other_sequences(make_stepper: Make) -> None:
    stepper = make_stepper()
    free = [run_alone(stepper, [5 + n, 6], greedy(20), drafts=False) for n in range(16)]
    for client in free:
        stepper.add(client.prompt, greedy(20), tenant="x", draft=client.tokens)
    stepper.step()
    stepper.step()
    assert stepper.stepper.stats.tokens_drafted == 0
    stepper.run()


def test_drafts_take_no_memory_from_others(make_stepper: Make, tiny_reference: Any) -> None:
    """Two sequences fill the memory to the last slot: without drafts nobody is preempted."""
    for drafted in (False, True):
        stepper = make_stepper(slots=58)
        free = [tiny_reference.greedy([5 + n] * 9, 21) for n in range(2)]
        clients = [
            stepper.add([5 + n] * 9, greedy(21), draft=free[n] if drafted else ()) for n in range(2)
        ]
        stepper.run()
        assert stepper.preemptions == 0
        assert [client.tokens for client in clients] == free
    assert stepper.stepper.stats.tokens_accepted > 0


def test_preempted_and_cancelled_in_the_middle_of_drafts(
    make_stepper: Make, tiny_reference: Any
) -> None:
    stepper = make_stepper(slots=150, prefill_budget=32)
    prompts = [[2 + n] * (20 + n) for n in range(6)]
    free = [tiny_reference.greedy(prompt, 50) for prompt in prompts]
    clients = [
        stepper.add(prompt, greedy(50), draft=reference_of(tokens, 4))
        for prompt, tokens in zip(prompts, free, strict=True)
    ]
    for _ in range(5):
        stepper.step()
    stepper.cancel(clients.pop(0))
    stepper.run()
    assert stepper.preemptions > 0
    for client in clients:
        tiny_reference.check(client.prompt, client.tokens, 50)


# Jump-ahead

PATTERN = "[ab]{2} the parrot is grey [0-9]{2} and it eats nuts"


@pytest.fixture
def grammars(tiny: LoadedModel) -> Grammars:
    return Grammars(Vocabulary(tiny.tokenizer, tiny.forward.vocabulary, tiny.end_tokens))


def test_what_a_grammar_forces_is_computed_at_once(make_stepper: Make, grammars: Grammars) -> None:
    outcomes, steps = [], []
    for options in ({}, {"drafts": False}, {"logprobs": 2}, {"slots": 62}):
        stepper = make_stepper(slots=options.pop("slots", 4096))
        sampling = Sampling(temperature=2, seed=3, logprobs=options.pop("logprobs", None))
        constraint = grammars.compile(Grammar("regex", PATTERN, "structured_outputs"))
        client = stepper.add([9, 8, 7], sampling, constraint=constraint, **options)
        stepper.run()
        outcomes.append(told(client))
        steps.append(stepper.steps)
        assert len(logprobs_of(client)) == (len(client.tokens) if sampling.logprobs else 0)
    assert len({text for _, text, _ in outcomes}) == 1
    assert outcomes == outcomes[:1] * 4
    # Two letters, then the forced text and the first digit, the second digit, and the rest.
    assert steps[:3] == [5, 5, 5]
    assert stepper.stepper.stats.tokens_forced > 0


def test_forced_tokens_share_a_budget(make_stepper: Make, grammars: Grammars) -> None:
    stepper = make_stepper(prefill_budget=8)
    rule = Grammar("lark", 'start: "the parrot is grey and it eats nuts"', "structured_outputs")
    clients = [
        stepper.add([5 + n], Sampling(seed=1), constraint=grammars.compile(rule)) for n in range(3)
    ]
    sizes = []
    while stepper.stepper.busy:
        before = sum(len(client.tokens) for client in clients)
        stepper.step()
        sizes.append(sum(len(client.tokens) for client in clients) - before)
    assert max(sizes) <= 8 + 3
    assert {client.text for client in clients} == {"the parrot is grey and it eats nuts"}


def test_max_tokens_and_stop_strings_cut_a_forced_text(
    make_stepper: Make, grammars: Grammars
) -> None:
    rule = Grammar("lark", 'start: "the parrot is grey"', "structured_outputs")
    for sampling, text, reason in (
        (greedy(5), "the p", "length"),
        (greedy(50, "rr"), "the pa", "stop"),
        (greedy(18), "the parrot is grey", "stop"),
    ):
        stepper = make_stepper()
        client = run_alone(stepper, [5], sampling, constraint=grammars.compile(rule))
        assert (client.text, client.last.finish_reason) == (text, reason)


def test_drafts_go_on_inside_a_grammar(make_stepper: Make, grammars: Grammars) -> None:
    schema = Grammar(
        "json_schema", json.dumps({"type": "string", "maxLength": 30}), "response_format"
    )
    sampling = Sampling(temperature=1.5, seed=4, max_tokens=60)
    stepper = make_stepper()
    without = run_alone(stepper, [5], sampling, drafts=False, constraint=grammars.compile(schema))
    steps = stepper.steps
    drafted = run_alone(
        stepper, [5], sampling, draft=without.tokens, constraint=grammars.compile(schema)
    )
    assert told(drafted) == told(without)
    assert stepper.steps - steps < steps / 2
