"""What calls that wait have in common."""

from parrot_backend.serving.placement.shared import SharedBlocks
from tests.serving.placement.staged import a_call


def test_a_nested_tree_of_prefixes() -> None:
    """
    s -+- t -+- a
       |     '- b
       '- c
    """
    shared = SharedBlocks()
    calls = {path: a_call(path) for path in ("sta", "stb", "sc", "x")}
    for call in calls.values():
        shared.add(call)
    assert shared.shared(calls["sta"]) == (2, 1)
    assert shared.shared(calls["sc"]) == (1, 2)
    assert shared.shared(calls["x"]) == (0, 0)
    shared.remove(calls["stb"])
    assert shared.shared(calls["sta"]) == (1, 1)
    for path in ("sta", "sc", "x"):
        shared.remove(calls[path])
    assert len(shared) == 0
