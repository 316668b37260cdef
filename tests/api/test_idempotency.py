"""What a client repeats is done once."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from parrot_backend.api.requests import idempotency
from parrot_backend.serving.limits import Limits
from parrot_backend.serving.sessions.session import Session
from parrot_backend.wire.protocol import Program
from tests.doubles import ScriptedEngine
from tests.programs import call
from tests.servers import eventually, serving

PROGRAM = Program(calls=[call("a", "once")]).model_dump()


@pytest.fixture
def scripted() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def http(scripted: ScriptedEngine) -> Iterator[httpx.Client]:
    with serving(scripted) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_repeated_opening_gets_the_first_s_answer(
    http: httpx.Client, scripted: ScriptedEngine
) -> None:
    headers = {"idempotency-key": "k1"}
    first, second = (
        http.post("/v1/sessions", json={"program": PROGRAM}, headers=headers) for _ in range(2)
    )
    assert first.status_code == 200
    assert second.json() == first.json()
    assert scripted.started == ["once"]
    assert len(http.get("/v1/sessions").json()["data"]) == 1
    other = http.post("/v1/sessions", json={}, headers=headers)
    assert code(other) == (409, "idempotency_mismatch")
    assert http.post("/v1/sessions", headers={"idempotency-key": "k2"}).status_code == 200


def test_repeats_that_come_at_once_wait_for_the_first(
    http: httpx.Client, scripted: ScriptedEngine
) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda _: http.post(
                    "/v1/sessions", json={"program": PROGRAM}, headers={"idempotency-key": "k"}
                ),
                range(8),
            )
        )
    assert {answer.text for answer in answers} == {answers[0].text}
    assert scripted.started == ["once"]


def test_a_repeated_program_is_taken_once(http: httpx.Client, scripted: ScriptedEngine) -> None:
    path = f"/v1/sessions/{http.post('/v1/sessions').json()['id']}/program"
    headers = {"idempotency-key": "k"}
    first, second = (http.post(path, json=PROGRAM, headers=headers) for _ in range(2))
    assert first.json() == second.json()
    assert http.post(path, json=PROGRAM).status_code == 409
    elsewhere = f"/v1/sessions/{http.post('/v1/sessions').json()['id']}/program"
    assert code(http.post(elsewhere, json=PROGRAM, headers=headers))[1] == "idempotency_mismatch"
    assert scripted.started == ["once"]


def test_an_opening_with_an_id_is_known_by_it(http: httpx.Client, scripted: ScriptedEngine) -> None:
    opening = {"id": "mine", "program": PROGRAM}
    first, second = (http.post("/v1/sessions", json=opening) for _ in range(2))
    assert second.json() == first.json()
    assert code(http.post("/v1/sessions", json={"id": "mine"})) == (409, "session_exists")
    assert scripted.started == ["once"]


def test_an_empty_key_is_none(http: httpx.Client) -> None:
    answer = http.post("/v1/sessions", headers={"idempotency-key": ""})
    assert answer.status_code == 400
    assert "idempotency-key" in answer.json()["error"]["param"]


def test_a_key_is_no_id(http: httpx.Client) -> None:
    opened = {
        http.post("/v1/sessions", json={"id": "b"}).json()["id"],
        *(
            http.post("/v1/sessions", headers={"idempotency-key": key}).json()["id"]
            for key in ("id b", "key b", "b")
        ),
    }
    assert len(opened) == 4
    other = http.post("/v1/sessions", json={"tags": ["x"]}, headers={"idempotency-key": "b"})
    assert "key 'b' is" in other.json()["error"]["message"]


@pytest.mark.parametrize("headers", [{"idempotency-key": "k"}, {}])
def test_a_session_that_was_closed_is_not_told_to_be_open(headers: dict[str, str]) -> None:
    limits = Limits(closed_session_bytes=6000)
    with serving(ScriptedEngine(), limits=limits) as url:
        opening = {"id": "mine", "program": PROGRAM}
        opened = httpx.post(f"{url}/v1/sessions", json=opening, headers=headers).json()
        path = f"{url}/v1/sessions/mine"
        more = {"idempotency-key": "more"}
        httpx.post(f"{path}/program", json={}, headers=more).raise_for_status()
        closed = httpx.delete(path).json()
        again = httpx.post(f"{url}/v1/sessions", json=opening, headers=headers)
        assert (opened["closed"], again.status_code, again.json()) == (False, 200, closed)
        assert httpx.post(f"{path}/program", json={}, headers=more).json() == closed
        httpx.post(f"{url}/v1/sessions", json={"id": "next", "program": PROGRAM})
        httpx.delete(f"{url}/v1/sessions/next")
        again = httpx.post(f"{url}/v1/sessions", json=opening, headers=headers)
        assert code(again) == (404, "session_not_found")


def test_what_failed_is_tried_again(http: httpx.Client) -> None:
    headers = {"idempotency-key": "k"}
    for _ in range(2):
        answer = http.post("/v1/sessions/none/program", json=PROGRAM, headers=headers)
        assert code(answer) == (404, "session_not_found")
    http.post("/v1/sessions", json={"id": "none"})
    answer = http.post("/v1/sessions/none/program", json=PROGRAM, headers=headers)
    assert answer.status_code == 200


def test_an_opening_that_is_refused_leaves_its_id_free(
    http: httpx.Client, scripted: ScriptedEngine
) -> None:
    wrong = Program(calls=[call("a", "{nobody}")]).model_dump()
    for _ in range(2):
        answer = http.post("/v1/sessions", json={"id": "mine", "program": wrong})
        assert answer.status_code == 400
    assert http.get("/v1/sessions").json()["data"] == []
    answer = http.post("/v1/sessions", json={"id": "mine", "program": PROGRAM})
    assert answer.status_code == 200
    assert eventually(lambda: scripted.started == ["once"])


def test_an_opening_that_finds_the_server_full_can_be_tried_again() -> None:
    with serving(ScriptedEngine(), limits=Limits(unfinished_calls=0)) as url:
        for _ in range(2):
            answer = httpx.post(f"{url}/v1/sessions", json={"id": "mine", "program": PROGRAM})
            assert code(answer) == (503, "overloaded")


def test_a_close_waits_for_the_opening_that_is_in_work(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on, submit = threading.Event(), threading.Event(), Session.submit

    async def slow(session: Session, program: Program) -> None:
        reached.set()
        await asyncio.to_thread(go_on.wait, 5)
        await submit(session, program)

    monkeypatch.setattr(Session, "submit", slow)
    with ThreadPoolExecutor(2) as pool:
        opening = pool.submit(http.post, "/v1/sessions", json={"id": "mine", "program": PROGRAM})
        assert reached.wait(5)
        closing = pool.submit(http.delete, "/v1/sessions/mine")
        time.sleep(0.1)
        assert not closing.done()
        go_on.set()
        assert opening.result().status_code == 200
        assert closing.result().json()["closed"]


def test_an_opening_whose_client_left_before_it_began_is_not_done(
    http: httpx.Client, scripted: ScriptedEngine
) -> None:
    """What is large takes a while to be decoded, and its client may have closed it by then."""
    variables: dict[str, str | None] = {str(n): "x" * 1000 for n in range(9000)}
    program = Program(variables=variables, calls=[call("a", "once")])
    content = json.dumps({"id": "mine", "program": program.model_dump()}).encode()
    head = (
        "POST /v1/sessions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((http.base_url.host, http.base_url.port or 80)) as connection:
        connection.sendall(head.encode() + content)
    time.sleep(1)
    assert http.delete("/v1/sessions/mine").status_code == 404
    assert scripted.started == []


def test_only_so_many_keys_are_kept(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MOST_KEYS", 2)
    ids = [
        http.post("/v1/sessions", headers={"idempotency-key": key}).json()["id"]
        for key in ("a", "b", "c", "c", "a")
    ]
    assert ids[2] == ids[3]
    assert len(set(ids)) == 4


def test_keys_are_kept_for_a_while(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "KEPT_SECONDS", -1.0)
    ids = {
        http.post("/v1/sessions", headers={"idempotency-key": "k"}).json()["id"] for _ in range(2)
    }
    assert len(ids) == 2


def test_a_client_tells_that_its_sessions_are_wanted(http: httpx.Client) -> None:
    ids = [http.post("/v1/sessions").json()["id"] for _ in range(2)]
    http.delete(f"/v1/sessions/{ids[1]}")
    answer = http.post("/v1/sessions/alive", json={"sessions": [*ids, "never"]})
    assert answer.json() == {"sessions": [ids[0]]}
