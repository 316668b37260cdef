"""Step planning on a tiny model: who computes what when, and what happens when memory is short."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from parrot_backend.engines.base import Delta, Sampling
from parrot_backend.engines.torch_engine.schedule import batch_scheduler
from parrot_backend.engines.torch_engine.schedule.budget import PrefillBudget

Make = Callable[..., Any]


def greedy(count: int) -> Sampling:
    return Sampling(temperature=0, max_tokens=count)


def prompt(seed: int, length: int) -> list[int]:
    return [2 + seed, *(random.Random(f"{seed} {i}").randrange(2, 258) for i in range(1, length))]


def test_a_prompt_is_computed_in_chunks_of_the_budget(make_stepper: Make) -> None:
    stepper = make_stepper(prefill_budget=32)
    client = stepper.add(prompt(1, 100))
    computed = []
    while not client.tokens:
        stepper.step()
        computed.append(client.sequence.computed)
    assert computed == [32, 64, 96, 100]


def test_decoding_goes_on_while_a_long_prompt_is_computed(make_stepper: Make) -> None:
    stepper = make_stepper(prefill_budget=16)
    first = stepper.add(prompt(1, 10), greedy(30), drafts=False)
    stepper.step()
    second = stepper.add(prompt(2, 160), greedy(2))
    for step in range(2, 12):
        stepper.step()
        assert len(first.tokens) == step
    assert len(second.tokens) == 1


def test_siblings_wait_for_the_prefix_and_start_behind_it(make_stepper: Make) -> None:
    stepper = make_stepper(prefill_budget=64)
    shared = prompt(1, 150)
    clients = [stepper.add(shared + prompt(10 + i, 20), greedy(4)) for i in range(5)]
    stepper.step()
    stepper.step()
    assert [client.sequence.computed for client in clients] == [128, 0, 0, 0, 0]
    stepper.run()
    assert [client.last.cached_tokens for client in clients] == [0, 150, 150, 150, 150]
    stats = stepper.stepper.stats
    assert (stats.tokens_prefilled, stats.tokens_shared) == (150 + 5 * 20, 4 * 150)


def test_nobody_waits_for_a_prefix_of_another_tenant(make_stepper: Make) -> None:
    stepper = make_stepper()
    shared = prompt(1, 100)
    clients = [stepper.add(shared, greedy(2), tenant=tenant) for tenant in "abc"]
    stepper.run()
    assert [client.last.cached_tokens for client in clients] == [0, 0, 0]


def test_the_same_prompt_again_computes_only_its_last_token(make_stepper: Make) -> None:
    stepper = make_stepper()
    for cached in (0, 59):
        client = stepper.add(prompt(1, 60), greedy(5))
        stepper.run()
        assert client.last.cached_tokens == cached
    assert stepper.stepper.stats.tokens_prefilled == 61


def test_a_next_turn_starts_where_the_last_one_ended(make_stepper: Make) -> None:
    stepper = make_stepper()
    first = stepper.add(prompt(1, 40), greedy(20))
    stepper.run()
    turn = first.prompt + first.tokens
    second = stepper.add(turn + prompt(2, 10), greedy(2))
    stepper.run()
    # The last token of an answer was never computed: nothing followed it.
    assert second.last.cached_tokens == len(turn) - 1


def test_priority_goes_before_arrival(make_stepper: Make) -> None:
    stepper = make_stepper(max_batch=1)
    priorities = [0, 0, 5, -1, 5]
    clients = [
        stepper.add(prompt(i, 20), greedy(2), priority=priority)
        for i, priority in enumerate(priorities)
    ]
    order: list[int] = []
    while stepper.stepper.busy:
        stepper.step()
        order += [i for i, c in enumerate(clients) if c.sequence.finished and i not in order]
    assert order == [2, 4, 0, 1, 3]


def count_computed(stepper: Any) -> list[int]:
    """How many tokens each step from now on computes."""
    counts: list[int] = []
    forward = stepper.step_model.forward

    def counting(chunks: list[Any]) -> Any:
        counts.append(sum(len(chunk.tokens) for chunk in chunks))
        return forward(chunks)

    stepper.step_model.forward = counting
    return counts


def test_where_the_batch_is_full_an_urgent_one_takes_the_place_of_the_least_urgent(
    make_stepper: Make, tiny_reference: Any
) -> None:
    stepper = make_stepper(max_batch=2)
    computed = count_computed(stepper)
    low = stepper.add(prompt(1, 20), greedy(20), priority=-1, drafts=False)
    middle = stepper.add(prompt(2, 20), greedy(10), drafts=False)
    for _ in range(5):
        stepper.step()
    high = stepper.add(prompt(3, 20), greedy(3), priority=1, drafts=False)
    stepper.step()
    assert [len(client.tokens) for client in (low, middle, high)] == [5, 6, 1]
    assert low.sequence.holding is None
    while not high.sequence.finished:
        stepper.step()
    stepper.step()
    assert [len(client.tokens) for client in (low, middle, high)] == [6, 9, 3], "it goes on at once"
    stepper.run()
    for client in (low, middle, high):
        tiny_reference.check(client.prompt, client.tokens, len(client.tokens))
    assert len(low.tokens) == 20
    assert sum(computed) == 3 * 20 + 19 + 9 + 2, "nothing is computed twice"


def test_nobody_gives_up_a_place_to_who_is_as_urgent(make_stepper: Make) -> None:
    stepper = make_stepper(max_batch=1)
    first = stepper.add(prompt(1, 20), greedy(8))
    stepper.step()
    second = stepper.add(prompt(2, 20), greedy(8))
    stepper.run()
    assert stepper.preemptions == 0
    assert len(first.tokens) == len(second.tokens) == 8


def test_nobody_gives_up_a_place_to_who_would_wait_for_a_prefix(make_stepper: Make) -> None:
    stepper = make_stepper(max_batch=2, prefill_budget=32)
    low = stepper.add(prompt(1, 20), greedy(20), priority=-1, drafts=False)
    stepper.step()
    shared = prompt(2, 150)
    stepper.add(shared, greedy(2), priority=1)
    stepper.step()
    sibling = stepper.add([*shared, 7], greedy(2), priority=1)
    for step in range(3, 6):
        stepper.step()
        assert (len(low.tokens), sibling.sequence.holding) == (step, None)
    stepper.run()
    assert sibling.last.cached_tokens >= 128


def test_an_urgent_prompt_goes_before_one_that_is_being_computed(make_stepper: Make) -> None:
    stepper = make_stepper(prefill_budget=32)
    slow = stepper.add(prompt(1, 200), greedy(2))
    stepper.step()
    urgent = stepper.add(prompt(2, 40), greedy(2), priority=1)
    stepper.step()
    stepper.step()
    assert (len(urgent.tokens), slow.sequence.computed) == (1, 32 + 24)


def test_an_urgent_prompt_does_not_wait_for_one_that_is_not(make_stepper: Make) -> None:
    stepper = make_stepper(prefill_budget=32)
    shared = prompt(1, 200)
    stepper.add(shared, greedy(2))
    stepper.step()
    urgent = stepper.add(shared[:60], greedy(2), priority=1)
    stepper.step()
    assert len(urgent.tokens) == 1
    assert urgent.last.cached_tokens == 32
    stepper.run()


def test_no_more_run_at_once_than_the_batch_takes(make_stepper: Make) -> None:
    stepper = make_stepper(max_batch=3)
    for i in range(8):
        stepper.add(prompt(i, 10), greedy(6))
    while stepper.stepper.busy:
        stepper.step()
        assert stepper.stepper.stats.running <= 3


def test_preempted_sequences_give_the_same_tokens(make_stepper: Make, tiny_reference: Any) -> None:
    stepper = make_stepper(slots=150, prefill_budget=32)
    clients = [stepper.add(prompt(i, 20 + i), greedy(50)) for i in range(5)]
    stepper.run()
    assert stepper.preemptions > 0
    for client in clients:
        tiny_reference.check(client.prompt, client.tokens, 50)
    stats = stepper.stepper.stats
    assert stats.tokens_prefilled == sum(len(client.prompt) for client in clients)
    assert stats.tokens_generated == 5 * 50


def test_who_comes_last_is_preempted(make_stepper: Make) -> None:
    stepper = make_stepper(slots=100)
    low = stepper.add(prompt(1, 20), greedy(60), priority=-1)
    stepper.step()
    high = [stepper.add(prompt(2 + i, 20), greedy(30)) for i in range(2)]
    while not stepper.preemptions:
        stepper.step()
    assert low.sequence.holding is None
    assert all(client.sequence.holding for client in high)
    stepper.run()
    assert len(low.tokens) == 60


def test_prompts_that_fill_the_memory_do_not_block_each_other(make_stepper: Make) -> None:
    stepper = make_stepper(slots=128, prefill_budget=8)
    clients = [stepper.add(prompt(i, 100), greedy(20)) for i in range(4)]
    stepper.run()
    assert [len(client.tokens) for client in clients] == [20] * 4


def test_a_prompt_does_not_start_where_those_that_run_need_the_memory(make_stepper: Make) -> None:
    stepper = make_stepper(slots=150, prefill_budget=150)
    first = stepper.add(prompt(1, 100), greedy(20))
    second = stepper.add(prompt(2, 60), greedy(20))
    while not first.sequence.finished:
        stepper.step()
        assert first.sequence.finished or second.sequence.holding is None
    stepper.run()
    assert stepper.preemptions == 0
    stepper = make_stepper(slots=150, prefill_budget=20)
    clients = [stepper.add(prompt(i, 60), greedy(2)) for i in range(4)]
    stepper.step()
    assert [client.sequence.holding is None for client in clients] == [False, True, True, True]
    for _ in range(3):
        stepper.step()
    assert [client.sequence.holding is None for client in clients] == [True, False, True, True]


def test_an_answer_that_fills_the_memory_ends_there_and_the_others_go_on(
    make_stepper: Make, tiny_reference: Any
) -> None:
    """As at the end of the context: the last token is told, and needs no room."""
    stepper = make_stepper(slots=64)
    big = stepper.add(prompt(1, 40), greedy(200))
    small = stepper.add(prompt(2, 10), greedy(20))
    stepper.run()
    assert [delta.finish_reason for delta in big.events][-1] == "length"
    tiny_reference.check(big.prompt, big.tokens, 25)
    tiny_reference.check(small.prompt, small.tokens, 20)


@pytest.mark.parametrize("length", [63, 64])
def test_a_prompt_that_fills_the_memory_has_an_answer(
    make_stepper: Make, tiny_reference: Any, length: int
) -> None:
    stepper = make_stepper(slots=64)
    client = stepper.add(prompt(1, length), greedy(200))
    stepper.run()
    tiny_reference.check(client.prompt, client.tokens, 65 - length)


@pytest.mark.parametrize("seed", range(6))
def test_any_mixture_gives_what_generate_gives(
    make_stepper: Make, tiny_reference: Any, seed: int
) -> None:
    """Shared prefixes, priorities, tenants, cancellations, short memory and small budgets at random."""
    chance = random.Random(seed)
    stepper = make_stepper(
        slots=chance.choice([120, 200, 400]),
        max_batch=chance.choice([2, 5, 32]),
        prefill_budget=chance.choice([7, 40, 512]),
    )
    clients, cancelled = [], set()
    for number in range(30):
        base = prompt(chance.randrange(4), chance.randrange(1, 60))
        client = stepper.add(
            base + prompt(number % 5, chance.randrange(0, 15)),
            greedy(chance.choice([1, 5, 24])),
            priority=chance.randrange(3),
            tenant=chance.choice("ab"),
        )
        clients.append(client)
        for _ in range(chance.randrange(4)):
            stepper.step()
        if chance.random() < 0.25:
            victim = chance.choice(clients)
            if not victim.sequence.finished:
                stepper.cancel(victim)
                cancelled.add(id(victim))
    stepper.run()
    for client in clients:
        count = len(client.tokens)
        if id(client) not in cancelled:
            assert isinstance(client.last, Delta)
            assert client.last.finish_reason
        if count:
            tiny_reference.check(client.prompt, client.tokens, count)


def share_of(stepper: Any, tenant: str) -> int:
    root = stepper.memory.tree.roots.get(tenant)
    return root.slots if root else 0


def test_a_tenant_has_no_more_than_its_share_used_and_cached(make_stepper: Make) -> None:
    """Its cached prefixes go first, its sequences wait for one another, and others' go on."""
    stepper = make_stepper(slots=400)
    other = stepper.add([9] * 100, greedy(60), tenant="other")
    clients = [
        stepper.add([5 + n] * 60, greedy(20), tenant="small", kv_share=0.25) for n in range(5)
    ]
    most, together = 0, 0
    while stepper.stepper.busy:
        stepper.step()
        most = max(most, share_of(stepper, "small"))
        together = max(together, sum(bool(c.sequence.holding) for c in clients))
    assert 70 <= most <= 100
    assert together == 1
    assert [len(client.tokens) for client in clients] == [20] * 5
    assert share_of(stepper, "other") == len(other.prompt + other.tokens) - 1
    assert stepper.stepper.stats.tokens_evicted > 0


