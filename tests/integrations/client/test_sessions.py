"""`parrot_session` and `task_group` around plain requests, of any framework or none."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from parrot_backend.wire.protocol import CallScope, Program
from parrot_integrations.client import ParrotClient, active_sessions
from parrot_integrations.client.scope import active_scope, task_group, wire_name
from parrot_integrations.client.sessions import parrot_session
from tests.integrations.client.asking import body


def test_requests_inside_are_one_session(client: ParrotClient) -> None:
    with parrot_session(objective="throughput", tags=["a b"]) as session:
        client.chat(body("one"))
        list(client.stream_chat(body("two")))
        client.complete({"prompt": "three"})
    client.chat(body("outside"))
    (view,) = session.views()
    assert (view.unplanned, view.done, view.tags) == (3, 3, ["a b"])
    assert view.thread == session.thread
    (graph,) = session.graphs()
    assert {call.objective for call in graph.calls} == {"throughput"}


async def test_tasks_and_threads_inside_belong_to_it(client: ParrotClient) -> None:
    with parrot_session() as session, task_group(3):
        await asyncio.gather(
            client.achat(body("one")),
            asyncio.to_thread(client.chat, body("two")),
            anext(client.astream_chat(body("three"))),
        )
    (graph,) = await session.agraphs()
    (view,) = await session.aviews()
    assert view.unplanned == 3
    assert [(group.size, len(group.calls)) for group in graph.groups] == [(3, 3)]


def test_a_raw_thread_belongs_where_its_context_says(client: ParrotClient) -> None:
    with parrot_session() as session, ThreadPoolExecutor(1) as pool:
        pool.submit(client.chat, body("lost")).result()
        pool.submit(copy_context().run, client.chat, body("kept")).result()
    (view,) = session.views()
    assert view.unplanned == 1


def test_a_thread_goes_on_from_one_with_to_the_next(client: ParrotClient) -> None:
    for _ in range(2):
        with parrot_session(thread="user 7's chat") as session:
            client.chat(body("hi"))
    assert [view.unplanned for view in session.views()] == [2]


def test_sessions_nest_and_end(client: ParrotClient) -> None:
    with parrot_session(objective="ttft", tags=["outer"]) as outer:
        with parrot_session(tags=["inner"]) as inner:
            client.chat(body("in"))
        client.chat(body("out"))
    assert [(v.tags, v.objective) for v in inner.views()] == [(["outer", "inner"], "ttft")]
    assert [(v.tags, v.unplanned) for v in outer.views()] == [(["outer"], 1)]
    assert active_scope.get() == CallScope()


def test_nothing_is_sent_for_a_session_that_asks_nothing() -> None:
    with parrot_session() as session:
        pass
    assert session.views() == session.graphs() == []


def test_a_request_whose_plan_is_gone_still_belongs(client: ParrotClient) -> None:
    with parrot_session() as session:
        planned = client.pending_session()
        planned.submit(Program())
        client.close_session(planned.submitted.result())
        token = active_sessions.set({client.key: planned})
        client.chat(body("hi"))
        active_sessions.reset(token)
    assert [view.unplanned for view in session.views()] == [1, 0]


@pytest.mark.parametrize("name", ["plain-1", "ümläut", "two words", "x" * 500, "a|b"])
def test_any_text_becomes_a_name_that_the_wire_takes(name: str) -> None:
    assert CallScope(thread=wire_name(name)).thread == wire_name(name)
    assert (wire_name(name) == name) is (name == "plain-1")
