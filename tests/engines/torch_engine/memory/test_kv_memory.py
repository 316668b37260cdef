"""The prefix tree and the slots behind it, against brute force."""

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from parrot_backend.engines.torch_engine.memory.integrity import IntegrityError, check_memory
from parrot_backend.engines.torch_engine.memory.kv_memory import Holding, KVMemory
from parrot_backend.engines.torch_engine.memory.prefix_tree import common_length
from parrot_backend.engines.torch_engine.memory.slots import Run, SlotAllocator

CAPACITY = 40
Prefix = tuple[str, tuple[int, ...]]
tenants = st.sampled_from(["", "other"])
prompts = st.lists(st.sampled_from([1, 1, 1, 2, 3]), min_size=1, max_size=24)


def slots(runs: list[Run]) -> list[int]:
    return [slot for run in runs for slot in range(run.start, run.start + run.length)]


def brute_force_common(left: list[int], right: list[int]) -> int:
    length = 0
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return length


class Owner:
    """A sequence as the memory sees it, and the tokens that it wants."""

    def __init__(self, tenant: str, tokens: list[int], holding: Holding) -> None:
        self.tenant = tenant
        self.tokens = tokens
        self.holding = holding
        self.computed = holding.length


def cached_prefixes(memory: KVMemory) -> Iterator[Prefix]:
    """The prefix that each cached token ends."""
    pending = [(tenant, (), root) for tenant, root in memory.tree.roots.items()]
    while pending:
        tenant, before, node = pending.pop()
        whole = (*before, *node.tokens)
        pending += [(tenant, whole, child) for child in node.children.values()]
        if not node.users:
            yield from ((tenant, whole[: end + 1]) for end in range(len(before), len(whole)))