def test_sequences_of_one_share_make_room_for_one_another(
    make_stepper: Make, tiny_reference: Any
) -> None:
    """They start together and grow over it: the last gives way, and not the other tenant's."""
    stepper = make_stepper(slots=400)
    small = [stepper.add([5 + n] * 10, greedy(60), tenant="small", kv_share=0.25) for n in range(2)]
    other = stepper.add([9] * 100, greedy(60), -1, tenant="other")
    while stepper.stepper.busy:
        stepper.step()
        assert share_of(stepper, "small") <= 100
        assert other.sequence.holding or other.sequence.finished
    assert stepper.preemptions > 0
    for client in [*small, other]:
        tiny_reference.check(client.prompt, client.tokens, 60)


def test_an_answer_that_fills_its_share_ends_there(make_stepper: Make, tiny_reference: Any) -> None:
    stepper = make_stepper(slots=400)
    client = stepper.add([5] * 90, greedy(60), tenant="small", kv_share=0.25)
    stepper.run()
    assert client.last.finish_reason == "length"
    tiny_reference.check(client.prompt, client.tokens, 11)


def test_who_waits_for_its_share_takes_nobodys_place(make_stepper: Make) -> None:
    stepper = make_stepper(slots=400, max_batch=2)
    running = stepper.add([5] * 80, greedy(15), 2, tenant="small", kv_share=0.25)
    other = stepper.add([9] * 20, greedy(60), tenant="other")
    stepper.step()
    waiting = stepper.add([6] * 80, greedy(15), 1, tenant="small", kv_share=0.25)
    while not running.sequence.finished:
        stepper.step()
        assert other.sequence.holding
    stepper.run()
    assert len(waiting.tokens) == 15


