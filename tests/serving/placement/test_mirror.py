"""What an engine is believed to have: never more than it can keep, and no block without those before
it."""

from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.serving.placement.mirror import PrefixMirror, SlotMirror
from tests.serving.placement.staged import a_call

BLOCKS_KEPT = 64  # of the smallest cache that is believed: 4,096 tokens


def blocks(path: str) -> tuple[int, ...]:
    return a_call(path).blocks


def test_what_was_computed_is_held_by_all_that_begin_so() -> None:
    mirror = PrefixMirror(100_000)
    mirror.touch(blocks("abc"))
    assert [mirror.held(blocks(path)) for path in ("abc", "abx", "a", "x", "")] == [3, 2, 1, 0, 0]


def test_the_least_recent_goes_first_and_its_tail_before_its_head() -> None:
    """a60 is older than b30, and its end older than its beginning: 26 of it must go."""
    mirror = PrefixMirror(64 * BLOCKS_KEPT)
    mirror.touch(blocks("a" * 60))
    mirror.touch(blocks("b" * 30))
    assert mirror.held(blocks("a" * 60)) == BLOCKS_KEPT - 30
    assert mirror.held(blocks("b" * 30)) == 30


def test_answers_take_room_and_are_not_found() -> None:
    mirror = PrefixMirror(64 * BLOCKS_KEPT)
    mirror.touch(blocks("a" * 10))
    mirror.touch((), 64.0 * 60)
    assert mirror.held(blocks("a" * 10)) == 4
    assert len(mirror) == BLOCKS_KEPT


def test_what_had_gone_takes_all_that_is_older_with_it() -> None:
    """[old | b | new]: b was gone, so old had gone before; new is younger and stays."""
    mirror = PrefixMirror(100_000)
    for path in ("oooo", "bbbb", "nnnn"):
        mirror.touch(blocks(path))
    mirror.correct(blocks("bbbb"), believed=4, told=0, since=mirror.touches)
    assert [mirror.held(blocks(path)) for path in ("oooo", "bbbb", "nnnn")] == [0, 3, 4]


def test_what_was_touched_since_tells_nothing_of_its_age() -> None:
    mirror = PrefixMirror(100_000)
    mirror.touch(blocks("oooo"))
    since = mirror.touches
    mirror.touch(blocks("bbbb"))
    mirror.correct(blocks("bbbb"), believed=4, told=0, since=since)
    assert mirror.held(blocks("oooo")) == 4


def test_a_difference_of_two_blocks_is_a_template() -> None:
    mirror = PrefixMirror(100_000)
    mirror.touch(blocks("abcd"))
    mirror.correct(blocks("abcd"), believed=4, told=2, since=mirror.touches)
    assert mirror.held(blocks("abcd")) == 4


def test_how_much_an_engine_keeps_is_learned_where_it_is_not_told() -> None:
    unknown, told = PrefixMirror(), PrefixMirror(10_000)
    before = unknown.tokens
    for mirror in (unknown, told):
        mirror.correct(blocks("abcdef"), believed=6, told=0, since=0)
    assert unknown.tokens < before
    assert told.tokens == 10_000
    for _ in range(1000):
        unknown.correct(blocks("abcdef"), believed=6, told=0, since=0)
    assert unknown.tokens == 4_096


@given(st.lists(st.text("ab", max_size=80), max_size=40))
def test_it_is_bounded_and_closed_under_prefixes(paths: list[str]) -> None:
    mirror = PrefixMirror(64 * BLOCKS_KEPT)
    for path in paths:
        mirror.touch(blocks(path), len(path))
        assert len(mirror) <= BLOCKS_KEPT
        held = [block in mirror._entries for block in blocks(path)]
        assert held == sorted(held, reverse=True)
        assert mirror.held(blocks(path)) == sum(held)


def test_a_slot_has_what_ran_in_it_last() -> None:
    slots = SlotMirror(2)
    slots.take(blocks("abc"))
    assert slots.held(blocks("abc")) == 0  # it is busy
    slots.leave(blocks("abc"))
    assert slots.held(blocks("abd")) == 2
    slots.take(blocks("abd"))
    slots.leave(blocks("abd"))
    assert slots.held(blocks("abc")) == 2  # it went into the same one


def test_who_finds_nothing_takes_an_empty_slot_and_then_the_longest_idle() -> None:
    slots = SlotMirror(2)
    for path in ("aaa", "bbb"):
        slots.take(blocks(path))
        slots.leave(blocks(path))
    assert (slots.held(blocks("aaa")), slots.held(blocks("bbb"))) == (3, 3)
    slots.take(blocks("ccc"))
    assert (slots.held(blocks("aaa")), slots.held(blocks("bbb"))) == (0, 3)
    assert len(slots) == 1
