"""Where calls go; one letter of a prompt is a block of 64 tokens."""

import pytest

from parrot_backend.serving.placement.placement import Placement
from tests.serving.placement.staged import Clock, Fleet, a_call, engine

S = "s" * 16  # 1,024 tokens that are shared


def test_a_call_goes_where_its_prefix_is() -> None:
    """
    one  [ssss]      <- s+b
    two  [    ]
    """
    for seed in range(8):
        fleet = Fleet(engine("one"), engine("two"), seed=seed)
        fleet.warm(a_call(S + "a"), "one")
        assert fleet.ask(a_call(S + "b")) == "one"


def test_the_prefix_is_left_where_its_engine_has_too_much_to_do() -> None:
    """
    one  [ssss] and 8 long prompts in front    <- not here
    two  [    ]                                <- s+b
    """
    fleet = Fleet(engine("one", 16), engine("two", 16))
    fleet.warm(a_call(S + "a"), "one")
    for number in range(8):
        fleet.run(a_call(tokens=4000, tenant=f"{number}"), "one")
    assert fleet.ask(a_call(S + "b")) == "two"


def test_a_full_engine_is_waited_for_where_its_prefix_is_worth_it() -> None:
    """
    one  [sss...] full, with short answers left       <- wait for a place
    two  [      ]  4,096 tokens would be computed again
    """
    fleet = Fleet(engine("one", 2), engine("two", 2))
    fleet.warm(a_call("s" * 64), "one")
    running = [a_call("s" * 64 + end, answer_tokens=10.0) for end in "ab"]
    for call in running:
        fleet.run(call, "one")
        fleet.first(call)
    call = a_call("s" * 64 + "c", answer_tokens=10.0)
    assert fleet.ask(call) is None
    assert fleet.end(running[0], 10) == [call]
    assert fleet.ask(call) == "one"
    fleet.end(running[1], 10)
    fleet.end(call, 10)
    assert len(fleet.placement) == 0


def test_who_waits_for_a_place_is_asked_again_when_there_is_one_elsewhere() -> None:
    """What runs on one takes longer than was thought, and two has nothing left to do."""
    fleet = Fleet(engine("one", 1), engine("two", 2))
    fleet.warm(a_call("s" * 64), "one")
    slow, other = a_call(tokens=64, answer_tokens=10.0), a_call(tokens=64, answer_tokens=10.0)
    fleet.run(slow, "one")
    fleet.run(other, "two")
    call = a_call("s" * 64 + "c", answer_tokens=10.0)
    assert fleet.ask(call) is None
    assert fleet.end(other) == [call]


def test_a_full_engine_is_not_waited_for_where_it_is_not() -> None:
    fleet = Fleet(engine("one", 1), engine("two", 1))
    fleet.warm(a_call("ss"), "one")
    fleet.run(a_call("ssa", answer_tokens=1000.0), "one")
    assert fleet.ask(a_call("ssb")) == "two"


def test_other_tenants_have_no_part_in_a_prefix() -> None:
    names = set()
    for seed in range(20):
        fleet = Fleet(engine("one"), engine("two"), seed=seed)
        fleet.warm(a_call(S, tenant="a"), "one")
        names.add(fleet.ask(a_call(S, tenant="b")))
    assert names == {"one", "two"}


def test_engines_that_are_not_ready_or_full_are_never_chosen() -> None:
    fleet = Fleet(engine("off", ready=False), engine("full", 0), engine("on"))
    fleet.placement.started(a_call(S), engine("off"))
    assert fleet.ask(a_call(S)) == "on"


def test_where_there_is_no_place_at_all_it_waits_for_any() -> None:
    fleet = Fleet(engine("one", 1))
    first, call = a_call("a"), a_call("b")
    assert fleet.ask(first) == "one"
    assert fleet.ask(call) is None
    assert fleet.placement.changed() == [call]
    assert fleet.ask(call) is None
    assert fleet.end(first) == [call]
    assert fleet.ask(call) == "one"


def test_an_interactive_call_keeps_away_from_bulk_and_bulk_from_it() -> None:
    """
    chats  c c
    maps   m m
    """
    for interactive, home in ((True, "chats"), (False, "maps")):
        fleet = Fleet(engine("chats", 32), engine("maps", 32))
        for number in range(2):
            chat = a_call(tokens=100, tenant=f"c{number}", interactive=True)
            bulk = a_call(tokens=2000, tenant=f"m{number}")
            for call, name in ((chat, "chats"), (bulk, "maps")):
                fleet.run(call, name)
                fleet.first(call)
        assert fleet.ask(a_call(tokens=300, interactive=interactive)) == home


def test_a_group_that_fits_goes_to_one_engine() -> None:
    """One goes first, its siblings wait behind it and then go to the same engine."""
    fleet = Fleet(engine("one", sharing="computed"), engine("two", sharing="computed"))
    group = [
        a_call("s" * 40 + f"{n}", answer_tokens=20.0, group="g", group_size=4) for n in range(4)
    ]
    for call in group:
        fleet.placement.entered(call)
    home = fleet.ask(group[0])
    assert [fleet.ask(call) for call in group[1:]] == [None] * 3
    fleet.clock.now = 2.6
    assert fleet.first(group[0]) == group[1:]
    assert [fleet.ask(call) for call in group[1:]] == [home] * 3


