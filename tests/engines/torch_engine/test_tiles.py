"""The tables of a step's tiles: every row sees what it should, and shared slots are read once."""

from collections import Counter, defaultdict

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_backend.engines.torch_engine.attention import Span
from parrot_backend.engines.torch_engine.slots import Run
from parrot_backend.engines.torch_engine.tiles import Tiles, lay_out
from tests.engines.torch_engine.trees import seen_by_rows, slots_of, steps

CPU = torch.device("cpu")


def slots_of_tiles(tables: Tiles) -> list[list[int]]:
    return [
        slots_of([Run(*run) for run in tables.runs[first : first + count].tolist()])
        for first, count, _, _ in tables.tiles.tolist()
    ]


def read_by_rows(tables: Tiles) -> dict[int, list[int]]:
    """The slots that each row reads, by the tables."""
    read: defaultdict[int, list[int]] = defaultdict(list)
    tiles = zip(tables.tiles.tolist(), slots_of_tiles(tables), strict=True)
    for (_, _, first, count), slots in tiles:
        for row, seen, _ in tables.entries[first : first + count].tolist():
            assert 1 <= seen <= len(slots)
            read[row] += slots[:seen]
    return read


@settings(deadline=None)
@given(steps(longest=9, most_rows=9) | steps(longest=700, most_rows=30), st.integers(1, 5))
def test_every_row_reads_what_it_sees_once(spans: list[Span], narrow: int) -> None:
    tables = lay_out(spans, narrow, 4 * narrow, CPU)
    expected = seen_by_rows(spans)
    read = read_by_rows(tables)
    assert [sorted(read[row]) for row in range(len(expected))] == list(map(sorted, expected))


@settings(deadline=None)
@given(steps(longest=300, most_rows=20), st.integers(1, 5))
def test_tiles_have_room_for_their_rows(spans: list[Span], narrow: int) -> None:
    tables = lay_out(spans, narrow, 4 * narrow, CPU)
    counts = tables.tiles[:, 3]
    assert counts.min() >= 1
    assert all(count <= narrow for count in counts[: tables.narrow].tolist())
    assert all(count <= 4 * narrow for count in counts.tolist())
    assert tables.tiles[:, 2].tolist() == [0, *counts.cumsum(0).tolist()[:-1]]
    assert counts.sum() == len(tables.entries)


@settings(deadline=None)
@given(steps(longest=300, most_rows=20), st.integers(1, 5))
def test_the_parts_of_a_row_lie_together(spans: list[Span], narrow: int) -> None:
    tables = lay_out(spans, narrow, 4 * narrow, CPU)
    rows, _, parts = tables.entries.T.tolist()
    assert sorted(parts) == list(range(len(parts)))
    bounds = tables.bounds.tolist()
    assert bounds[0] == 0
    assert bounds[-1] == len(parts)
    for row, part in zip(rows, parts, strict=True):
        assert bounds[row] <= part < bounds[row + 1]


@settings(deadline=None)
@given(steps(longest=300, most_rows=20), st.integers(1, 5))
def test_a_shared_slot_is_read_once_for_a_block_of_rows(spans: list[Span], narrow: int) -> None:
    tables = lay_out(spans, narrow, 4 * narrow, CPU)
    reads = Counter(slot for slots in slots_of_tiles(tables) for slot in slots)
    sharing: Counter[int] = Counter()
    for span in spans:
        sharing.update(dict.fromkeys(slots_of(span.runs), span.count))
    for slot, count in reads.items():
        rows = sharing[slot]
        assert count <= (1 if rows <= narrow else -(-rows // (4 * narrow)))


def test_a_long_run_is_spread_over_tiles_and_many_rows_cut_it_less() -> None:
    prefix = Run(0, 4096)
    alone = [Span(4096, 1, [Run(0, 4097)])]
    together = [Span(4096, 1, [prefix, Run(5000 + i, 1)]) for i in range(32)]
    chunk = [Span(4096, 512, [Run(0, 4608)])]
    tiles = [len(lay_out(spans, 4, 16, CPU).tiles) for spans in (alone, together, chunk)]
    assert tiles == [17, 2 * 8 + 32, 32]
