"""How requests are sent: waits, headers, and httpx clients that belong to the caller."""

import asyncio
import copy
import gc
import pickle
import weakref

import httpx
import pytest

from parrot_integrations.client import ParrotClient, shared_client
from parrot_integrations.client.errors import BackendTimeoutError
from parrot_integrations.client.transport.timeouts import timeouts
from tests.integrations.replies import Reply, replying

BODY = {"messages": [{"role": "user", "content": "abc"}]}
SETTINGS = {"api_key": None, "model": None, "timeout": 600.0, "max_retries": None}


# Waits


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (600, (10, 600, 600, None)),
        (3.5, (3.5, 3.5, 3.5, None)),
        (None, (10, None, None, None)),
        ((2, 30), (2, 30, None, None)),
        ([2, 30, 4, 5], (2, 30, 4, 5)),
        (httpx.Timeout(7, connect=1), (1, 7, 7, 7)),
        (httpx.Timeout(None), (None, None, None, None)),
    ],
)
def test_a_timeout_means_what_it_means_to_httpx(given, meant):
    assert timeouts(given) == meant
    assert timeouts(timeouts(given)) == meant


@pytest.mark.parametrize("wrong", [0, -1, "5", True, (1,), (1, 2, 3, 4, 5), (1, 0), (1, "x")])
def test_what_is_no_timeout_is_refused(wrong):
    with pytest.raises(ValueError, match="timeout"):
        ParrotClient("http://127.0.0.1:1", timeout=wrong)


def test_retries_are_two_where_nothing_is_said():
    assert ParrotClient("http://127.0.0.1:1", max_retries=None).max_retries == 2


@pytest.mark.parametrize("timeout", [(5, 0.2), httpx.Timeout(5, read=0.2)])
def test_the_read_timeout_holds(timeout, scripted_engine, scripted_url):
    scripted_engine.hold("slow")
    with (
        ParrotClient(scripted_url, timeout=timeout) as client,
        pytest.raises(BackendTimeoutError),
    ):
        client.chat({"messages": [{"role": "user", "content": "slow"}]})


# Headers


def test_headers_go_with_every_request_and_before_the_key():
    given = {"X-Team": "birds", "AUTHORIZATION": "Basic abc"}
    with replying(Reply()) as server:
        with ParrotClient(server.url, api_key="k", default_headers=given) as client:
            client.chat(BODY)
            with pickle.loads(pickle.dumps(client)) as twin:
                twin.chat(BODY)
        asyncio.run(_ask(server.url, given))
    for _, _, headers, _ in server.requests:
        assert (headers["x-team"], headers["authorization"]) == ("birds", "Basic abc")
    assert len(server.requests) == 3


async def _ask(url, headers):
    async with ParrotClient(url, default_headers=headers) as client:
        await client.achat(BODY)


@pytest.mark.parametrize("key", ["schlüssel", "sk-abc\n", " sk-abc", "sk\r\nX-Evil: 1", "sk\0"])
def test_a_key_that_no_header_can_carry_is_named_and_not_quoted(key):
    with pytest.raises(ValueError, match=r"^api_key can't be sent") as raised:
        ParrotClient("http://127.0.0.1:1", api_key=key)
    assert key.strip() not in str(raised.value)
    with pytest.raises(ValueError, match=r"^default_headers\['x-key'\] can't be sent"):
        ParrotClient("http://127.0.0.1:1", default_headers={"X-Key": key})
    with pytest.raises(ValueError, match="can't be the name of a header"):
        ParrotClient("http://127.0.0.1:1", default_headers={key: "value"})


def test_headers_say_who_asks():
    url = "http://127.0.0.1:1"
    one, two = ({"X-A": "1", "X-B": "2"}, {"x-b": "2", "x-a": "1"})
    assert ParrotClient(url, default_headers=one).key == ParrotClient(url, default_headers=two).key
    assert ParrotClient(url, default_headers=one).key != ParrotClient(url).key


def test_a_call_may_have_options_of_its_own_over_the_same_connections(scripted_url):
    with ParrotClient(scripted_url, api_key="k", default_headers={"x-a": "1"}) as client:
        own = client.with_options({"timeout": 3, "extra_headers": {"X-A": "2", "X-B": "3"}})
        assert own.headers == {"authorization": "Bearer k", "x-a": "2", "x-b": "3"}
        assert own.timeout == (3, 3, 3, None)
        assert own._connections is client._connections
        assert (client.timeout.read, client.headers["x-a"]) == (600, "1")
        assert client.with_options({"seed": 1}) is client
        assert client.with_options({"timeout": 3}).key == client.key


