"""`Client`: questions to an upstream that have one answer. Each is bounded in time and size."""

import asyncio
import json
import logging
from dataclasses import dataclass, field
from typing import Any

import httpx

from parrot_backend.endpoints.upstream.address import Address, KeyAuth, Secret

ANSWER_SECONDS = 5.0
CONNECT_SECONDS = 5.0
# uvicorn, which most of them run on, closes a connection that is idle for five seconds.
_IDLE_SECONDS = 4.0
_MOST_BYTES = 1 << 23

# It would tell of each request, the probes included.
logging.getLogger("httpx").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Reply:
    """A status, what the body parses to (text where it is no JSON), and the headers."""

    status: int
    body: Any
    headers: httpx.Headers = field(default_factory=httpx.Headers)

    @property
    def good(self) -> bool:
        """Whether it is what was asked for."""
        return 200 <= self.status < 300

    def table(self) -> dict[str, Any]:
        """The body where it is a good answer and an object; else nothing."""
        return self.body if self.good and isinstance(self.body, dict) else {}


class Client:
    """Asks one server. Redirects are not followed: they could lead anywhere, with the key."""

    def __init__(self, address: Address, key: Secret | None) -> None:
        self.address = address
        self.key = key
        encrypted = address.root.startswith("https:")
        self.http = httpx.AsyncClient(
            auth=None if key is None else KeyAuth(key),
            headers={"Accept-Encoding": "identity", "User-Agent": "parrot"},
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, keepalive_expiry=_IDLE_SECONDS),
            follow_redirects=False,
            trust_env=not address.is_local,
            verify=encrypted,  # making what verifies takes a while
        )

    async def get(self, path: str, *, seconds: float = ANSWER_SECONDS) -> Reply:
        """The answer to a question; `path` is the server's own (`/v1/models` is where the API is).

        Raises:
            httpx.HTTPError, TimeoutError: there is none in time.
        """
        return await self._ask("GET", path, None, seconds)

    async def post(
        self, path: str, body: dict[str, Any], *, seconds: float = ANSWER_SECONDS
    ) -> Reply:
        """As `get`."""
        return await self._ask("POST", path, body, seconds)

    async def found(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The object that a route answers with, or nothing: for routes that may not be there."""
        try:
            reply = await self._ask("GET" if body is None else "POST", path, body, ANSWER_SECONDS)
        except (httpx.HTTPError, TimeoutError):
            return {}
        return reply.table()

    def url(self, path: str) -> str:
        """Where a path of the server's is."""
        api = path.removeprefix("/v1/")
        return f"{self.address.api}/{api}" if api != path else self.address.root + path

    async def aclose(self) -> None:
        """Close what is open."""
        await self.http.aclose()

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None, seconds: float
    ) -> Reply:
        async with asyncio.timeout(seconds):
            async with self.http.stream(method, self.url(path), json=body) as response:
                check_plain(response)
                return Reply(response.status_code, await parsed_body(response), response.headers)


def check_plain(response: httpx.Response) -> None:
    """See that it is not compressed, which we have not asked for: what little is becomes much.

    Raises:
        httpx.DecodingError: it is.
    """
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise httpx.DecodingError("compressed", request=response.request)


async def parsed_body(response: httpx.Response) -> Any:
    """JSON, or else text; what is beyond the bound is not read."""
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > _MOST_BYTES:
            break
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content.decode(errors="replace")
