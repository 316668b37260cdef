"""Threads, task groups and objectives, as any client states them: in headers."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from parrot_backend.serving.limits import Limits
from parrot_backend.wire.protocol import (
    GROUP_HEADER,
    GROUP_SIZE_HEADER,
    OBJECTIVE_HEADER,
    SESSION_HEADER,
    SITE_HEADER,
    TAGS_HEADER,
    THREAD_HEADER,
    CallScope,
    Output,
    Program,
)
from parrot_backend.wire.views import GraphView, SessionView
from tests.doubles import ScriptedEngine
from tests.programs import call, join
from tests.servers import serving


@pytest.fixture
def scripted() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def http(scripted: ScriptedEngine) -> Iterator[httpx.Client]:
    limits = Limits(sessions=3, calls_per_session=6)
    with serving(scripted, limits=limits) as url, httpx.Client(base_url=url, timeout=10) as client:
        yield client


def ask(
    http: httpx.Client, content: str, scope: CallScope | None = None, **body: Any
) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": content}], **body}
    headers = (scope or CallScope()).headers()
    return http.post("/v1/chat/completions", json=body, headers=headers).raise_for_status()


def sessions(http: httpx.Client, **query: str) -> list[SessionView]:
    answer = http.get("/v1/sessions", params=query).raise_for_status().json()
    return [SessionView.model_validate(view) for view in answer["data"]]


def graph(http: httpx.Client, session_id: str) -> GraphView:
    return GraphView.model_validate(http.get(f"/v1/sessions/{session_id}/graph").json())


def test_a_thread_is_a_session_that_its_first_request_opens(http: httpx.Client) -> None:
    scope = CallScope(thread="user-7", objective="ttft", tags=["two words", "grün, blau"])
    for content in ("a", "b"):
        ask(http, content, scope)
    ask(http, "elsewhere")
    (session,) = sessions(http, thread="user-7")
    assert (session.unplanned, session.done) == (2, 2)
    assert (session.tags, session.objective) == (["two words", "grün, blau"], "ttft")
    assert [view.id for view in sessions(http)] == [session.id]
    assert sessions(http, thread="user-8") == []


def test_a_group_shows_in_its_session(http: httpx.Client, scripted: ScriptedEngine) -> None:
    group = CallScope(thread="t", group="batch-1", group_size=2)
    ask(http, "one", group)
    ask(http, "between", CallScope(thread="t"))
    ask(http, "two", group)
    (session,) = sessions(http)
    shown = graph(http, session.id)
    assert [(g.name, g.size, g.calls) for g in shown.groups] == [
        ("batch-1", 2, ["request/1", "request/3"])
    ]
    between, two = scripted.priorities["between"], scripted.priorities["two"]
    assert scripted.priorities["one"] == two < between, "who is waited for alone may pass"


def test_the_choices_of_one_request_are_siblings(http: httpx.Client) -> None:
    ask(http, "abc", CallScope(thread="t"), n=3)
    prompts = {"prompt": ["x", "y"], "max_tokens": 3}
    headers = {THREAD_HEADER: "t"}
    http.post("/v1/completions", json=prompts, headers=headers).raise_for_status()
    (session,) = sessions(http)
    assert [(g.size, len(g.calls)) for g in graph(http, session.id).groups] == [(3, 3), (2, 2)]


def test_groups_need_no_session(http: httpx.Client, scripted: ScriptedEngine) -> None:
    ask(http, "one", CallScope(group="g", group_size=2))
    ask(http, "single")
    ask(http, "two", CallScope(group="g", group_size=2))
    ask(http, "bulk", CallScope(objective="throughput"))
    order = scripted.priorities
    assert order["single"] > order["one"] == order["two"] > order["bulk"]


def test_single_requests_are_alike_and_go_in_order_of_arrival(
    http: httpx.Client, scripted: ScriptedEngine
) -> None:
    ask(http, "first")
    ask(http, "second")
    ask(http, "inside", CallScope(thread="t"))
    ask(http, "later")
    order = scripted.priorities
    assert order["first"] == order["second"] == order["inside"] > order["later"]


def test_an_opening_closes_sessions_by_the_way(http: httpx.Client) -> None:
    """Also where there is no room but for what it closes; names that are not there don't matter."""
    old = [http.post("/v1/sessions", json={}).json()["id"] for _ in range(3)]
    assert http.post("/v1/sessions", json={}).status_code == 429
    opened = http.post("/v1/sessions", json={"closes": [*old[:2], old[0], "never-there"]})
    assert opened.status_code == 200
    assert {view.id: view.closed for view in sessions(http)} == {
        old[0]: True,
        old[1]: True,
        old[2]: False,
        opened.json()["id"]: False,
    }


