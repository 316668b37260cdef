"""Answers with long lists: what they hold, and that making them holds nobody up."""

from collections.abc import Iterator

import httpx
import pytest

from parrot_backend.wire.protocol import Program
from parrot_backend.wire.views import EventList, GraphView, SessionList
from tests.doubles import ScriptedEngine
from tests.programs import call
from tests.servers import Watch, serving


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def http(watch: Watch) -> Iterator[httpx.Client]:
    with (
        serving(ScriptedEngine(), watch=watch) as url,
        httpx.Client(base_url=url, timeout=100) as client,
    ):
        yield client


def test_long_lists_are_told_in_pieces(http: httpx.Client, watch: Watch) -> None:
    waiting = [call(f"c{number}", "{input}") for number in range(5000)]
    program = Program(variables={"input": None}, calls=waiting).model_dump_json()
    opened = http.post(
        "/v1/sessions",
        content=f'{{"program":{program}}}',
        headers={"content-type": "application/json"},
    ).json()
    for _ in range(500):
        http.post("/v1/sessions").raise_for_status()
    watch.longest = 0.0
    graph = http.get(f"/v1/sessions/{opened['id']}/graph")
    events = http.get(f"/v1/sessions/{opened['id']}/events")
    sessions = http.get("/v1/sessions")
    assert watch.longest < 0.5
    shown = GraphView.model_validate_json(graph.text)
    assert [view.id for view in shown.calls] == [f"c{number}" for number in range(5000)]
    assert len(shown.variables) == 5001
    assert len(EventList.model_validate_json(events.text).data) == 5000
    assert len(SessionList.model_validate_json(sessions.text).data) == 501
    assert graph.headers["content-type"] == "application/json"


def test_empty_lists_are_lists(http: httpx.Client) -> None:
    path = f"/v1/sessions/{http.post('/v1/sessions').json()['id']}"
    assert http.get(f"{path}/events").json() == {"data": []}
    assert http.get(f"{path}/graph").json() == {
        "calls": [],
        "variables": [],
        "groups": [],
        "conversations": [],
    }
