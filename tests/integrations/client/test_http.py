import asyncio
import copy
import gc
import multiprocessing
import pickle
import socket
import threading

import pytest
import uvicorn

from parrot_backend.api.app import create_app
from parrot_backend.endpoints.local import LocalEndpoint
from parrot_backend.serving.dispatch.fleet import Fleet, Member
from parrot_backend.wire.protocol import IDEMPOTENCY_HEADER, SESSION_HEADER, Output, Program
from parrot_backend.wire.views import SessionView
from parrot_integrations.client import ParrotClient, active_sessions, shared_client
from parrot_integrations.client.errors import (
    AuthenticationError,
    BackendConnectionError,
    BackendTimeoutError,
    ContextLengthError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    ParrotError,
    PermissionDeniedError,
    QuotaError,
    ServerError,
)
from tests.doubles import ScriptedEngine
from tests.integrations.client.asking import body
from tests.integrations.replies import Reply, events, failure, replying
from tests.programs import call
from tests.servers import eventually, serving


def text_of(answer) -> str:
    return answer["choices"][0]["message"]["content"]


def streamed_text(chunks) -> str:
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


@pytest.fixture
def quick(monkeypatch):
    """No pause between attempts, but a list of the pauses that were wanted."""
    pauses: list[float] = []
    recovery = ParrotClient._recovery

    def without_pause(*arguments):
        operation, pause = recovery(*arguments)
        pauses.append(pause)
        return operation, 0.0

    monkeypatch.setattr(ParrotClient, "_recovery", without_pause)
    return pauses


# Against the real server


def test_chat_whole_and_streamed(client):
    answer = client.chat(body("abc"))
    assert text_of(answer) == "cba"
    assert answer["usage"]["completion_tokens"] == 3
    chunks = list(client.stream_chat(body("abc", stream_options={"include_usage": True})))
    assert streamed_text(chunks) == "cba"
    assert chunks[-1]["usage"]["total_tokens"] == 6


async def test_the_async_twins(client):
    assert text_of(await client.achat(body("abc"))) == "cba"
    assert streamed_text([c async for c in client.astream_chat(body("abc"))]) == "cba"
    opened = await client.aopen_session()
    await client.asubmit(opened.id, Program(calls=[call("a", "hello")]))
    assert (await client.asession(opened.id)).planned == 1
    assert [c.id for c in (await client.agraph(opened.id)).calls] == ["a"]
    assert (await client.aevents(opened.id))[0].kind == "call_planned"
    assert (await client.aclose_session(opened.id)).closed
    assert [model["id"] for model in await client.amodels()] == ["scripted"]


def test_models(client):
    assert [(m["id"], m["max_model_len"]) for m in client.models()] == [("scripted", 1000)]


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_the_address_may_end_in_v1(scripted_url, ending):
    with ParrotClient(scripted_url + ending) as client:
        assert client.key == ParrotClient(scripted_url).key
        assert client.models()


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://host", "http://", "somewhere"])
def test_an_address_that_is_none_is_refused_at_once(address):
    with pytest.raises(ValueError, match="base_url"):
        ParrotClient(address)


def test_a_chat_inside_a_session_claims_its_planned_call(client):
    program = Program(
        calls=[call("a", "one"), call("b", "then {a.out}")], outputs=[Output(variable="b.out")]
    )
    session = client.pending_session()
    session.submit(program)
    before = active_sessions.set({client.key: session})
    try:
        assert text_of(client.chat(body("one"))) == "eno"
        assert streamed_text(client.stream_chat(body("then eno"))) == "one neht"
        assert text_of(client.chat(body("something else"))) == "esle gnihtemos"
    finally:
        active_sessions.reset(before)
    assert text_of(client.chat(body("one"))) == "eno"
    closed = client.close_session(session.submitted.result())
    assert (closed.planned, closed.claimed, closed.unplanned) == (2, 2, 1)
    kinds = [event.kind for event in client.events(closed.id)]
    assert kinds.count("call_claimed") == 2
    assert client.events(closed.id, after=len(kinds)) == []


