"""An OpenAI-compatible engine that computes nothing, and has whatever fault a test gives it.

A token is a word. Prompts are read one after the other, which takes its time; answers are made at once
in as many slots as there are.
"""

import asyncio
import hashlib
import heapq
import itertools
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from parrot_backend.server import bind, url_of


@dataclass
class FaultyEngine:
    """As it is made, it has no fault, and is an older vLLM by what it tells of itself."""

    slots: int = 16
    priority: str = "lower"  # or higher, ignored, refused
    salt: str = "isolates"  # or ignored, refused
    sharing: str = "batch"  # or computed, slot, none
    cached_tokens: str = "told"  # or hidden
    closing: str = "frees"  # or ignored
    counts: bool = True
    obeys: tuple[str, ...] = ("json_schema", "regex", "lark")
    unknown_fields: str = "ignored"  # or refused
    logprobs: str = "told"  # or hidden, wrong
    token_ids: str = "told"  # or taken, refused, misread
    batching: str = "harmless"  # or changes, random
    context: int | None = 2048
    models: tuple[str, ...] = ("faulty",)
    version: str | None = "0.33.0"
    key: str | None = None
    broken: str | None = None  # garbage, error, hang
    seconds_of_prompt_token: float = 0.0002
    seconds_of_token: float = 0.001
    seconds_to_free: float = 0.0

    running: int = 0
    most: int = 0
    _waiting: list = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _computed: dict[str, list[list[str]]] = field(default_factory=dict)
    _slots: dict[int, tuple[str, list[str]]] = field(default_factory=dict)

    def app(self) -> Starlette:
        self._changed = asyncio.Event()
        return Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/completions", self._completions, methods=["POST"]),
                Route("/version", self._version),
                Route("/metrics", self._metrics),
            ]
        )

    async def _models(self, http: Request) -> Response:
        if self.key and http.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "Unauthorized"}}, 401)
        told = [
            {"id": name, "owned_by": "vllm", "max_model_len": self.context} for name in self.models
        ]
        return JSONResponse({"object": "list", "data": told})

    async def _version(self, http: Request) -> Response:
        return JSONResponse({"version": self.version} if self.version else {})

    async def _metrics(self, http: Request) -> Response:
        line = f'vllm:num_requests_running{{engine="0",model_name="faulty"}} {self.running:.1f}\n'
        return PlainTextResponse(line if self.counts else "# nothing\n")

    async def _completions(self, http: Request) -> Response:
        body = await http.json()
        ids = self.token_ids not in ("refused", "misread")
        if self.token_ids == "refused":
            return _refusal("prompt: a string is expected")
        prompt = len(body["prompt"]) if ids else len(str(body["prompt"]))
        choice = {"index": 0, "text": "one two", "finish_reason": "length"}
        if body.get("return_token_ids") and self.token_ids == "told":
            choice["token_ids"] = [1, 2]
        return JSONResponse({"choices": [choice], "usage": {"prompt_tokens": prompt}})

    async def _chat(self, http: Request) -> Response:
        body = await http.json()
        if self.broken == "error":
            return JSONResponse({"error": {"message": "out of memory"}}, 500)
        if self.broken == "garbage":
            return StreamingResponse(_garbage(), media_type="text/event-stream")
        if self.broken == "hang":
            await asyncio.sleep(60)
        for name, how in (("priority", self.priority), ("cache_salt", self.salt)):
            if how == "refused" and body.get(name):
                return _refusal(f"{name}: not enabled")
        if self.unknown_fields == "refused" and "structured_outputs" in body:
            return _refusal("structured_outputs: unknown field")
        if self.context is None and body["max_tokens"] > 4096:
            return _refusal(f"max_tokens is {body['max_tokens']}, and the context is 4096 tokens")
        return StreamingResponse(self._stream(body), media_type="text/event-stream")

    async def _stream(self, body: dict) -> AsyncIterator[str]:
        pieces: asyncio.Queue = asyncio.Queue()
        making = asyncio.create_task(self._make(body, pieces))
        try:
            while (piece := await pieces.get()) is not None:
                yield f"data: {json.dumps(piece)}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            if self.closing == "frees":
                asyncio.get_running_loop().call_later(self.seconds_to_free, making.cancel)

    async def _make(self, body: dict, pieces: asyncio.Queue) -> None:
        prompt = body["messages"][0]["content"].split()
        salt = body.get("cache_salt", "") if self.salt == "isolates" else ""
        slot, cached = await self._turn(body.get("priority", 0), salt, prompt)
        try:
            crowd = self.running + len(self._waiting)
            words = self._answer(body, prompt, crowd)
            for number, word in enumerate(words):
                await asyncio.sleep(self.seconds_of_token * self.running)
                delta = {"role": "assistant", "content": word}
                reason = "length" if number == len(words) - 1 else None
                choice = {"index": 0, "delta": delta, "finish_reason": reason}
                if body.get("logprobs") and self.logprobs != "hidden":
                    told = -0.5 if self.logprobs == "told" else 3.0
                    choice["logprobs"] = {"content": [{"token": word, "logprob": told}]}
                pieces.put_nowait({"choices": [choice]})
            usage: dict = {"prompt_tokens": len(prompt), "completion_tokens": len(words)}
            if self.cached_tokens == "told":
                usage["prompt_tokens_details"] = {"cached_tokens": cached}
            pieces.put_nowait({"choices": [], "usage": usage})
        finally:
            self._slots[slot] = (salt, prompt)
            self._free.append(slot)
            self.running -= 1
            self._go_on()
            pieces.put_nowait(None)

    async def _turn(self, priority: int, salt: str, prompt: list[str]) -> tuple[int, int]:
        """Wait for it, and read the prompt: the slot, and how much of the prompt was there already."""
        rank = {"lower": priority, "higher": -priority}.get(self.priority, 0)
        before = self._found(salt, prompt)
        mine = asyncio.Event()
        entry = (rank, next(self._numbers), mine)
        heapq.heappush(self._waiting, entry)
        self._go_on()
        try:
            await mine.wait()
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
            else:
                self._readers -= 1
                self._called -= 1
            raise
        self._called -= 1
        self.running += 1
        slot = self._best_slot(salt, prompt)
        self._free.remove(slot)
        try:
            known = {"computed": before, "batch": self._found(salt, prompt)}
            known["slot"] = _common(prompt, self._slots[slot][1]) if slot in self._slots else 0
            cached = min(known.get(self.sharing, 0), len(prompt) - 1)
            seconds = self.seconds_of_prompt_token * (len(prompt) - cached)
            await asyncio.sleep(seconds * self._readers)
            self._computed.setdefault(salt, []).append(prompt)
        except asyncio.CancelledError:
            self._free.append(slot)
            self.running -= 1
            raise
        finally:
            self._readers -= 1
            self._go_on()
        return slot, cached

    def _go_on(self) -> None:
        """Who is first reads, where a slot is free; one at a time, or as many as there are slots."""
        at_once = self.slots if self.sharing == "slot" else 1
        while (
            self._readers < at_once and self._waiting and self.running + self._called < self.slots
        ):
            self._readers += 1
            self._called += 1
            heapq.heappop(self._waiting)[-1].set()

    def _found(self, salt: str, prompt: list[str]) -> int:
        return max((_common(prompt, each) for each in self._computed.get(salt, ())), default=0)

    def _best_slot(self, salt: str, prompt: list[str]) -> int:
        held = {slot: self._slots.get(slot, ("", [])) for slot in self._free}
        return max(held, key=lambda slot: (held[slot][0] == salt) * _common(prompt, held[slot][1]))

    def __post_init__(self) -> None:
        self._free = list(range(self.slots))
        self._readers = self._called = 0

    def _answer(self, body: dict, prompt: list[str], crowd: int) -> list[str]:
        if forced := self._forced(body):
            return [forced]
        seed = " ".join(prompt)
        if self.batching == "random":
            seed += str(time.monotonic_ns())
        if self.batching == "changes" and crowd > 1:
            seed += "beside"
        digest = hashlib.sha256(seed.encode()).hexdigest()
        return [f"{digest[number % 60 :][:4]} " for number in range(body["max_tokens"])]

    def _forced(self, body: dict) -> str | None:
        """The shortest text of a grammar, of the few forms that the doctor asks for."""
        outputs = body.get("structured_outputs") or {}
        if "response_format" in body and "json_schema" in self.obeys:
            schema = body["response_format"]["json_schema"]["schema"]
            return json.dumps({"hue": schema["properties"]["hue"]["enum"][0], "level": 1})
        if "regex" in outputs and "regex" in self.obeys:
            return _shortest(outputs["regex"])
        if "grammar" in outputs and "lark" in self.obeys:
            start, word = outputs["grammar"].splitlines()
            left, right = re.findall(r'"([^"]*)"', start)
            return left + _shortest(word.partition("/")[2].rstrip("/")) + right
        return None


async def _garbage() -> AsyncIterator[str]:
    yield "data: {]\n\n"


def _shortest(regex: str) -> str:
    return re.sub(r"\[(.)[^\]]*\]\{(\d+)\}", lambda match: match[1] * int(match[2]), regex)


def _common(some: list[str], others: list[str]) -> int:
    pairs = zip(some, others, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _refusal(words: str) -> Response:
    return JSONResponse({"error": {"message": words, "type": "BadRequestError"}}, 400)


@contextmanager
def served(engine: FaultyEngine) -> Iterator[str]:
    """The engine's address, while it can be reached."""
    listener = bind("127.0.0.1", 0)
    config = uvicorn.Config(
        engine.app(), log_level="critical", timeout_graceful_shutdown=1, lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield url_of(listener)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()