def test_turns_of_one_chat_are_a_conversation(http: httpx.Client) -> None:
    first = [{"role": "user", "content": "hi"}]
    second = [*first, {"role": "assistant", "content": "ih"}, {"role": "user", "content": "and?"}]
    for messages in (first, [{"role": "user", "content": "other"}], second):
        http.post("/v1/chat/completions", json={"messages": messages}, headers={THREAD_HEADER: "t"})
    (session,) = sessions(http)
    assert graph(http, session.id).conversations == [["request/1", "request/3"]]


def test_a_plan_s_groups_objectives_and_times_are_told(http: httpx.Client) -> None:
    program = Program(
        variables={"one": "abc", "two": "xyz"},
        transforms=[join("both", "+", "{a.out}", "{b.out}")],
        calls=[call("a", "1:{one}"), call("b", "2:{two}"), call("c", "sum {both}")],
        outputs=[Output(variable="c.out")],
    )
    opened = http.post("/v1/sessions", json={"program": program.model_dump()}).json()
    http.get(f"/v1/sessions/{opened['id']}/variables/c.out").raise_for_status()
    shown = graph(http, opened["id"])
    a, b, c = shown.calls
    assert [(g.name, g.size, g.calls) for g in shown.groups] == [("c.inputs", 2, ["a", "b"])]
    assert [(v.objective, v.path) for v in (a, b, c)] == [
        ("throughput", 2),
        ("throughput", 2),
        ("latency", 1),
    ]
    for view in shown.calls:
        assert view.queued is not None
        assert view.first_token is not None
        assert view.finished is not None
        assert opened["created"] <= view.queued <= view.first_token <= view.finished
    assert max(a.first_token or 0, b.first_token or 0) <= (c.queued or 0)


def test_a_program_without_outputs_has_the_session_s_objective(http: httpx.Client) -> None:
    body = {"program": Program(calls=[call("a", "x")]).model_dump(), "objective": "throughput"}
    opened = http.post("/v1/sessions", json=body).json()
    assert graph(http, opened["id"]).calls[0].objective == "throughput"


def test_threads_make_room_and_sessions_that_somebody_opened_do_not(http: httpx.Client) -> None:
    opened = [http.post("/v1/sessions").json()["id"] for _ in range(2)]
    for thread in ("a", "b"):
        ask(http, "x", CallScope(thread=thread))
    assert [view.thread for view in sessions(http) if not view.closed and view.thread] == ["b"]
    http.post("/v1/sessions").raise_for_status()
    refused = http.post("/v1/sessions")
    assert refused.status_code == 429
    ask(http, "x", CallScope(thread="no-room"))  # a thread is only a hint
    assert sessions(http, thread="no-room") == []
    assert all(not http.get(f"/v1/sessions/{one}").json()["closed"] for one in opened)


def test_a_thread_goes_on_in_a_new_session_when_one_is_full(http: httpx.Client) -> None:
    for number in range(7):
        ask(http, str(number), CallScope(thread="long"))
    assert [(v.closed, v.done) for v in sessions(http, thread="long")] == [(False, 1), (False, 6)]


def test_a_closed_thread_begins_anew(http: httpx.Client) -> None:
    ask(http, "a", CallScope(thread="t"))
    (first,) = sessions(http)
    http.delete(f"/v1/sessions/{first.id}").raise_for_status()
    ask(http, "b", CallScope(thread="t"))
    assert [view.closed for view in sessions(http, thread="t")] == [False, True]


def test_the_session_header_goes_before_the_thread(http: httpx.Client) -> None:
    opened = http.post("/v1/sessions").json()["id"]
    headers = {SESSION_HEADER: opened, THREAD_HEADER: "t"}
    body = {"messages": [{"role": "user", "content": "x"}]}
    http.post("/v1/chat/completions", json=body, headers=headers).raise_for_status()
    assert [(view.id, view.unplanned) for view in sessions(http)] == [(opened, 1)]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (THREAD_HEADER, "no spaces"),
        (GROUP_HEADER, "a" * 129),
        (GROUP_SIZE_HEADER, "0"),
        (SITE_HEADER, "no spaces"),
        (OBJECTIVE_HEADER, "fast"),
        (TAGS_HEADER, ",".join("x" * 65)),
    ],
)
def test_headers_are_checked_and_named(http: httpx.Client, header: str, value: str) -> None:
    body = {"messages": [{"role": "user", "content": "x"}]}
    answer = http.post("/v1/chat/completions", json=body, headers={header: value})
    assert answer.status_code == 400
    assert header in answer.json()["error"]["message"]


def test_the_official_client_states_them_as_extra_headers(http: httpx.Client) -> None:
    with openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="none", max_retries=0) as client:
        client.chat.completions.create(
            model="scripted",
            messages=[{"role": "user", "content": "hello"}],
            extra_headers={THREAD_HEADER: "t", GROUP_HEADER: "g", GROUP_SIZE_HEADER: "4"},
        )
    (session,) = sessions(http)
    assert [(g.name, g.size) for g in graph(http, session.id).groups] == [("g", 4)]
