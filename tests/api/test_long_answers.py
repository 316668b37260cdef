"""Whole answers that are large: told as small ones, made in pieces, kept until they are told."""

import gc
import json
import socket
import time
import weakref
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from parrot_backend.api.answers.json_pieces import PIECE_CHARACTERS, json_pieces
from parrot_backend.engines.base import Candidate, Delta, GenerationRequest, TokenLogprobs
from parrot_backend.wire.protocol import Program
from tests.doubles import ScriptedEngine
from tests.programs import call
from tests.servers import Watch, eventually, serving

MOST_SECONDS = 0.5
"""Ten times what the loop may stand still."""


class Noted(Candidate):
    """One that weak references can be made to."""


class Traced(ScriptedEngine):
    """Knows how many of its answers' last tokens are still kept by somebody."""

    def __init__(self) -> None:
        super().__init__(lambda prompt: prompt * 50)
        self.tokens: list[weakref.ref[Candidate]] = []

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        async for delta in super().generate(request):
            if delta.finish_reason is None:
                yield delta
                continue
            token = Noted(0, b"x", -0.5)
            self.tokens.append(weakref.ref(token))
            yield replace(delta, logprobs=(TokenLogprobs(token, ()),))
            del token, delta

    @property
    def kept(self) -> int:
        return sum(token() is not None for token in self.tokens)


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def scripted() -> ScriptedEngine:
    return ScriptedEngine(lambda prompt: prompt * 50)


@pytest.fixture(scope="module")
def http(scripted: ScriptedEngine, watch: Watch) -> Iterator[httpx.Client]:
    with (
        serving(scripted, watch=watch) as url,
        httpx.Client(base_url=url, timeout=100) as client,
    ):
        yield client


def chat(content: str, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}], "logprobs": True, **more}


@contextmanager
def sending(url: str, path: str, content: bytes) -> Iterator[socket.socket]:
    """A connection that has sent a request, and takes little of its answer by itself."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        parts = urlsplit(url)
        connection.settimeout(60)
        connection.connect((parts.hostname, parts.port))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        connection.sendall(head.encode() + content)
        yield connection


def prompt(content: str, **more: object) -> dict[str, object]:
    return {"prompt": content, "max_tokens": 10_000, **more}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat("some text ", n=32, top_logprobs=20)),
        ("/v1/completions", prompt("some text ", n=32, logprobs=20)),
    ],
    ids=["chat", "text"],
)
def test_a_large_answer_holds_nobody_up(
    http: httpx.Client, watch: Watch, path: str, body: dict[str, object]
) -> None:
    watch.longest = 0.0
    answer = http.post(path, json=body)
    assert watch.longest < MOST_SECONDS
    told = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert [choice["index"] for choice in told["choices"]] == list(range(32))
    assert told["usage"]["completion_tokens"] == 32 * 500
    assert list(told)[-5:] == [
        "choices",
        "usage",
        "system_fingerprint",
        "queue_time",
        "generation_config",
    ]
    alone = http.post(path, json={**body, "n": 1})
    for choice in told["choices"]:
        choice["index"] = 0
        assert choice == alone.json()["choices"][0]


def test_a_short_answer_tells_its_length(http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", json=chat("néé", n=2, top_logprobs=2))
    assert int(answer.headers["content-length"]) == len(answer.content)
    same = json.dumps(answer.json(), ensure_ascii=False, separators=(",", ":"))
    assert answer.text == same
    columns = http.post("/v1/completions", json=prompt("né", logprobs=1)).json()["choices"][0]
    assert columns["logprobs"]["text_offset"] == list(range(100))
    assert columns["logprobs"]["tokens"] == ["n", "é"] * 50


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": iter(()), "b": {}, "c": {"d": {}}, "e": [{"f": 1.5}]},
        {"a": iter([{"b": iter(["é", None]), "c": {}}, 1, []])},
        iter(range(PIECE_CHARACTERS)),
    ],
)
def test_pieces_make_up_what_json_would(value: Any) -> None:
    def whole(part: Any) -> Any:
        if isinstance(part, Iterator):
            return [whole(item) for item in part]
        return {k: whole(v) for k, v in part.items()} if isinstance(part, dict) else part

    told = whole(value)
    again = iter(told) if isinstance(told, list) else told
    pieces = list(json_pieces(again))
    assert "".join(pieces) == json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    assert max(map(len, pieces)) < PIECE_CHARACTERS + 100


def test_an_answer_is_kept_until_it_is_told_or_its_client_has_left() -> None:
    engine = Traced()
    with serving(engine) as url:
        session = httpx.post(f"{url}/v1/sessions").json()["id"]
        path, body = f"/v1/sessions/{session}/calls", chat("x" * 20, n=8, top_logprobs=20)
        with sending(url, path, json.dumps(body).encode()) as leaving:
            assert leaving.recv(100).startswith(b"HTTP/1.1 200")
            time.sleep(0.5)
            assert engine.kept
        assert eventually(lambda: not engine.kept)
        whole = httpx.post(f"{url}{path}", json=body, timeout=60).json()
        assert [len(choice["logprobs"]["content"]) for choice in whole["choices"]] == [1000] * 8
        assert eventually(lambda: not engine.kept)


def test_a_long_answer_that_is_there_already_is_streamed_in_turns(
    http: httpx.Client, watch: Watch
) -> None:
    content = "x" * 400
    program = Program(calls=[call("a", content)]).model_dump()
    path = f"/v1/sessions/{http.post('/v1/sessions', json={'program': program}).json()['id']}"
    assert eventually(lambda: http.get(path).json()["done"] == 1, 60)
    watch.longest = 0.0
    told = http.post(f"{path}/calls", json={**chat(content, stream=True), "logprobs": False}).text
    assert told.count('"content": "x"') == 20_000
    assert watch.longest < MOST_SECONDS / 5


def test_who_does_not_read_and_leaves_ends_the_call() -> None:
    engine = ScriptedEngine(lambda _: "x" * 1_000_000)
    body = json.dumps(chat("long", top_logprobs=20, stream=True)).encode()
    with serving(engine) as url:
        gc.disable()
        try:
            with sending(url, "/v1/chat/completions", body):
                time.sleep(3)
                assert engine.running == 1
            assert eventually(lambda: engine.running == 0)
        finally:
            gc.enable()