# The caller's own httpx clients


def noting(requests):
    async def anote(request):
        requests.append(request)

    return {"request": [requests.append]}, {"request": [anote]}


def test_the_callers_clients_are_used_and_stay_open(scripted_url):
    requests: list[httpx.Request] = []
    hooks, ahooks = noting(requests)
    with httpx.Client(event_hooks=hooks, headers={"x-mine": "1"}) as sync:
        of_loops = httpx.AsyncClient(event_hooks=ahooks, headers={"x-mine": "1"})

        async def ask():
            async with of_loops, ParrotClient(scripted_url, api_key="k") as own:
                client = own.over(sync, of_loops)
                await client.achat(BODY)
                assert [chunk async for chunk in client.astream_chat(BODY)]
                client.chat(BODY)
                assert list(client.stream_chat(BODY))
                await client.aclose()
                client.close()
                assert not sync.is_closed
                assert not of_loops.is_closed

        asyncio.run(ask())
    assert len(requests) == 4
    for request in requests:
        assert request.headers["x-mine"] == "1"
        assert request.headers["authorization"] == "Bearer k"


def test_one_kind_given_leaves_the_other_to_us(scripted_url):
    requests: list[httpx.Request] = []
    with (
        httpx.Client(event_hooks=noting(requests)[0]) as sync,
        ParrotClient(scripted_url) as own,
    ):
        client = own.over(sync, None)
        assert client.chat(BODY)["choices"]
        assert asyncio.run(client.achat(BODY))["choices"]
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("theirs", "ours", "wait"),
    [
        (httpx.Timeout(3), 600.0, (3, 3, 3, 3)),
        (httpx.Timeout(5), 600.0, (10, 600, 600, None)),
        (httpx.Timeout(3), 7.0, (7, 7, 7, None)),
    ],
)
def test_whose_timeout_holds(theirs, ours, wait, scripted_url):
    requests: list[httpx.Request] = []
    with httpx.Client(timeout=theirs, event_hooks=noting(requests)[0]) as sync:
        ParrotClient(scripted_url, timeout=ours).over(sync, None).chat(BODY)
    assert tuple(requests[0].extensions["timeout"].values()) == wait


def test_a_unix_socket_is_not_reached_over_the_callers_client():
    with httpx.Client() as sync, pytest.raises(ValueError, match="Unix socket"):
        ParrotClient("unix:/tmp/parrot").over(sync, None)


def test_copies_are_without_the_callers_clients(scripted_url):
    with httpx.Client() as sync, ParrotClient(scripted_url) as own:
        client = own.over(sync, None)
        for twin in (pickle.loads(pickle.dumps(client)), copy.deepcopy(client)):
            with twin:
                assert twin.key == own.key != client.key
                assert twin.chat(BODY)["choices"]


# What is shared


def test_who_has_the_same_httpx_clients_shares_ours(scripted_url):
    with httpx.Client() as sync, httpx.Client() as other:
        one = shared_client(scripted_url, **SETTINGS, http_client=sync)
        assert shared_client(scripted_url, **SETTINGS, http_client=sync) is one
        assert shared_client(scripted_url, **SETTINGS, http_client=other) is not one
        assert shared_client(scripted_url, **SETTINGS, http_client=other).key != one.key
        plain = shared_client(scripted_url, **SETTINGS)
        assert one._own is plain._own, "async requests have connections that are kept"


def test_headers_decide_who_shares_a_client(scripted_url):
    one = shared_client(scripted_url, **SETTINGS, default_headers={"a": "1", "b": "2"})
    assert shared_client(scripted_url, **SETTINGS, default_headers={"b": "2", "a": "1"}) is one
    assert shared_client(scripted_url, **SETTINGS, default_headers={"a": "1"}) is not one


def test_the_callers_clients_are_not_kept_alive(scripted_url):
    sync = httpx.Client()
    client = shared_client(scripted_url, **SETTINGS, http_client=sync)
    assert client.chat(BODY)["choices"]
    gone = weakref.ref(sync), weakref.ref(client)
    sync.close()
    del sync, client
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