def test_a_session_is_only_for_its_own_backend(client, scripted_url):
    session = client.pending_session()
    session.submit(Program())
    other = ParrotClient(scripted_url, api_key="another")
    before = active_sessions.set({client.key: session})
    try:
        other.chat(body("abc"))
    finally:
        active_sessions.reset(before)
        other.close()
    assert client.close_session(session.submitted.result()).unplanned == 0


def gone(client):
    """A session that the backend has closed by itself."""
    session = client.pending_session()
    session.submit(Program())
    client.close_session(session.submitted.result())
    return session


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_of_an_unknown_session_is_sent_again_without_it(client, stream):
    before = active_sessions.set({client.key: gone(client)})
    try:
        if stream:
            assert streamed_text(client.stream_chat(body("abc"))) == "cba"
        else:
            assert text_of(client.chat(body("abc"))) == "cba"
    finally:
        active_sessions.reset(before)


async def test_an_async_chat_of_an_unknown_session_is_sent_again_without_it(client):
    before = active_sessions.set({client.key: gone(client)})
    try:
        assert text_of(await client.achat(body("abc"))) == "cba"
    finally:
        active_sessions.reset(before)


def test_errors_are_what_the_server_says(client):
    with pytest.raises(NotFoundError, match="s-none") as raised:
        client.session("s-none")
    assert (raised.value.status, raised.value.code) == (404, "session_not_found")
    with pytest.raises(InvalidRequestError, match="unheard_of") as raised:
        client.chat(body("abc", unheard_of=1))
    assert raised.value.param == "unheard_of"
    with pytest.raises(ContextLengthError):
        client.chat(body("FAIL"))
    with pytest.raises(ContextLengthError):
        list(client.stream_chat(body("FAIL")))


def test_api_key(monkeypatch):
    with serving(ScriptedEngine(), api_key="secret") as url:
        with pytest.raises(AuthenticationError, match="API key"), ParrotClient(url) as client:
            client.models()
        with pytest.raises(AuthenticationError), ParrotClient(url, api_key="no") as client:
            client.chat(body("abc"))
        monkeypatch.setenv("PARROT_API_KEY", "secret")
        monkeypatch.setenv("PARROT_BASE_URL", url)
        with ParrotClient() as client:
            assert text_of(client.chat(body("abc"))) == "cba"
        assert "secret" not in repr(client)


def test_closing_a_stream_ends_the_call_at_once(client, scripted_engine):
    scripted_engine.hold("long")
    chunks = client.stream_chat(body("long"))
    next(chunks)
    assert scripted_engine.running == 1
    chunks.close()
    assert eventually(lambda: scripted_engine.running == 0)


async def test_closing_or_cancelling_an_async_stream_ends_the_call_at_once(client, scripted_engine):
    scripted_engine.hold("long")
    chunks = client.astream_chat(body("long"))
    await anext(chunks)
    await chunks.aclose()
    assert eventually(lambda: scripted_engine.running == 0)

    async def consume() -> None:
        async for _ in client.astream_chat(body("long")):
            started.set()

    started = asyncio.Event()
    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert eventually(lambda: scripted_engine.running == 0)


# Threads, loops, processes


def test_threads_share_a_client(client):
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = text_of(client.chat(body(f"x{number}")))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: f"x{n}"[::-1] for n in range(20)}


def test_event_loops_follow_one_another(client):
    for _ in range(3):
        assert text_of(asyncio.run(client.achat(body("abc")))) == "cba"
    assert len(client._connections._by_loop) == 1


async def test_many_at_once(client):
    answers = await asyncio.gather(*(client.achat(body(f"x{n}")) for n in range(200)))
    assert [text_of(answer) for answer in answers] == [f"x{n}"[::-1] for n in range(200)]


async def test_a_closed_client_can_be_used_again(scripted_url):
    client = ParrotClient(scripted_url)
    for _ in range(2):
        assert client.models() == await client.amodels()
        await client.aclose()
    async with client:
        assert await client.amodels()


async def test_a_dropped_client_closes_its_connections(scripted_url):
    client = ParrotClient(scripted_url)
    assert client.models() == await client.amodels()
    own = client._connections
    async with own.of_loop(scripted_url) as of_loop:
        held = own.of_process(scripted_url), of_loop
    del own
    del client
    gc.collect()
    await asyncio.sleep(0.05)
    assert [each.is_closed for each in held] == [True, True]


