"""What an attempt costs, as far as its engine tells."""

from dataclasses import replace

import pytest

from parrot_backend.engines.base import Delta
from parrot_backend.program.analysis import PREFILLED_PER_GENERATED
from parrot_backend.serving.dispatch.attempts import Meter

STEP = Delta("a", (1,), 0, prompt_tokens=1000)
UNTOLD = replace(STEP, tells_cached=False)
LAST = Delta("", (), 900, "stop", prompt_tokens=1000)
NEVER = replace(LAST, cached_tokens=0, tells_cached=False)


@pytest.mark.parametrize(
    ("steps", "computed"),
    [
        ([replace(STEP, cached_tokens=900), LAST], 100),  # as ours tells it, from the first step on
        ([UNTOLD, UNTOLD, LAST], 100),  # as upstreams do, with the usage
        ([replace(UNTOLD, prompt_tokens=0), LAST], 100),
        ([LAST], 100),
        ([UNTOLD, NEVER], 1000),
        ([replace(UNTOLD, prompt_tokens=0)], 500),  # nothing is told: what was expected counts
        ([], 0),
    ],
)
def test_what_of_a_prompt_was_cached_costs_nothing_whenever_it_is_told(
    steps: list[Delta], computed: int
) -> None:
    charged: list[float] = []
    meter = Meter(500, 20, charged.append)
    for step in steps:
        meter.add(step)
    meter.close()
    answer = sum(len(step.tokens) for step in steps)
    assert sum(charged) == pytest.approx(computed / PREFILLED_PER_GENERATED + answer)
