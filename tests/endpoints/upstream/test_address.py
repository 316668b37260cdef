"""URLs as they may be, and keys that stay secret."""

import copy
import logging
import pickle

import pytest

from parrot_backend.endpoints.upstream.address import Address, Secret
from parrot_backend.endpoints.upstream.endpoint import UpstreamEndpoint
from parrot_backend.wire.errors import EndpointLostError, InvalidRequestError, ParrotError
from tests.endpoints.process.children import deltas_of
from tests.endpoints.upstream.servers import Asked, job, scripted, upstream


@pytest.mark.parametrize(
    ("url", "api", "root"),
    [
        ("http://a:80", "http://a/v1", "http://a"),
        ("http://a:8000", "http://a:8000/v1", "http://a:8000"),
        ("http://a:8000/", "http://a:8000/v1", "http://a:8000"),
        ("http://a:8000/v1/", "http://a:8000/v1", "http://a:8000"),
        ("https://a.b/api/v1", "https://a.b/api/v1", "https://a.b/api"),
        ("https://a.b/v1beta/openai", "https://a.b/v1beta/openai", "https://a.b/v1beta/openai"),
        ("http://[::1]:9/v1", "http://[::1]:9/v1", "http://[::1]:9"),
    ],
)
def test_an_address_is_read(url: str, api: str, root: str) -> None:
    address = Address.parse(url)
    assert (address.api, address.root) == (api, root)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://user:word@a:8000", "put it into PARROT_ENGINE_API_KEY"),
        ("http://user@a", "put it into PARROT_ENGINE_API_KEY"),
        ("ftp://a", "write http://host:port"),
        ("a:8000", "write http://host:port"),
        ("localhost", "write http://host:port"),
        ("http://", "write http://host:port"),
        ("http://a:99999", "write http://host:port"),
        ("", "write http://host:port"),
        ("http://a/v1?api_key=word", "query"),
        ("http://a/v1#x", "fragment"),
    ],
)
def test_what_is_no_engines_url_is_refused(url: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as told:
        UpstreamEndpoint(url)
    assert told.value.param == "url"
    assert "word" not in told.value.message.replace("password", "")


@pytest.mark.parametrize("key", ["", "a b", "a\nb", "schlüssel", "a\x00"])
def test_a_key_has_to_fit_a_header(key: str) -> None:
    with pytest.raises(InvalidRequestError) as told:
        Secret(key)
    assert not key or key not in told.value.message


def test_a_secret_is_shown_nowhere() -> None:
    secret = Secret("sk-very-secret")
    assert "very" not in f"{secret} {secret!r} {[secret]} {secret!s}"
    for write in pickle.dumps, copy.copy:
        with pytest.raises(TypeError):
            write(secret)


async def test_no_log_and_no_error_tells_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def tells(asked: Asked) -> None:
        given = asked.headers["authorization"]
        await asked.json({"error": {"message": f"you sent {given} and it is bad"}}, 400)

    async def refuses(asked: Asked) -> None:
        await asked.json({"error": {"message": asked.headers["authorization"]}}, 403)

    async with scripted() as server, upstream(server, key=Secret("sk-very-secret")) as endpoint:
        server.routes["/v1/chat/completions"] = tells
        with pytest.raises(InvalidRequestError, match="the key") as told:
            await deltas_of(endpoint, job())
        server.routes["/v1/chat/completions"] = refuses
        with pytest.raises(EndpointLostError) as refused:
            await deltas_of(endpoint, job())
        shown = [told.value.message, refused.value.message, repr(endpoint.__dict__), caplog.text]
        shown.append(endpoint.card.engine)
        assert not any("sk-very-secret" in text for text in shown)


async def test_what_a_server_tells_of_itself_can_not_tell_the_key() -> None:
    key = "sk-very-secret"

    async def in_a_header(asked: Asked) -> None:
        await asked.send(f"HTTP/1.1 200 X\r\ncontent-type: a/{key}\r\ncontent-length: 0\r\n\r\n")

    async with scripted(owner="vllm") as server:
        server.routes["/version"] = {"version": key}
        async with upstream(server, key=Secret(key)) as endpoint:
            assert "[the key]" in endpoint.card.engine
            server.routes["/v1/chat/completions"] = in_a_header
            with pytest.raises(EndpointLostError, match=r"answers in 'a/\[the key\]'"):
                await deltas_of(endpoint, job())
        server.models("one", key)
        for model in None, "other":
            endpoint = UpstreamEndpoint(server.url, key=Secret(key), model=model)
            with pytest.raises(ParrotError, match=r"one, \[the key\]") as told:
                await endpoint.start()
            assert key not in told.value.message
            await endpoint.aclose()