class KVMemoryMachine(RuleBasedStateMachine):
    """Sequences come, grow, share and go. `written` stands for the tensors: what each slot holds."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = KVMemory(CAPACITY)
        self.owners: list[Owner] = []
        self.written: dict[int, Prefix] = {}
        self.history: list[tuple[str, list[int]]] = []
        self.expectations: list[object] = []

    def pick(self, data: st.DataObject) -> Owner:
        return self.owners[data.draw(st.integers(0, len(self.owners) - 1))]

    @rule(tenant=tenants, tokens=prompts)
    def begin(self, tenant: str, tokens: list[int]) -> None:
        self.acquire(tenant, tokens)

    def acquire(self, tenant: str, tokens: list[int]) -> None:
        matched = self.memory.match(tenant, tokens)
        known = [past for name, past in self.history if name == tenant]
        best = max((brute_force_common(past, tokens) for past in known), default=0)
        assert matched == best if self.memory.evicted == 0 else matched <= best
        holding = self.memory.acquire(tenant, tokens)
        assert holding.length == matched
        self.owners.append(Owner(tenant, tokens, holding))

    @precondition(lambda self: self.owners)
    @rule(data=st.data(), count=st.integers(1, 12))
    def compute(self, data: st.DataObject, count: int) -> None:
        self.compute_some(self.pick(data), count)

    def compute_some(self, owner: Owner, count: int) -> None:
        count = min(count, len(owner.tokens) - owner.computed)
        possible = count <= self.memory.available
        before, evicted = set(cached_prefixes(self.memory)), self.memory.evicted
        assert self.memory.extend(owner.holding, count) == possible
        self.check_evicted(before, self.memory.evicted - evicted)
        if possible:
            for position in range(owner.computed, owner.computed + count):
                slot = slots(owner.holding.runs)[position]
                self.written[slot] = (owner.tenant, tuple(owner.tokens[: position + 1]))
            owner.computed += count

    def check_evicted(self, before: set[Prefix], count: int) -> None:
        """So many were evicted of what was cached before, and what is expected only at the last."""
        after = set(cached_prefixes(self.memory))
        assert after <= before
        assert len(before - after) == count
        if any(self.is_expected(prefix) for prefix in before - after):
            assert all(self.is_expected(prefix) for prefix in after)

    def is_expected(self, prefix: Prefix) -> bool:
        tenant, tokens = prefix
        return any(
            tenant == name and tokens == tuple(expected[: len(tokens)])
            for name, expected in self.memory.expected.values()
        )

    @rule(tenant=tenants, tokens=prompts)
    def expect(self, tenant: str, tokens: list[int]) -> None:
        self.expectations.append(object())
        self.memory.expect(self.expectations[-1], tenant, tokens)

    @precondition(lambda self: self.expectations)
    @rule(data=st.data())
    def unexpect(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.expectations) - 1))
        self.memory.unexpect(self.expectations.pop(index))

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        owner = self.pick(data)
        new = owner.tokens[owner.holding.node.end : owner.computed]
        self.memory.commit(owner.holding, new)
        self.history.append((owner.tenant, owner.tokens[: owner.computed]))
        assert owner.holding.own == []
        assert self.memory.match(owner.tenant, owner.tokens) >= owner.computed

    @precondition(lambda self: self.owners)
    @rule(data=st.data(), more=prompts)
    def generate(self, data: st.DataObject, more: list[int]) -> None:
        self.pick(data).tokens += more

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.release_one(self.pick(data))

    def release_one(self, owner: Owner) -> None:
        self.owners.remove(owner)
        new = owner.tokens[owner.holding.node.end : owner.computed]
        self.memory.release(owner.holding, new)
        self.history.append((owner.tenant, owner.tokens[: owner.computed]))

    @rule(tenant=tenants, tokens=prompts)
    def run_through(self, tenant: str, tokens: list[int]) -> None:
        """A sequence from beginning to end, so that memory fills up fast."""
        self.acquire(tenant, tokens)
        self.compute_some(self.owners[-1], len(tokens))
        self.release_one(self.owners[-1])

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        owner = self.pick(data)
        self.owners.remove(owner)
        self.memory.forget(owner.holding)
        # What is gone is known only to the tree; count it as evicted.
        self.memory.evicted += 1

    @invariant()
    def memory_is_consistent(self) -> None:
        check_memory(self.memory, [owner.holding for owner in self.owners])
        assert (
            self.memory.used + self.memory.cached + self.memory.slots.free == self.memory.capacity
        )

    @invariant()
    def every_sequence_sees_its_own_tokens(self) -> None:
        for owner in self.owners:
            for position, slot in enumerate(slots(owner.holding.runs)[: owner.computed]):
                expected = (owner.tenant, tuple(owner.tokens[: position + 1]))
                assert self.written[slot] == expected


# 6,000 operations; the machine of the stepper has as many again.
TestKVMemory = KVMemoryMachine.TestCase
TestKVMemory.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True
)


def fill(memory: KVMemory, tokens: list[int], tenant: str = "") -> None:
    holding = memory.acquire(tenant, tokens)
    missing = tokens[holding.length :]
    assert memory.extend(holding, len(missing))
    memory.release(holding, missing)


def test_common_length_beyond_the_first_comparison() -> None:
    left = list(range(1000))
    for length in (0, 1, 31, 32, 33, 95, 96, 97, 500, 999):
        right = [7, *left[:length], -1, *left[length + 1 :]]
        assert common_length(left, right, 1) == length
    assert common_length(left, left) == 1000


def test_the_least_recently_used_leaf_is_evicted_first_and_only_as_much_as_needed() -> None:
    memory = KVMemory(30)
    fill(memory, [1, 1, 1, 1, 1, 2, 2, 2, 2, 2])
    fill(memory, [1, 1, 1, 1, 1, 3, 3, 3, 3, 3])
    fill(memory, [4] * 10)
    fill(memory, [1, 1, 1, 1, 1, 2, 2, 2, 2, 2])
    assert memory.slots.free == 5
    assert memory.extend(memory.acquire("", [9]), 8)
    assert memory.evicted == 3
    assert memory.match("", [1, 1, 1, 1, 1, 3, 3, 3, 3, 3]) == 7
    assert memory.match("", [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]) == 10
    assert memory.match("", [4] * 10) == 10


def test_a_large_memory_evicts_more_at_once_and_hands_out_what_is_wanted() -> None:
    memory = KVMemory(640)
    fill(memory, list(range(640)))
    holding = memory.acquire("", [-1])
    assert memory.extend(holding, 3)
    assert (holding.length, memory.evicted, memory.slots.free) == (3, 10, 7)
    check_memory(memory, [holding])


def test_what_is_held_is_never_evicted() -> None:
    memory = KVMemory(10)
    held = memory.acquire("", [1, 2])
    memory.extend(held, 2)
    memory.commit(held, [1, 2])
    fill(memory, [5, 6])
    assert memory.available == 8
    other = memory.acquire("", [9])
    assert not memory.extend(other, 9)
    assert memory.extend(other, 8)
    assert memory.match("", [1, 2, 3]) == 2
    assert memory.match("", [5, 6]) == 0
    check_memory(memory, [held, other])


def test_what_is_expected_outlives_what_was_used_later() -> None:
    memory = KVMemory(20)
    fill(memory, [1] * 8)
    memory.expect("call", "", [1] * 8 + [2])
    for token in range(3, 9):
        fill(memory, [token] * 6)
    assert (memory.match("", [1] * 8), memory.match("", [8] * 6)) == (8, 6)
    assert memory.match("", [7] * 6) == 6, "no more than needed was evicted"
    assert memory.match("", [6] * 6) == 0


def test_what_is_expected_goes_when_nothing_else_is_left() -> None:
    memory = KVMemory(20)
    fill(memory, [1] * 8)
    fill(memory, [2] * 8)
    memory.expect("a call", "", [1] * 8)
    memory.expect("another", "", [2] * 8)
    holding = memory.acquire("", [9])
    assert memory.extend(holding, 14)
    assert (memory.match("", [1] * 8), memory.match("", [2] * 8)) == (0, 6)
    assert memory.evicted == 10, "the least recently used of them first, and no more than needed"
    check_memory(memory, [holding])


def test_of_a_node_that_is_expected_in_part_the_first_part_stays() -> None:
    memory = KVMemory(24)
    fill(memory, [7] * 8)
    fill(memory, [1, 2, 3, 4, 5, 6, 7, 8])
    memory.expect("older", "", [7] * 8)
    memory.expect("call", "", [1, 2, 3, 4, 5, 0, 0])
    memory.expect("shorter", "", [1, 2])
    memory.expect("of another tenant", "other", [1, 2, 3, 4, 5, 6, 7, 8])
    fill(memory, [9] * 11)
    assert memory.match("", [1, 2, 3, 4, 5, 6, 7, 8]) == 5
    assert memory.match("", [7] * 8) == 8, "what nobody expects goes first, however new"


def test_what_is_no_longer_expected_is_evicted_like_everything_else() -> None:
    memory = KVMemory(20)
    fill(memory, [1] * 8)
    for who in ("call", "twin"):
        memory.expect(who, "", [1] * 8)
    memory.unexpect("call")
    fill(memory, [2] * 8)
    fill(memory, [3] * 8)
    assert memory.match("", [1] * 8) == 8, "the twin expects it as well"
    memory.unexpect("twin")
    memory.unexpect("nobody")
    fill(memory, [4] * 8)
    assert (memory.match("", [1] * 8), memory.match("", [3] * 8)) == (0, 8)


def test_tenants_share_nothing() -> None:
    memory = KVMemory(20)
    fill(memory, [1, 2, 3], "a")
    assert memory.match("a", [1, 2, 3]) == 3
    assert memory.match("b", [1, 2, 3]) == 0


def test_nothing_remains_of_a_tenant_whose_tokens_are_evicted() -> None:
    memory = KVMemory(8)
    for number in range(50):
        fill(memory, [1, 2, 3, 4], f"tenant {number}")
    assert len(memory.tree.roots) == 2


def test_what_was_computed_after_the_same_tokens_is_found() -> None:
    memory = KVMemory(40)
    fill(memory, [1, 2, 3, 4, 5, 6])
    fill(memory, [1, 2, 3, 9, 8])
    fill(memory, [1, 2, 3, 7], "other")
    holding = memory.acquire("", [1, 2])
    assert memory.following(holding, [3], 5) == [9, 8], "the latest of two"
    assert memory.following(holding, [3, 4], 1) == [5]
    assert memory.following(holding, [3, 4], 5) == [5, 6]
    assert memory.following(holding, [3, 4, 5, 6], 5) == []
    assert memory.following(holding, [3, 4, 6], 5) == []
    assert memory.following(holding, [7], 5) == []


def test_slots_behind_what_is_kept_are_given_back() -> None:
    memory = KVMemory(20)
    fill(memory, [1, 2, 3])
    holding = memory.acquire("", [1, 2, 3])
    memory.extend(holding, 6)
    memory.shorten(holding, 5)
    assert (holding.length, memory.used, memory.available) == (5, 5, 15)
    memory.shorten(holding, 3)
    assert holding.runs == holding.node.runs
    check_memory(memory, [holding])


def test_a_prompt_computed_in_chunks_is_one_node_in_one_run() -> None:
    memory = KVMemory(1000)
    holding = memory.acquire("", list(range(90)))
    for start in range(0, 90, 30):
        memory.extend(holding, 30)
        memory.commit(holding, list(range(start, start + 30)))
    assert len(holding.node.path()) == 2
    assert len(holding.runs) == 1


def test_the_check_sees_a_lost_slot_a_shared_slot_and_a_wrong_count() -> None:
    memory = KVMemory(20)
    holding = memory.acquire("", [1, 2, 3])
    memory.extend(holding, 3)
    check_memory(memory, [holding])
    with pytest.raises(IntegrityError):
        check_memory(memory, [])
    holding.node.users += 1
    with pytest.raises(IntegrityError, match="users"):
        check_memory(memory, [holding])
    holding.node.users -= 1
    memory.slots = SlotAllocator(20)
    with pytest.raises(IntegrityError, match="slots"):
        check_memory(memory, [holding])
