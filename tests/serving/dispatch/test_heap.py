"""The queue whose items move, against a sorted list."""

from hypothesis import given
from hypothesis import strategies as st

from parrot_backend.serving.dispatch.heap import KeyedHeap

EVENTS = st.lists(st.tuples(st.integers(0, 30), st.one_of(st.none(), st.integers(-5, 5))))


@given(EVENTS)
def test_the_lowest_key_comes_first_then_who_was_put_first(
    events: list[tuple[int, int | None]],
) -> None:
    heap: KeyedHeap[int] = KeyedHeap()
    expected: dict[int, int] = {}
    for item, key in events:
        expected.pop(item, None)
        if key is None:
            heap.remove(item)
        else:
            expected[item] = key
            heap.put(item, key)
        assert (item in heap) == (item in expected)
        assert len(heap) == len(expected)
        first = min(expected, key=lambda item: expected[item], default=None)
        found = heap.first()
        assert found == (None if first is None else (expected[first], first))


def test_old_entries_do_not_pile_up() -> None:
    heap: KeyedHeap[int] = KeyedHeap()
    for key in range(100_000):
        heap.put(key % 100, key)
    assert len(heap._entries) < 300
    for item in range(100):
        heap.remove(item)
    assert heap._entries == []
