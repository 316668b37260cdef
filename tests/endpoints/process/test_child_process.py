"""What a child finds in its environment."""

import pytest

from parrot_backend.engines.cores import usable_cores
from tests.endpoints.process.children import answer_of, running


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, f"passive {usable_cores()}"),
        ({"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "5"}, "active 5"),
    ],
)
async def test_its_threads_wait_asleep_unless_the_user_has_chosen(
    chosen: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    async with running("of_this_environment") as endpoint:
        assert await answer_of(endpoint, "what is set?") == expected