async def test_a_connection_that_is_opened_while_its_client_closes_is_closed_too(
    scripted_url, monkeypatch
):
    connecting, connect = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    create, opened = loop.create_connection, []

    async def create_connection(*args, **kwargs):
        connecting.set()
        await connect.wait()
        opened.append(await create(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(loop, "create_connection", create_connection)
    client = ParrotClient(scripted_url)
    asking = asyncio.create_task(client.amodels())
    await connecting.wait()
    client.close()
    connect.set()
    assert await asking
    await asyncio.sleep(0.05)
    assert [transport.is_closing() for transport, _ in opened] == [True]


def test_an_ending_event_loop_closes_its_connections(client):
    async def ask():
        await client.amodels()
        async with client._connections.of_loop(client.base_url) as of_loop:
            return of_loop

    assert asyncio.run(ask()).is_closed


def test_an_event_loop_that_is_closed_over_its_generators_closes_its_connections(scripted_url):
    loop = asyncio.new_event_loop()
    with ParrotClient(scripted_url) as client:
        loop.run_until_complete(client.amodels())
        loop.close()
        assert loop.is_closed()
        assert asyncio.run(client.amodels())
    del loop
    gc.collect()  # what is left open warns


@pytest.fixture
def opened(monkeypatch):
    """The sockets that event loops connect."""
    sockets = []
    create = asyncio.BaseEventLoop.create_connection

    async def create_connection(*arguments, **options):
        transport, protocol = await create(*arguments, **options)
        sockets.append(transport.get_extra_info("socket"))
        return transport, protocol

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", create_connection)
    return sockets


def closed_over(*requests):
    """An event loop that is closed over its generators, when the first request has come to its end."""
    loop = asyncio.new_event_loop()
    first, *others = map(loop.create_task, requests)
    loop.run_until_complete(first)
    loop.close()
    for task in others:
        task._log_destroy_pending = False
    return loop


@pytest.mark.parametrize("then", ["asked", "closed", "dropped"])
def test_what_a_closed_loop_leaves_is_closed_when_the_client_is_next(then, scripted_url, opened):
    client = ParrotClient(scripted_url)
    closed_over(client.amodels())
    if then == "asked":
        assert asyncio.run(client.amodels())
    elif then == "closed":
        client.close()
    else:
        del client
    assert opened[0].fileno() == -1
    gc.collect()


def test_closing_a_loop_runs_nothing(client):
    steps = 0

    async def others():
        nonlocal steps
        while True:
            await asyncio.sleep(0)
            steps += 1

    async def ask():
        nonlocal steps
        await client.amodels()
        steps = 0

    loop = closed_over(ask(), others())
    assert steps <= 1  # in the step that the first one ended in
    assert "close" not in vars(loop)


def test_a_request_that_its_loop_was_closed_over_is_cut_off(scripted_engine, scripted_url, opened):
    scripted_engine.hold("long")

    async def until_it_runs():
        assert await asyncio.to_thread(eventually, lambda: scripted_engine.running)

    client = ParrotClient(scripted_url)
    closed_over(until_it_runs(), client.achat(body("long")))
    client.close()
    assert opened[0].fileno() == -1
    assert eventually(lambda: scripted_engine.running == 0)
    gc.collect()


def test_copies_have_connections_of_their_own(client):
    client.models()
    for twin in (pickle.loads(pickle.dumps(client)), copy.deepcopy(client)):
        assert twin.key == client.key
        assert twin._connections is not client._connections
        with twin:
            assert twin.models() == client.models()


def _ask_in_child(client, answers) -> None:
    answers.put(text_of(client.chat(body("abc"))))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_opens_its_own_connections(client):
    client.models()
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    child = fork.Process(target=_ask_in_child, args=(client, answers))
    child.start()
    assert answers.get(timeout=30) == "cba"
    child.join()
    assert text_of(client.chat(body("abc"))) == "cba"
    answers.close()
    answers.join_thread()


def test_settings_make_a_client_shared(scripted_url, monkeypatch):
    settings = {"api_key": None, "model": None, "timeout": 5.0, "max_retries": 1}
    shared = shared_client(scripted_url, **settings)
    assert shared_client(scripted_url + "/v1", **settings) is shared
    assert shared_client(scripted_url, **settings | {"timeout": 6.0}) is not shared
    assert shared_client(None, **settings).base_url is None
    monkeypatch.setenv("PARROT_BASE_URL", scripted_url)
    assert shared_client(None, **settings) is shared


def test_keys():
    url = "http://127.0.0.1:1"
    assert ParrotClient(url, model="a").key == ParrotClient(url + "/v1", model="b", timeout=1).key
    assert ParrotClient(url).key != ParrotClient(url, api_key="k").key
    assert ParrotClient(model="a").key == ParrotClient(model="a").key
    assert (
        len({ParrotClient(model="a").key, ParrotClient(model="b").key, ParrotClient(url).key}) == 3
    )


# What a healthy server never does


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, None, InvalidRequestError),
        (400, "context_length_exceeded", ContextLengthError),
        (401, None, AuthenticationError),
        (403, None, PermissionDeniedError),
        (404, None, NotFoundError),
        (413, None, InvalidRequestError),
        (421, None, PermissionDeniedError),
        (424, "dependency_failed", InvalidRequestError),
        (500, "engine_failed", ServerError),
        (504, "deadline_exceeded", BackendTimeoutError),
    ],
)
def test_each_status_is_an_error_of_its_own_and_sent_once(status, code, expected):
    with replying(failure(status, code)) as server, ParrotClient(server.url) as client:
        with pytest.raises(ParrotError, match=f"says {status}") as raised:
            client.chat(body("abc"))
        error = raised.value
        assert type(error) is expected
        assert (error.status, error.type, error.param, error.code) == (status, "t", "p", code)
        assert len(server.requests) == 1
        assert pickle.loads(pickle.dumps(error)).__dict__ == error.__dict__


