"""The order of calls: each rule alone, and what it must not be at the cost of."""

import random
from dataclasses import replace

import pytest

from parrot_backend.serving.call import Call
from parrot_backend.serving.dispatch.graph_policy import GraphPolicy
from parrot_backend.serving.rank import AGED_PRIORITY, Rank
from parrot_backend.serving.tenants import Tenant
from tests.serving.dispatch.doubles import a_call

BULK, BATCH, CHAT = Rank(critical=False), Rank(batched=True), Rank()
ALL = GraphPolicy.tiers


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def policy(clock: Clock) -> GraphPolicy:
    return GraphPolicy(30.0, clock)


def waiting(policy: GraphPolicy, *calls: Call) -> None:
    for call in calls:
        policy.enter(call)


def order(policy: GraphPolicy, tiers: int = ALL) -> list[str]:
    """Who goes when, until nobody waits."""
    found = []
    while (turn := policy.next(tiers)) is not None:
        found.append(turn.call.id)
    return found


def test_tiers_then_applications_then_ways_then_groups_then_arrival(policy: GraphPolicy) -> None:
    waiting(
        policy,
        a_call("bulk", rank=BULK),
        a_call("batch", rank=BATCH),
        a_call("younger", rank=replace(CHAT, application=1)),
        a_call("group 1", rank=replace(CHAT, group=1)),
        a_call("group 0", rank=CHAT),
        a_call("later", rank=CHAT),
        a_call("path", rank=replace(CHAT, group=2, path=2)),
        a_call("work", rank=replace(CHAT, group=2, work=10.0)),
    )
    assert order(policy) == [
        "work", "path", "group 0", "later", "group 1", "younger", "batch", "bulk"
    ]  # fmt: skip
    assert len(policy) == 0


def test_only_tiers_with_room_are_asked(policy: GraphPolicy) -> None:
    waiting(policy, a_call("bulk", rank=BULK), a_call("batch", rank=BATCH))
    assert order(policy, 0) == []
    assert order(policy, 1) == []
    assert order(policy, 2) == ["batch"]
    assert order(policy, 3) == ["bulk"]


def test_a_turn_has_the_tier_and_the_priority_of_its_rank(policy: GraphPolicy) -> None:
    waiting(policy, a_call("batch", rank=BATCH))
    turn = policy.next(ALL)
    assert turn is not None
    assert (turn.tier, turn.priority) == (1, BATCH.priority)


def test_who_leaves_is_not_served_and_who_is_ranked_anew_moves(policy: GraphPolicy) -> None:
    calls = [a_call(f"{n}", rank=replace(CHAT, application=n)) for n in range(4)]
    waiting(policy, *calls)
    policy.remove(calls[0])
    policy.remove(calls[0])
    calls[1].rank = BULK
    policy.rerank(calls[1])
    policy.rerank(calls[0])  # it doesn't wait
    assert order(policy) == ["2", "3", "1"]


# Aging


def test_who_has_waited_for_long_goes_before_all_others(policy: GraphPolicy, clock: Clock) -> None:
    old = [a_call("old batch", rank=BATCH), a_call("old bulk", rank=BULK)]
    waiting(policy, *old)
    clock.now = 30.0
    waiting(policy, a_call("chat"))
    old[0].rank = BULK
    policy.rerank(old[0])
    turn = policy.next(1)  # also where only chats have room
    assert turn is not None
    assert (turn.call.id, turn.tier, turn.priority) == ("old batch", 0, AGED_PRIORITY)
    assert CHAT.priority < AGED_PRIORITY
    assert order(policy) == ["chat", "old bulk"]


def test_who_has_aged_can_leave(policy: GraphPolicy, clock: Clock) -> None:
    calls = [a_call("a", rank=BULK), a_call("b", rank=BULK)]
    waiting(policy, *calls)
    clock.now = 31.0
    policy.remove(calls[0])
    assert order(policy) == ["b"]
    assert len(policy) == 0


def test_nobody_waits_for_ever(policy: GraphPolicy, clock: Clock) -> None:
    """Chats come as fast as they are served; the bulk has its turns, the oldest first."""
    bulk = [a_call(f"bulk {n}", rank=BULK) for n in range(20)]
    waiting(policy, *bulk, *[a_call("chat") for _ in range(100)])
    served: list[str] = []
    while len(served) < 130:
        clock.now += 1
        waiting(policy, a_call("chat"))
        turn = policy.next(ALL)
        assert turn is not None
        served.append(turn.call.id)
    assert served[:29] == ["chat"] * 29
    assert served[29::4][:20] == [call.id for call in bulk]
    assert sum(name != "chat" for name in served) == 20  # and chats go on meanwhile


# Tenants


@pytest.mark.parametrize("lengths", [(10, 10), (10, 200), (500, 20)])
def test_tenants_have_equal_shares_whatever_they_ask_for(
    policy: GraphPolicy, lengths: tuple[int, int]
) -> None:
    """One has many short chats, the other long bulk; each always has something that waits."""
    served = dict.fromkeys("ab", 0.0)
    ranks = {"a": CHAT, "b": replace(BULK, application=1)}
    running: list[Call] = []
    length = dict(zip("ab", lengths, strict=True))
    for name in "ab" * 64:
        waiting(policy, a_call(name, tenant=Tenant(name), rank=ranks[name]))
    while sum(served.values()) < 100_000:
        while len(running) < 8 and (turn := policy.next(ALL)) is not None:
            running.append(turn.call)
            policy.charge(turn.call, 1)
            name = turn.call.id
            waiting(policy, a_call(name, tenant=Tenant(name), rank=ranks[name]))
        call = running.pop(0)
        policy.charge(call, length[call.id] - 1)
        served[call.id] += length[call.id]
    assert served["a"] == pytest.approx(served["b"], rel=0.1)