def test_what_somebody_waits_for_alone_has_steps_alone_but_not_for_ever(
    make_stepper: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chat is as fast as alone; where chats never end, others have what fills up tiles, and time."""
    now = 100.0
    monkeypatch.setattr(batch_scheduler, "monotonic", lambda: now)
    stepper = make_stepper(prefill_budget=64)
    batch = [stepper.add(prompt(i, 20), greedy(400), drafts=False) for i in range(3)]
    while not all(client.tokens for client in batch):
        stepper.step()
    chat = stepper.add(prompt(20, 30), greedy(400), drafts=False, interactive=True)
    stepper.step()
    alone = []
    for _ in range(40):
        before = len(batch[0].tokens)
        now += 0.5
        stepper.step()
        alone.append(len(batch[0].tokens) == before)
    assert len(chat.tokens) == 41
    assert all(alone[:7]), "about four seconds"
    assert not all(alone[7:11])
    assert 10 <= sum(alone[10:]) < 20, "then as long as half of the time of the others"


def test_a_night_without_work_takes_nothing_of_what_chats_have_alone(
    make_stepper: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(batch_scheduler, "monotonic", lambda: now)
    stepper = make_stepper()
    for _ in range(2):
        batch = stepper.add(prompt(1, 20), greedy(400), drafts=False)
        while not batch.tokens:
            stepper.step()
        chat = stepper.add(prompt(20, 30), greedy(400), drafts=False, interactive=True)
        stepper.step()
        before = len(batch.tokens)
        stepper.step()
        assert len(batch.tokens) == before, "the chat's alone"
        for client in (chat, batch):
            stepper.stepper.cancel(client.sequence)
        now += 8 * 3600


def test_beside_what_somebody_waits_for_long_others_fill_up_a_tile(
    make_stepper: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token of a chat beside a batch takes about as long as alone, and the batch goes on."""
    monkeypatch.setattr(batch_scheduler, "_ALONE_SECONDS", 0.0)
    stepper = make_stepper(prefill_budget=64)
    batch = [stepper.add(prompt(i, 20), greedy(40), drafts=False) for i in range(10)]
    while not all(client.tokens for client in batch):
        stepper.step()
    chat = stepper.add(prompt(20, 30), greedy(8), drafts=False, interactive=True)
    long = stepper.add(prompt(21, 200), greedy(2), drafts=False)
    stepper.step()
    assert len(chat.tokens) == 1, "its prompt goes first"
    while not chat.last.finish_reason:
        before = sum(len(client.tokens) for client in batch)
        stepper.step()
        assert sum(len(client.tokens) for client in batch) - before == 5
    assert long.sequence.computed == 0
    stepper.stepper._scheduler._budget = PrefillBudget(512, None)
    stepper.step()
    assert long.sequence.computed == 96, "in chunks that another chat can wait for"
    stepper.run()
    assert all(len(client.tokens) == 40 for client in batch)
    assert len(long.tokens) == 2