@pytest.mark.parametrize(
    "reply", [failure(408), failure(429), failure(502), failure(503), Reply(status=None)]
)
@pytest.mark.parametrize("method", ["chat", "stream_chat"])
def test_what_may_pass_is_tried_again(reply, method, quick):
    good = events({"choices": []}, "[DONE]") if method == "stream_chat" else Reply()
    with replying(reply, reply, good) as server, ParrotClient(server.url) as client:
        answer = getattr(client, method)(body("abc"))
        assert list(answer) == [{"choices": []}] if method == "stream_chat" else answer == {}
    assert len(server.requests) == 3
    assert 0.375 <= quick[0] <= 0.5
    assert 0.75 <= quick[1] <= 1.0


async def test_async_requests_are_tried_again_too(quick):
    with replying(failure(503), Reply()) as server:
        async with ParrotClient(server.url) as client:
            assert await client.achat(body("abc")) == {}
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [408, 429, 503])
def test_the_server_may_say_when_to_come_back(status, quick):
    after = (failure(status, **{"Retry-After": seconds}) for seconds in ("3", "9999"))
    replies = *after, Reply()
    with replying(*replies) as server, ParrotClient(server.url) as client:
        client.chat(body("abc"))
    assert quick == [3.0, 60.0]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (failure(408), BackendTimeoutError),
        (failure(429), QuotaError),
        (failure(503, "overloaded"), OverloadedError),
        (failure(503, "endpoint_lost"), ServerError),
    ],
)
@pytest.mark.parametrize("max_retries", [0, 1])
def test_retries_end(max_retries, reply, expected, quick):
    with replying(reply) as server:
        client = ParrotClient(server.url, max_retries=max_retries)
        with pytest.raises(expected) as raised, client:
            client.chat(body("abc"))
        assert type(raised.value) is expected
        assert len(server.requests) == max_retries + 1


@pytest.mark.parametrize("reply", [failure(503), Reply(status=None)])
def test_what_is_sent_again_in_place_of_another_is_known_by_its_key(reply, quick):
    """Else a session is opened, or a program submitted, once more for each answer that was lost."""
    opened = Reply(body=SessionView(id="s-1").model_dump_json().encode())
    with replying(reply, opened, reply, opened) as server, ParrotClient(server.url) as client:
        client.open_session()
        client.submit("s-1", Program())
        client.submit("s-1", Program())
    paths = [path for _, path, _, _ in server.requests]
    assert paths == ["/v1/sessions"] * 2 + ["/v1/sessions/s-1/program"] * 3
    keys = [headers[IDEMPOTENCY_HEADER] for _, _, headers, _ in server.requests]
    assert (keys[0], keys[2]) == (keys[1], keys[3])
    assert len(set(keys)) == 3


