"""`Patient`: an engine that is examined, asked over plain HTTP."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx

from parrot_backend.endpoints.upstream.client import Client
from parrot_backend.endpoints.upstream.dialect import Dialect, Tools
from parrot_backend.endpoints.upstream.faults import error_in, quoted
from parrot_backend.endpoints.upstream.tools import does_tools

# Short words that most vocabularies have as one token, with the space before them.
_TEXT = """
time year people way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work government number night point
home water room mother area money story fact month lot right study book eye job word business issue
side kind head house service friend father power hour game line end
"""
_WORDS = _TEXT.split()
_REFUSED = (400, 404, 405, 422, 501)
_LONGEST_WORDS = 160


class RefusedError(Exception):
    """The engine says that a request is not valid; with its own words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"{status}: {words}")
        self.words = words


def now() -> float:
    """The time of the event loop, as which sleeps and timeouts count it as well."""
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Sample:
    """What came, and when: in seconds, as `now` tells.

    `first` is when the first text came, or the end where there is no text. Numbers that the engine does
    not tell are None.
    """

    began: float
    first: float = 0.0
    ended: float = 0.0
    text: str = ""
    finish: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def waited(self) -> float:
        """Until the first text."""
        return self.first - self.began

    @property
    def seconds(self) -> float:
        """Until the end."""
        return self.ended - self.began

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one chunk of the stream into account."""
        moment = now()
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            text = delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning")
            self.finish = choice.get("finish_reason") or self.finish
            self.logprobs += (choice.get("logprobs") or {}).get("content") or ()
            if text or self.finish:
                self.first = self.first or moment
            self.text += text or ""
        if usage := event.get("usage"):
            self.prompt_tokens = usage.get("prompt_tokens")
            self.completion_tokens = usage.get("completion_tokens")
            self.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")


class Patient:
    """One model of an engine.

    Args:
        client: asks it.
        model: the name to ask for.
        dialect: what its kind speaks, as far as a request can't be without.
        context: tokens that fit its context, where the engine tells.
        quick: whether the checks have half the time and half the text.
        patience: seconds that it may say nothing for.
    """

    def __init__(
        self,
        client: Client,
        model: str,
        dialect: Dialect,
        context: int | None,
        *,
        quick: bool = False,
        patience: float = 60.0,
    ) -> None:
        self.model = model
        self.dialect = dialect
        self.context = context
        self.quick = quick
        self.tokens_per_second = 1000.0
        self.tells_cached_tokens: bool | None = None
        self._client = client
        self._timeout = httpx.Timeout(patience, connect=5)
        self._random = random.Random()

    def text(self, words: int) -> str:
        """So many words, which nobody has asked before."""
        return " ".join(self._random.choices(_WORDS, k=words))

    def words_for(self, seconds: float, least: int = 128) -> int:
        """How many take the engine so long to read, within what fits easily."""
        most = min(4096, (self.context or 4096) // 3)
        return max(min(least, most), min(most, int(self.tokens_per_second * seconds)))

    async def does_tools(self) -> Tools:
        """Who can have tools called; see `endpoints.upstream.tools`."""
        return await does_tools(self._client, self.model)

    async def chat(self, content: str, max_tokens: int = 1, **more: Any) -> Sample:
        """Ask one thing, greedily, and wait for the end.

        Raises:
            RefusedError: the engine doesn't take it.
            httpx.HTTPError: it can't be asked, or fails.
        """
        answer = Sample(now())
        async with aclosing(self.stream(content, max_tokens, **more)) as events:
            async for event in events:
                answer.add(event)
        answer.ended = now()
        answer.first = answer.first or answer.ended
        return answer

    async def stream(
        self, content: str, max_tokens: int, **more: Any
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of an answer as they come; closing it closes the connection."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            self.dialect.taken["max_tokens"]: max_tokens,
            "temperature": 0,
            "stream": True,
            **more,
        }
        if self.dialect.tells_usage:
            body["stream_options"] = {"include_usage": True}
        async with self._post("/v1/chat/completions", body) as response:
            await self._check(response)
            async for event in self._events(response):
                yield event

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON that is answered to a body.

        Raises:
            RefusedError: as for `chat`.
        """
        async with self._post(path, {"model": self.model, **body}) as response:
            await self._check(response)
            told: dict[str, Any] = json.loads(await response.aread())
            return told

    async def get(self, path: str) -> str | None:
        """What is answered at a path; None where there is nothing."""
        try:
            response = await self._client.http.get(self._client.url(path), timeout=3)
        except httpx.HTTPError:
            return None
        return response.text if response.is_success else None

    def _post(
        self, path: str, body: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[httpx.Response]:
        url = self._client.url(path)
        return self._client.http.stream("POST", url, json=body, timeout=self._timeout)

    async def _check(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        words = self._words_of((await response.aread()).decode(errors="replace"))
        if response.status_code in _REFUSED:
            raise RefusedError(response.status_code, words)
        raise httpx.HTTPStatusError(
            f"{response.status_code}: {words}", request=response.request, response=response
        )

    def _words_of(self, body: str) -> str:
        """What an engine says is wrong, on one line."""
        try:
            told = json.loads(body)
        except ValueError:
            told = body
        return quoted(error_in(told)["message"], self._client.key)[:_LONGEST_WORDS]

    async def _events(self, response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
        """The JSON of each server-sent event, up to `[DONE]`."""
        async for line in response.aiter_lines():
            data = line.removeprefix("data:").strip()
            if not line.startswith("data:") or not data:
                continue
            if data == "[DONE]":
                return
            event = json.loads(data)
            if event.get("error"):
                raise httpx.RemoteProtocolError(self._words_of(data))
            yield event