def test_a_group_is_split_where_that_ends_it_sooner() -> None:
    """A short prefix, and more members than one engine takes at once."""
    fleet = Fleet(engine("one", 4), engine("two", 4))
    group = [a_call(f"s{n}", tokens=1000, group="g", group_size=8) for n in range(8)]
    places = [fleet.ask(call) for call in group]
    assert sorted(places) == ["one"] * 4 + ["two"] * 4


def test_the_first_of_a_group_goes_where_there_is_room_for_the_others() -> None:
    """
    one  [r r r .]   one place, a little less to do
    two  [r . . . . . . .]
    """
    fleet = Fleet(engine("one", 4, weight=1.05), engine("two", 8))
    for number, name in enumerate(("one", "one", "one", "two")):
        call = a_call(tokens=64, tenant=f"{number}", answer_tokens=100.0)
        fleet.run(call, name)
        fleet.first(call)
    group = [a_call("s" * 30 + f"{n}", group="g", group_size=6) for n in range(6)]
    for call in group:
        fleet.placement.entered(call)
    assert fleet.ask(group[0]) == "two"


def test_weights_share_out_what_nothing_is_known_of() -> None:
    fleet = Fleet(engine("one", 100, weight=1.0), engine("three", 100, weight=3.0))
    for number in range(40):
        call = a_call(tokens=100, tenant=f"{number}")
        fleet.ask(call)
        fleet.first(call)
    names = [*fleet.running.values()]
    assert names.count("three") > names.count("one") > 0


def test_of_many_engines_two_are_drawn_and_the_one_with_less_to_do_is_taken() -> None:
    fleet = Fleet(*[engine(f"{n}", 100) for n in range(32)])
    for number in range(320):
        fleet.ask(a_call(tokens=500, tenant=f"{number}"))
    loads = sorted([*fleet.running.values()].count(f"{n}") for n in range(32))
    assert loads[0] >= 6
    assert loads[-1] <= 14


def test_the_same_seed_chooses_the_same() -> None:
    def places(seed: int) -> list[str | None]:
        fleet = Fleet(*[engine(f"{n}", 4) for n in range(12)], seed=seed)
        return [fleet.ask(a_call("s" * (n % 5), tokens=500)) for n in range(60)]

    assert places(1) == places(1)
    assert places(1) != places(2)


def test_cached_tokens_that_are_told_put_the_mirror_right() -> None:
    """The engine had nothing of it, so what was computed before that has gone, too."""
    fleet = Fleet(engine("one"), engine("two"))
    fleet.warm(a_call("o" * 16), "one")
    fleet.warm(a_call("s" * 16), "one")
    for told in (100, 0):
        call = a_call("s" * 16 * (not told) + "a")
        fleet.run(call, "one")
        fleet.first(call, cached_tokens=told, prompt_tokens=3000)
        fleet.end(call)
    assert fleet.placement._books["one"].prefixes.held(a_call("o" * 16).blocks) == 0
    assert fleet.placement._books["one"].prefixes.held(a_call("s" * 16).blocks) == 16


def kept(fleet: Fleet) -> int:
    return fleet.placement._books["one"].prefixes.tokens


def test_what_is_not_told_puts_nothing_right() -> None:
    fleet = Fleet(engine("one"))
    fleet.warm(a_call("o" * 16), "one")
    before = kept(fleet)
    for told in (16 * 64, None, None, None):
        call = a_call("o" * 16 + "a")
        fleet.run(call, "one")
        fleet.first(call)
        fleet.placement.ended(call, 20, told, told and 17 * 64)
    assert kept(fleet) == before


def test_what_is_told_with_the_end_puts_right_how_much_is_kept() -> None:
    fleet = Fleet(engine("one"))
    fleet.warm(a_call("o" * 16), "one")
    before = kept(fleet)
    call = a_call("o" * 16 + "a")
    fleet.run(call, "one")
    fleet.first(call)
    fleet.placement.ended(call, 20, 0, 17 * 64)
    assert kept(fleet) < before


def test_a_lost_engine_has_nothing_and_those_that_waited_for_it_choose() -> None:
    fleet = Fleet(engine("one", sharing="computed"))
    leader, follower = a_call(S + "a"), a_call(S + "b")
    assert (fleet.ask(leader), fleet.ask(follower)) == ("one", None)
    fleet.running.clear()
    assert fleet.placement.lost("one") == [follower]
    assert fleet.end(leader) == []
    assert fleet.ask(follower) == "one"
    fleet.end(follower)
    assert len(fleet.placement) == 0


def test_it_tells_no_time_but_what_the_clock_says() -> None:
    clock = Clock()
    placement = Placement(0, clock)
    view = engine("one")
    for _ in range(50):
        call = a_call(tokens=1024, answer_tokens=10.0)
        assert placement.choose(call, [view]) == "one"
        placement.started(call, view)
        clock.now += 4.0
        placement.first_token(call)
        placement.ended(call)
    assert placement._books["one"].speed.prefill(1024) == pytest.approx(4.0, rel=0.2)
