"""The border of compiled code: what it would trust is looked at first, in every step."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from parrot_backend.engines.torch_engine.forward.forward_pass import Chunk, ForwardPass, StepModel
from parrot_backend.engines.torch_engine.forward.transformers_forward import TransformersForward
from parrot_backend.engines.torch_engine.load.examined import examine
from parrot_backend.engines.torch_engine.load.loaded import LoadedModel
from parrot_backend.engines.torch_engine.memory.kv_cache import KVCache
from parrot_backend.engines.torch_engine.memory.slots import Run

SLOTS = 64
GOOD = Chunk([5, 6, 7], 2, [Run(10, 2), Run(61, 3)], 1)


@pytest.fixture(params=["ours", "transformers"])
def forward(request: pytest.FixtureRequest, tiny: LoadedModel, tiny_path: str) -> ForwardPass:
    return (
        tiny.forward if request.param == "ours" else TransformersForward(examine(tiny_path).model)
    )


def step_model(forward: ForwardPass, tiny: LoadedModel) -> StepModel:
    return StepModel(forward, KVCache(tiny.shapes, SLOTS, forward.kv_dtype, torch.device("cpu")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": [5, 258, 7]}, "not from 0 to 257"),
        ({"tokens": [5, -1, 7]}, "not from 0 to 257"),
        ({"tokens": [5, 2**40, 7]}, "not from 0 to 257"),
        ({"tokens": []}, "choices of 0 tokens"),
        ({"tokens": [], "choices": 0, "start": 5}, "choices of 0 tokens"),
        ({"choices": 4}, "4 choices of 3 tokens"),
        ({"choices": -1}, "-1 choices"),
        ({"start": -1, "runs": [Run(10, 2)]}, "from number -1 on"),
        ({"start": 3}, "5 slots for 6 tokens"),
        ({"runs": [Run(10, 2)]}, "2 slots for 5 tokens"),
        ({"runs": [Run(10, 2), Run(61, 4)]}, "6 slots for 5 tokens"),
        ({"runs": [Run(10, 2), Run(62, 3)]}, "3 slots from number 62 on, of 64"),
        ({"runs": [Run(-1, 2), Run(61, 3)]}, "2 slots from number -1 on"),
        ({"runs": [Run(10, 0), Run(20, 5)]}, "0 slots from number 10 on"),
    ],
)
def test_what_the_model_or_the_cache_has_not_is_refused(
    forward: ForwardPass, tiny: LoadedModel, changes: dict[str, Any], message: str
) -> None:
    model = step_model(forward, tiny)
    bad = replace(GOOD, **changes)
    with pytest.raises(ValueError, match=message):
        model.forward([replace(GOOD, runs=[Run(0, 5)]), bad])
    assert model.forward([GOOD]).shape == (1, 258)


def test_a_step_without_rows_is_refused(forward: ForwardPass, tiny: LoadedModel) -> None:
    with pytest.raises(ValueError, match="without rows"):
        step_model(forward, tiny).forward([])
