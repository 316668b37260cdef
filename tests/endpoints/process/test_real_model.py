"""The real engine in a child."""

import os
import signal
from contextlib import aclosing

import pytest

from parrot_backend.endpoints.process.endpoint import ProcessEndpoint
from parrot_backend.endpoints.process.recipe import Recipe
from parrot_backend.wire.errors import EndpointLostError
from tests.endpoints.process.children import deltas_of, eventually, job, states_of

pytestmark = pytest.mark.model


async def test_a_killed_engine_s_stream_is_lost_and_the_next_one_says_the_same(
    model_path: str,
) -> None:
    endpoint = ProcessEndpoint(Recipe({"model": model_path, "kv_memory": 1 << 26}))
    count = job("Count.", temperature=0, max_tokens=16)
    try:
        await endpoint.start()
        before = await deltas_of(endpoint, count)
        assert endpoint.stats().steps > 0
        states = states_of(endpoint)
        async with aclosing(endpoint.generate(job("Count.", logit_bias={"2": -100}))) as deltas:
            await anext(deltas)
            assert endpoint.pid is not None
            os.kill(endpoint.pid, signal.SIGKILL)
            with pytest.raises(EndpointLostError, match="killed by SIGKILL"):
                async for _ in deltas:
                    pass
        await eventually(lambda: endpoint.state == "ready")
        assert states == ["dead", "starting", "ready"]
        after = await deltas_of(endpoint, count)
        assert [delta.tokens for delta in after] == [delta.tokens for delta in before]
    finally:
        await endpoint.aclose()
