"""Where an upstream is, and the key that opens it."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import NoReturn

import httpx

from parrot_backend.wire.errors import InvalidRequestError

KEY_VARIABLE = "PARROT_ENGINE_API_KEY"
"""Has the key of the only engine that is a URL, where nothing else says where it is."""
KEY_PLACES = (
    f"put it into {KEY_VARIABLE}, or name it by api_key_env or api_key_file in the file of "
    "--engines"
)
"""What is said to who has to give a key."""


class Secret:
    """A key that no `repr`, message, log or pickle shows.

    Raises:
        InvalidRequestError: no header can carry it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not value or not value.isascii() or not value.isprintable() or " " in value:
            raise InvalidRequestError(
                "the API key is empty or has white space or characters that no HTTP header can carry",
                param="api_key",
            )
        self._value = value

    def reveal(self) -> str:
        """The key itself."""
        return self._value

    def hidden_in(self, text: str) -> str:
        """The text without the key, which servers like to quote."""
        return text.replace(self._value, "[the key]")

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written down")


class KeyAuth(httpx.Auth):
    """Sends the key with each request, and holds it where nothing prints it."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header."""
        request.headers["Authorization"] = f"Bearer {self._key.reveal()}"
        yield request


@dataclass(frozen=True, slots=True)
class Address:
    """`api` is where OpenAI's routes begin (`http://host:8000/v1`), `root` where the server's own do.

    `place` names it for people, as `host:port`.
    """

    api: str
    root: str
    place: str

    @property
    def is_local(self) -> bool:
        """Whether no proxy stands before it: it is this machine."""
        return httpx.URL(self.root).host in ("localhost", "127.0.0.1", "::1")

    @classmethod
    def parse(cls, url: str) -> "Address":
        """From `http(s)://host:port`, with or without the path of the API (`/v1`).

        Raises:
            InvalidRequestError: it is none, or has parts that it must not have.
        """
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError, ValueError):
            raise _refused("it is not a URL: write http://host:port") from None
        if parsed.userinfo:
            raise _refused(f"it has a user or a password in it: {KEY_PLACES}")
        good = parsed.scheme in ("http", "https") and 0 < (parsed.port or 80) < 65536
        if not good or not parsed.host:
            raise _refused("it is not an engine's URL: write http://host:port")
        if parsed.query or parsed.fragment:
            raise _refused("it has a query or a fragment: an engine's URL ends with its path")
        origin = f"{parsed.scheme}://{parsed.netloc.decode()}"
        path = parsed.path.rstrip("/")
        root = origin + path.removesuffix("/v1")
        return cls(origin + (path or "/v1"), root, parsed.netloc.decode())


def _refused(why: str) -> InvalidRequestError:
    return InvalidRequestError(f"the engine's URL can't be used: {why}", param="url")