@pytest.mark.parametrize("code", ["not_repeatable", "overloaded"])
def test_a_stream_that_ends_with_an_error_is_never_tried_again(code, quick):
    """What was read stays read: the same beginning would come twice."""
    broken = {"error": {"message": "no more", "type": "server_error", "code": code}}
    with (
        replying(events({"choices": []}, broken)) as server,
        ParrotClient(server.url) as client,
    ):
        chunks = client.stream_chat(body("abc"))
        assert next(chunks) == {"choices": []}
        with pytest.raises(ParrotError, match="no more") as raised:
            next(chunks)
        assert (raised.value.code, raised.value.status) == (code, None)
        assert len(server.requests) == 1
        assert quick == []


def test_a_stream_that_has_begun_is_never_tried_again(quick):
    with (
        replying(events({"choices": [{"delta": {}}]}, cut=True)) as server,
        ParrotClient(server.url) as client,
    ):
        chunks = client.stream_chat(body("abc"))
        assert next(chunks)
        with pytest.raises(BackendConnectionError):
            next(chunks)
        assert len(server.requests) == 1
        assert quick == []


def test_a_stream_without_done_is_not_whole():
    with (
        replying(events({"choices": []})) as server,
        ParrotClient(server.url) as client,
        pytest.raises(BackendConnectionError, match="before the answer was complete"),
    ):
        list(client.stream_chat(body("abc")))


def test_the_session_travels_in_a_header_and_only_unknown_ones_are_dropped(quick):
    opened = Reply(body=SessionView(id="s-1").model_dump_json().encode())
    unknown = failure(404, "session_not_found")
    with replying(opened, unknown, failure(404, "model_not_found")) as server:
        client = ParrotClient(server.url)
        session = client.pending_session()
        session.submit(Program())
        before = active_sessions.set({client.key: session})
        try:
            with pytest.raises(NotFoundError), client:
                client.chat(body("abc"))
        finally:
            active_sessions.reset(before)
    sent = [headers.get(SESSION_HEADER) for _, _, headers, _ in server.requests]
    assert sent == [None, "s-1", None]


@pytest.mark.parametrize(
    "reply",
    [Reply(body=b"<html>hello</html>"), Reply(body=b"[1]"), Reply(302, headers={"Location": "/"})],
)
def test_something_that_is_no_backend_is_told_apart(reply):
    with (
        replying(reply) as server,
        ParrotClient(server.url) as client,
        pytest.raises(ServerError, match="is it one"),
    ):
        client.open_session()


def test_a_proxys_own_error_page_is_quoted():
    with (
        replying(Reply(500, b"<html>upstream down</html>")) as server,
        ParrotClient(server.url) as client,
        pytest.raises(ServerError, match="answered 500: <html>upstream down"),
    ):
        client.chat(body("abc"))


def test_nobody_there(quick):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(BackendConnectionError, match=f"{url}.*`parrot serve`") as raised:
        ParrotClient(url).models()
    assert raised.value.status is None
    assert len(quick) == 2


def test_no_byte_within_the_timeout(scripted_engine, scripted_url):
    scripted_engine.hold("slow")
    with (
        ParrotClient(scripted_url, timeout=0.2) as client,
        pytest.raises(BackendTimeoutError, match="timeout="),
    ):
        client.chat(body("slow"))
    assert eventually(lambda: scripted_engine.running == 0)


def test_loopback_is_reached_past_any_proxy(scripted_url, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with ParrotClient(scripted_url) as client:
        assert client.models()


def test_a_unix_socket(tmp_path):
    path = tmp_path / "socket"
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(Fleet(Member("local", LocalEndpoint(ScriptedEngine())))),
            uds=str(path),
            log_level="warning",
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert eventually(lambda: server.started)
        with ParrotClient(f"unix:{path}") as client:
            assert text_of(client.chat(body("abc"))) == "cba"
            assert asyncio.run(client.amodels()) == client.models()
            closed_over(client.amodels())
        gc.collect()
    finally:
        server.should_exit = True
        thread.join(timeout=30)