def test_a_tenant_saves_nothing_up_while_it_wants_nothing(policy: GraphPolicy) -> None:
    busy, idle = Tenant("busy"), Tenant("idle")
    for _ in range(10):
        waiting(policy, a_call("busy", tenant=busy))
        turn = policy.next(ALL)
        assert turn is not None
        policy.charge(turn.call, 1000)
    served = []
    waiting(policy, *[a_call("busy", tenant=busy) for _ in range(9)])
    waiting(policy, *[a_call("idle", tenant=idle) for _ in range(9)])
    for _ in range(8):
        turn = policy.next(ALL)
        assert turn is not None
        policy.charge(turn.call, 100)
        served.append(turn.call.id)
    assert served.count("busy") == served.count("idle") == 4


def test_what_was_expected_and_did_not_come_is_given_back(policy: GraphPolicy) -> None:
    for name in "ab":
        waiting(policy, *[a_call(name, tenant=Tenant(name)) for _ in range(3)])
    turn = policy.next(ALL)
    assert turn is not None
    policy.charge(turn.call, 500)
    other = policy.next(ALL)
    assert other is not None
    assert other.call.id != turn.call.id
    policy.charge(other.call, 100)
    policy.charge(turn.call, -450)
    third = policy.next(ALL)
    assert third is not None
    assert third.call.id == turn.call.id


def test_the_age_of_one_tenants_calls_is_no_matter_of_another(
    policy: GraphPolicy, clock: Clock
) -> None:
    waiting(policy, *[a_call("old", tenant=Tenant("a"), rank=BULK) for _ in range(10)])
    clock.now = 31.0
    waiting(policy, *[a_call("new", tenant=Tenant("b")) for _ in range(10)])
    served = []
    for _ in range(10):
        turn = policy.next(ALL)
        assert turn is not None
        policy.charge(turn.call, 10)
        served.append(turn.call.id)
    assert served.count("new") == 5


# Applications


def test_a_long_lived_thread_lets_a_newcomer_pass(policy: GraphPolicy) -> None:
    thread, newcomer = replace(CHAT, application=0), replace(CHAT, application=9)
    turn_of_thread = a_call("thread", rank=thread)
    policy.charge(turn_of_thread, 4095)
    waiting(policy, turn_of_thread, a_call("newcomer", rank=newcomer))
    assert order(policy) == ["thread", "newcomer"]
    waiting(policy, a_call("thread", rank=thread), a_call("newcomer", rank=newcomer))
    policy.charge(turn_of_thread, 1)  # while it waits
    assert order(policy) == ["newcomer", "thread"]


def test_a_step_is_four_times_the_one_before(policy: GraphPolicy) -> None:
    for number, attained in enumerate([70_000, 16_383, 16_384, 4_096]):
        call = a_call(f"{attained}", rank=replace(CHAT, application=number))
        policy.charge(call, attained)
        waiting(policy, call)
    assert order(policy) == ["16383", "4096", "16384", "70000"]


def test_single_calls_are_newcomers_whatever_others_had(policy: GraphPolicy) -> None:
    """They are as old as the application that begins next, and no part of it."""
    single = Rank(application=5, single=True)
    for _ in range(100):
        policy.charge(a_call("chat", rank=single), 1000)
    old, next_one = replace(CHAT, application=4), replace(CHAT, application=5)
    policy.charge(a_call("old", rank=old), 5000)
    waiting(policy, a_call("old", rank=old), a_call("chat", rank=single))
    waiting(policy, a_call("next", rank=next_one))
    assert order(policy) == ["chat", "next", "old"]


def test_no_order_is_lost_among_random_events(policy: GraphPolicy, clock: Clock) -> None:
    """Against a list that is searched: whoever is served, waits, and everybody is, once."""
    dice, expected, served = random.Random(7), set[Call](), list[Call]()
    for number in range(5000):
        clock.now += dice.random()
        event = dice.randrange(5)
        if event < 2 or not expected:
            tenant = Tenant(dice.choice("abc"))
            call = a_call(f"{number}", tenant=tenant, rank=Rank(dice.random() < 0.5, application=3))
            expected.add(call)
            policy.enter(call)
        elif event == 2:
            call = dice.choice(sorted(expected, key=lambda call: call.id))
            call.rank = Rank(batched=True, application=dice.randrange(9))
            policy.rerank(call)
        elif event == 3:
            call = dice.choice(sorted(expected, key=lambda call: call.id))
            expected.remove(call)
            policy.remove(call)
        elif (turn := policy.next(dice.randrange(1, 4))) is not None:
            expected.remove(turn.call)
            served.append(turn.call)
            policy.charge(turn.call, dice.randrange(-50, 5000))
        assert len(policy) == len(expected)
    while (turn := policy.next(ALL)) is not None:
        expected.remove(turn.call)
        served.append(turn.call)
    assert expected == set()
    assert len(served) == len(set(served)) > 500
